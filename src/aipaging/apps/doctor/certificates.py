"""Checks of certificates: there, for how long, with the key that belongs to them, for the name that clients use."""

import datetime as dt
import os
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from aipaging.apps.doctor.finding import Finding, Situation, doubtful, fine, wrong

EXPIRY_NOTICE: Final = dt.timedelta(days=14)
"""Long enough to order a certificate."""


def certificates(situation: Situation) -> Iterator[Finding]:
    """Look at when certificates end."""
    if not situation.config:
        return
    for section in ("northbound", "gateway"):
        tls = situation.config[section]["tls"]
        if tls is None:
            continue
        for path in (Path(tls["certificate"]), Path(tls["key"])):
            if not os.access(path, os.R_OK):
                yield wrong(
                    f"{path} of [{section}] cannot be read", fix="put it there, readable to the controller's user"
                )
        yield from _expiry(Path(tls["certificate"]), f"the certificate of [{section}]")
        yield from _fit(section, Path(tls["certificate"]), Path(tls["key"]), situation.config[section]["public_url"])
    directory = situation.data_dir
    if directory is not None and (directory / "ca" / "ca.pem").exists():
        yield from _expiry(directory / "ca" / "ca.pem", "the certificate of the southbound authority")


def _expiry(path: Path, what: str) -> Iterator[Finding]:
    from cryptography import x509  # noqa: PLC0415 - 50 ms

    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        yield wrong(f"{what} ({path}) is not a PEM certificate: {error}", fix="put a PEM chain there")
        return
    left = ends - dt.datetime.now(dt.UTC)
    if left < dt.timedelta():
        yield wrong(f"{what} ({path}) expired on {ends:%Y-%m-%d}", fix="renew it")
    elif left < EXPIRY_NOTICE:
        yield doubtful(f"{what} ({path}) expires in {left.days} days", fix="renew it")
    else:
        yield fine(f"{what} is valid until {ends:%Y-%m-%d}")


def _fit(section: str, certificate: Path, key: Path, public_url: str | None) -> Iterator[Finding]:
    """Look whether certificate and key are a pair, and whether clients will find the name that they called."""
    from cryptography import x509  # noqa: PLC0415 - 50 ms

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
        found = x509.load_pem_x509_certificate(certificate.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except ssl.SSLError:
        yield wrong(
            f"{key} is not the key of {certificate}", fix=f"put the pair into [{section}] that was issued together"
        )
        return
    except (OSError, ValueError):
        return  # said above
    except x509.ExtensionNotFound:
        yield wrong(f"{certificate} names no host: clients refuse it", fix="have one issued with subjectAltName")
        return
    host = urlsplit(public_url or "").hostname or ""
    if host and not _covered(host, names.get_values_for_type(x509.DNSName), names.get_values_for_type(x509.IPAddress)):
        yield wrong(
            f"{certificate} is not for {host}, which is what {section}.public_url says",
            fix=f"have one issued for {host}, or correct public_url",
        )


def _covered(host: str, names: Sequence[str], addresses: Sequence[object]) -> bool:
    parent = host.partition(".")[2]
    return host in names or f"*.{parent}" in names or host in map(str, addresses)
