"""The controller's certificate authority: short certificates that say who may speak southbound.

A certificate carries exactly one URI, `spiffe://<trust domain>/<role>/<name>`. What it says comes from the controller
(the enrolment, or the identity that a renewal was authenticated with), never from the request for it. There is
no revocation list: certificates are short, and the controller stops renewing. Contexts for TLS live in `peer`.
"""

import datetime as dt
import ipaddress
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from aipaging.adapters.signing.files import (
    KEY_FILE_BYTES_MAX,
    PUBLIC_MODE,
    create_once,
    private_directory,
    read_private,
    replace,
    unreadable_key,
)
from aipaging.adapters.signing.peer import Role, spiffe_id
from aipaging.core.foundation.errors import AipagingError, InvalidInputError, RefusedError, UnverifiedError, Who
from aipaging.core.foundation.names import checked_name
from aipaging.core.foundation.time import SECOND, WallUs

AUTHORITY_LIFETIME_S: Final = 10 * 365 * 86_400
"""The authority is trusted by file, not by time; replacing it is a planned re-enrolment, so it must not surprise."""

CERTIFICATE_LIFETIME_S: Final = 86_400
"""A day: without revocation lists this is how long a stolen key works after its owner is no longer renewed."""

CERTIFICATE_LIFETIME_S_MAX: Final = 30 * 86_400
"""A month: beyond it a certificate outlives the plan behind it."""

RENEW_AFTER_FRACTION: Final = 0.4
"""Renewal begins before half-life, so a controller that is down for hours costs nobody an identity."""

BACKDATE_S: Final = 300
"""A certificate is valid from five minutes ago: peers whose clocks lag (Kerberos' customary skew) accept it."""

SUBJECT_ALTERNATIVES_MAX: Final = 32
"""DNS names and addresses of one certificate."""

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?")


def _wall_clock() -> WallUs:
    return WallUs(time.time_ns() // 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateAuthority:
    """Issues the identities of controllers, gateways and anchors.

    Attributes:
        trust_domain: The host part of every identity.
        certificate_pem: What peers trust.
    """

    trust_domain: str
    certificate_pem: bytes
    _certificate: x509.Certificate = field(repr=False)
    _key: ec.EllipticCurvePrivateKey = field(repr=False)
    _clock: Callable[[], WallUs] = field(repr=False)

    @classmethod
    def open(
        cls, directory: Path, trust_domain: str, *, clock: Callable[[], WallUs] = _wall_clock
    ) -> "CertificateAuthority":
        """Return the authority in `directory`, making it on first use.

        Raises:
            InvalidInputError: `trust_domain` is not a SPIFFE trust domain.
            AipagingError: The files are not those of an authority for `trust_domain`, or others may read its key.
        """
        if not _TRUST_DOMAIN.fullmatch(trust_domain):
            raise InvalidInputError(
                f"trust domain {trust_domain[:80]!r}: lower-case letters, digits, dots, hyphens and underscores "
                "are allowed, such as operator.example",
                field="trust_domain",
            )
        private_directory(directory)
        key = private_key(directory / "ca-key.pem")
        path = directory / "ca.pem"
        if not path.exists():
            create_once(path, _root_certificate(key, trust_domain, clock()), mode=PUBLIC_MODE)
        content = path.read_bytes()[:KEY_FILE_BYTES_MAX]
        try:
            certificate = x509.load_pem_x509_certificate(content)
        except ValueError:
            raise unreadable_key(path) from None
        _check_root(certificate, key, path=path, trust_domain=trust_domain)
        return cls(trust_domain=trust_domain, certificate_pem=content, _certificate=certificate, _key=key, _clock=clock)

    def issue(
        self,
        role: Role,
        name: str,
        *,
        public_key: ec.EllipticCurvePublicKey,
        lifetime_s: int = CERTIFICATE_LIFETIME_S,
        dns_names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> bytes:
        """Return the PEM chain (leaf first, without the root) of `role`/`name` for `public_key`.

        Raises:
            InvalidInputError: The name, key, lifetime, a DNS name or an address is not allowed.
        """
        if not 1 <= lifetime_s <= CERTIFICATE_LIFETIME_S_MAX:
            raise InvalidInputError(
                f"lifetime_s is {lifetime_s}: 1 to {CERTIFICATE_LIFETIME_S_MAX} is allowed", field="lifetime_s"
            )
        if not isinstance(public_key.curve, ec.SECP256R1):
            raise InvalidInputError("the key must be on P-256: every TLS stack that we speak to takes it")
        names = _alternatives(
            spiffe_id(self.trust_domain, role, checked_name(name, field="name")),
            dns_names=dns_names,
            addresses=addresses,
        )
        now = _instant(self._clock())
        authority_end = self._certificate.not_valid_after_utc
        if now >= authority_end:
            raise AipagingError(
                "the certificate authority has expired; make a new one and enrol again",
                code="AUTHORITY_EXPIRED",
                who=Who.OPERATOR,
            )
        leaf = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(self._certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(seconds=BACKDATE_S))
            .not_valid_after(min(now + dt.timedelta(seconds=lifetime_s), authority_end))
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return leaf.public_bytes(Encoding.PEM)

    def renew_from_csr(
        self,
        csr_pem: bytes,
        role: Role,
        name: str,
        *,
        dns_names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> bytes:
        """Return a fresh chain for the identity that the caller was authenticated with.

        Nothing but the key is taken from the request: names that it asks for are not read.

        Args:
            csr_pem: PKCS #10 request in PEM.
            role: Role of the authenticated peer.
            name: Name of the authenticated peer.
            dns_names: DNS names that the enrolment gave it.
            addresses: Addresses that the enrolment gave it.

        Raises:
            UnverifiedError: The request is malformed or not signed by its own key.
            RefusedError: The role is not one that renews over the wire.
        """
        if role == "controller":
            raise RefusedError("a controller renews its own certificate, never by request", code="ROLE_NOT_RENEWABLE")
        if len(csr_pem) > KEY_FILE_BYTES_MAX:
            raise UnverifiedError("the certificate request is too long", code="CSR_MALFORMED", who=Who.CALLER)
        try:
            request = x509.load_pem_x509_csr(csr_pem)
            public_key = request.public_key()
            proven = request.is_signature_valid
        except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature):
            raise UnverifiedError(
                "the certificate request is malformed", code="CSR_MALFORMED", who=Who.CALLER
            ) from None
        if not proven or not isinstance(public_key, ec.EllipticCurvePublicKey):
            raise UnverifiedError(
                "the certificate request is not signed by its own P-256 key", code="CSR_SIGNATURE", who=Who.CALLER
            )
        return self.issue(role, name, public_key=public_key, dns_names=dns_names, addresses=addresses)

    def write_identity(
        self,
        directory: Path,
        role: Role,
        name: str,
        *,
        lifetime_s: int = CERTIFICATE_LIFETIME_S,
        dns_names: Sequence[str] = (),
        addresses: Sequence[str] = (),
    ) -> None:
        """Write `key.pem` (0600, kept if it is there), `ca.pem` and `cert.pem` of an identity into `directory`.

        The key never changes under a certificate, so whatever instant a crash picks, the pair that is read
        belongs together; a reader that watches `cert.pem` sees it last.

        Raises:
            InvalidInputError: As `issue`.
            AipagingError: The directory cannot be written, or its key is not one of ours.
        """
        private_directory(directory)
        key = private_key(directory / "key.pem")
        chain = self.issue(
            role,
            name,
            public_key=key.public_key(),
            lifetime_s=lifetime_s,
            dns_names=dns_names,
            addresses=addresses,
        )
        replace(directory / "ca.pem", self.certificate_pem, mode=PUBLIC_MODE)
        replace(directory / "cert.pem", chain, mode=PUBLIC_MODE)


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key at `path`, making it if there is none.

    Raises:
        AipagingError: The file is another kind of key, or others may read it.
    """
    if not path.exists():
        fresh = ec.generate_private_key(ec.SECP256R1())
        create_once(path, fresh.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    content = read_private(path)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise unreadable_key(path) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise unreadable_key(path)
    return key


def signing_request(directory: Path) -> bytes:
    """Return a PEM certificate request, signed by the identity's own key in `directory`, for a renewal.

    Raises:
        AipagingError: `key.pem` is not one of ours, or others may read it.
    """
    key = private_key(directory / "key.pem")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def store_chain(directory: Path, chain_pem: bytes) -> None:
    """Put a renewed chain in the place of `cert.pem`, if it certifies the key beside it.

    Raises:
        UnverifiedError: It does not parse or is for another key; the old certificate stays.
        AipagingError: The directory cannot be read or written.
    """
    key = private_key(directory / "key.pem")
    try:
        leaf = x509.load_pem_x509_certificates(chain_pem)[0]
    except ValueError:
        raise UnverifiedError("the renewed certificate does not parse", code="CERTIFICATE_MALFORMED") from None
    if leaf.public_key() != key.public_key():
        raise UnverifiedError("the renewed certificate is for another key", code="CERTIFICATE_MALFORMED")
    replace(directory / "cert.pem", chain_pem, mode=PUBLIC_MODE)


def renewal_due_us(directory: Path) -> WallUs:
    """Return the wall instant from which the certificate in `directory` should be renewed.

    Raises:
        AipagingError: `cert.pem` cannot be read.
    """
    path = directory / "cert.pem"
    try:
        leaf = x509.load_pem_x509_certificates(path.read_bytes())[0]
    except (OSError, ValueError):
        raise AipagingError(
            f"{path} is not a readable certificate; enrol this node again", code="NOT_ENROLLED", who=Who.OPERATOR
        ) from None
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    due = begin + (end - begin) * RENEW_AFTER_FRACTION
    return WallUs(int(due.timestamp() * SECOND))


def _root_certificate(key: ec.EllipticCurvePrivateKey, trust_domain: str, now_us: WallUs) -> bytes:
    now = _instant(now_us)
    subject = _subject("aipaging southbound authority")
    root = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(seconds=BACKDATE_S))
        .not_valid_after(now + dt.timedelta(seconds=AUTHORITY_LIFETIME_S))
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return root.public_bytes(Encoding.PEM)


def _check_root(
    certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, *, path: Path, trust_domain: str
) -> None:
    if certificate.public_key() != key.public_key():
        raise unreadable_key(path)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if found != [f"spiffe://{trust_domain}"]:
        raise AipagingError(
            f"{path} is the authority of {found}, not of spiffe://{trust_domain}; set the trust domain back, or use "
            "another directory and enrol every node again",
            code="TRUST_DOMAIN_CHANGED",
            who=Who.OPERATOR,
        )


def _alternatives(uri: str, *, dns_names: Sequence[str], addresses: Sequence[str]) -> list[x509.GeneralName]:
    if len(dns_names) + len(addresses) > SUBJECT_ALTERNATIVES_MAX:
        raise InvalidInputError(f"at most {SUBJECT_ALTERNATIVES_MAX} DNS names and addresses fit one certificate")
    try:
        hosts = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        domains = [x509.DNSName(name) for name in dns_names]
    except ValueError as error:
        raise InvalidInputError(f"a DNS name or address of the certificate is malformed: {error}") from None
    return [x509.UniformResourceIdentifier(uri), *domains, *hosts]


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _instant(wall_us: WallUs) -> dt.datetime:
    # X.509 times are whole seconds.
    return dt.datetime.fromtimestamp(wall_us // SECOND, tz=dt.UTC)
