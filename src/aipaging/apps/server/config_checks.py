"""What the tables of a configuration must not say about one another.

Every check sees all tables, and skips what was already wrong by itself, so that one report holds every mistake.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from aipaging.apps.server.config_fields import HostPort, Mistake, Table, shown
from aipaging.core.anchor.catalogue import DomainKind
from aipaging.core.envelope.document import VALIDITY_S_MAX
from aipaging.core.foundation.time import SECOND

EXPIRES_SOON_US: Final = 86_400 * SECOND
"""A day: an envelope that ends sooner ends while somebody sleeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Every table of a file.

    Attributes:
        one: The sections that stand once, by name.
        many: The arrays of tables, by name.
        wall_us: Now, for validity.
    """

    one: Mapping[str, Table]
    many: Mapping[str, Sequence[Table]]
    wall_us: int


Check = Callable[[Tables], Iterator[Mistake]]


def cross_checked(tables: Tables) -> list[Mistake]:
    """Return every contradiction between the tables."""
    return [mistake for check in CHECKS for mistake in check(tables)]


def _unique(tables: Tables) -> Iterator[Mistake]:
    for section, keys in (
        ("client", ("client_id",)),
        ("service", ("aisi",)),
        ("domain", ("name",)),
        ("path", ("access", "compute")),
        ("envelope", ("domain", "aisi")),
        ("anchor", ("id",)),
        ("anchor", ("address",)),
    ):
        first: dict[tuple[object, ...], Table] = {}
        for table in tables.many[section]:
            if any(key not in table.values for key in keys):
                continue
            identity = tuple(table.get(key) for key in keys)
            if identity in first:
                what = ", ".join(f"{key} {value}" for key, value in zip(keys, identity, strict=True) if value)
                yield Mistake(
                    table.at(keys[0]), f"{shown(table.path)} has the {what} of {shown(first[identity].path)}: one each"
                )
            first.setdefault(identity, table)


def _references(tables: Tables) -> Iterator[Mistake]:
    services = {table.get("aisi"): None for table in tables.many["service"]}
    domains = {table.get("name"): table.get("kind") for table in tables.many["domain"]}
    for section, key, kind in (
        ("path", "access", DomainKind.ACCESS),
        ("path", "compute", DomainKind.COMPUTE),
        ("envelope", "domain", None),
        ("anchor", "domain", DomainKind.COMPUTE),
    ):
        for table in tables.many[section]:
            yield from _domain_reference(table, key, table.get(key), kind=kind, domains=domains)
    for table in tables.many["path"]:
        for name in table.get("transport") or ():
            yield from _domain_reference(table, "transport", name, kind=DomainKind.TRANSPORT, domains=domains)
    for section in ("envelope", "anchor"):
        for table in tables.many[section]:
            aisi = table.get("aisi")
            if aisi is not None and aisi not in services:
                yield Mistake(table.at("aisi"), f"{shown(table.at('aisi'))}: no [[service]] has the aisi {aisi}")


def _domain_reference(
    table: Table, key: str, name: str | None, *, kind: DomainKind | None, domains: Mapping[str | None, str | None]
) -> Iterator[Mistake]:
    if name is None:
        return
    path = table.at(key)
    if name not in domains:
        yield Mistake(path, f"{shown(path)}: no [[domain]] has the name {name}")
    elif kind is not None and domains[name] not in {None, kind.value}:
        yield Mistake(path, f"{shown(path)}: {name} is of kind {domains[name]}, and {kind.value} is needed here")


def _ports(tables: Tables) -> Iterator[Mistake]:
    listeners = [
        (tables.one["northbound"], "listen"),
        (tables.one["southbound"], "listen"),
        (tables.one["southbound"], "ads_listen"),
        (tables.one["gateway"], "listen"),
    ]
    used: list[tuple[HostPort, str]] = []
    for table, key in [*listeners, *((anchor, "address") for anchor in tables.many["anchor"])]:
        address: HostPort | None = table.get(key)
        if address is None or not address.port:
            continue
        for other, where in used:
            if not where.startswith("anchor") and _clash(address, other):
                path = table.at(key)
                yield Mistake(path, f"{shown(path)}: port {address.port} is taken by {where} ({other})")
        used.append((address, shown(table.at(key))))


def _clash(one: HostPort, other: HostPort) -> bool:
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
    return one.port == other.port and (one.host == other.host or one.host in everywhere or other.host in everywhere)


def _plain_text(tables: Tables) -> Iterator[Mistake]:
    north, gateway = tables.one["northbound"], tables.one["gateway"]
    for table in (north, gateway):
        if (table.get("certificate") is None) != (table.get("key") is None) and {"certificate", "key"} & table.given:
            yield Mistake(table.path, f"{shown(table.path)}: certificate and key belong together: give both or none")
    listen: HostPort | None = north.get("listen")
    if listen is not None and not listen.loopback and "certificate" not in north.given:
        yield Mistake(
            north.at("listen"),
            f"northbound.listen: {listen} is not loopback, and secrets never travel in plain text: give certificate "
            "and key, or listen on 127.0.0.1 behind a proxy that ends TLS",
        )
    listen = gateway.get("listen")
    if gateway.get("plain_text") and listen is not None and not listen.loopback:
        yield Mistake(
            gateway.at("plain_text"), f"gateway.plain_text: {listen} is not loopback, and tokens travel there: use TLS"
        )
    for anchor in tables.many["anchor"]:
        address: HostPort | None = anchor.get("address")
        if anchor.get("tls") is False and address is not None and not address.loopback:
            path = anchor.at("tls")
            yield Mistake(path, f"{shown(path)}: {address} is not loopback: plain text is refused there")


def _client_certificates(tables: Tables) -> Iterator[Mistake]:
    """Yield where certificates of clients would never be asked for, or never be of use."""
    north, gateway = tables.one["northbound"], tables.one["gateway"]
    for table, lacking in ((north, "certificate" not in north.given), (gateway, gateway.get("plain_text"))):
        if "client_ca" in table.given and lacking:
            path = table.at("client_ca")
            yield Mistake(path, f"{shown(path)}: clients show certificates over TLS only, and there is none here")
    if "client_ca" in north.given and gateway.get("plain_text"):
        path = north.at("client_ca")
        yield Mistake(path, f"{shown(path)}: the gateway is without TLS, and would refuse every token that is bound")
    for table in (north, gateway):
        authority = table.get("client_ca")
        if authority is not None and not authority.is_file():
            path = table.at("client_ca")
            yield Mistake(path, f"{shown(path)}: {authority} is missing")


def _public_urls(tables: Tables) -> Iterator[Mistake]:
    for section in ("northbound", "gateway"):
        table = tables.one[section]
        listen: HostPort | None = table.get("listen")
        if listen is not None and listen.host in {"0.0.0.0", "::"} and "public_url" not in table.given:  # noqa: S104
            yield Mistake(
                table.path,
                f"{section} listens everywhere ({listen}) and lacks public_url: say how others reach it",
            )


def _lease_times(tables: Tables) -> Iterator[Mistake]:
    table = tables.one["lease"]
    lease_ms, most, drain = table.get("lease_ms"), table.get("lease_ms_max"), table.get("drain_ms_max")
    if lease_ms is None:
        return
    if most is not None and lease_ms > most:
        yield Mistake(table.at("lease_ms"), f"lease.lease_ms: {lease_ms} is above lease_ms_max, {most}")
    if drain is not None and drain < lease_ms:
        yield Mistake(
            table.at("drain_ms_max"),
            f"lease.drain_ms_max: {drain} is below lease_ms, {lease_ms}: a gateway may use the source that long after "
            "a switch, and would be cut",
        )
    lost = tables.one["limits"].get("anchor_lost_ms")
    if lost is not None and lost > lease_ms:
        yield Mistake(
            tables.one["limits"].at("anchor_lost_ms"),
            f"limits.anchor_lost_ms: {lost} is above lease.lease_ms, {lease_ms}: a lost anchor keeps its sessions for "
            "longer than a lease",
            warning=True,
        )


def _secrets(tables: Tables) -> Iterator[Mistake]:
    ways = ("secret_sha256", "secret_file", "secret_env")
    digests: dict[str, Table] = {}
    for table in tables.many["client"]:
        given = [way for way in ways if way in table.given]
        if len(given) != 1 and not (not given and "keys_file" in table.given):
            found = f"has {' and '.join(given)}" if given else "says nothing about its secret"
            yield Mistake(table.path, f"{shown(table.path)} {found}: give exactly one of {', '.join(ways)}")
        digest = table.get("secret_sha256")
        if digest in digests:
            yield Mistake(table.path, f"{shown(table.path)} has the secret of {shown(digests[digest].path)}: one each")
        if digest is not None:
            digests.setdefault(digest, table)
    if not tables.many["client"]:
        yield Mistake(("client",), "there is no [[client]]: nobody can call the API", warning=True)


def _guardrails(tables: Tables) -> Iterator[Mistake]:
    for table in tables.many["envelope"]:
        capacity, guardrail = table.get("capacity_rps"), table.get("rate_rps_max")
        if capacity and guardrail and capacity < guardrail:
            path = table.at("capacity_rps")
            yield Mistake(
                path, f"{shown(path)}: {capacity:g} is below the guardrail of one session, rate_rps_max {guardrail:g}"
            )
        loss, error = table.get("loss"), table.get("error")
        if loss is not None and error is not None and loss + error >= 1:
            yield Mistake(
                table.at("loss"), f"{shown(table.path)}: loss and error sum to {loss + error:g}: nothing left"
            )


def _validity(tables: Tables) -> Iterator[Mistake]:
    for table in tables.many["envelope"]:
        begin, end = table.get("valid_from"), table.get("valid_until")
        path = table.at("valid_until")
        if begin is not None and begin > tables.wall_us:
            yield Mistake(table.at("valid_from"), f"{shown(table.path)} is not valid yet", warning=True)
        if end is None:
            continue
        if begin is not None and end <= begin:
            yield Mistake(path, f"{shown(path)}: the end of validity is not after its start")
        elif end <= tables.wall_us:
            yield Mistake(path, f"{shown(path)}: the envelope has expired: nothing can be admitted under it")
        elif end <= tables.wall_us + EXPIRES_SOON_US:
            yield Mistake(path, f"{shown(path)}: the envelope expires within a day", warning=True)


def _keys(tables: Tables) -> Iterator[Mistake]:
    """Yield contradictions about who signs for a domain, and what a signature cannot cover."""
    for table in tables.many["domain"]:
        keys_file, keys_url = table.get("keys_file"), table.get("keys_url")
        if keys_file is None and keys_url is None:
            continue
        if keys_file is not None and keys_url is not None:
            yield Mistake(table.at("keys_url"), f"{shown(table.path)} has keys_file and keys_url: give one")
        if keys_file is not None and not keys_file.is_file():
            where = shown(table.at("keys_file"))
            yield Mistake(table.at("keys_file"), f"{where}: {keys_file} is missing: no envelope is accepted", True)
        if keys_url is not None and not keys_url.startswith("https://") and not _loopback(keys_url):
            yield Mistake(table.at("keys_url"), f"{shown(table.at('keys_url'))}: keys travel by https, or on loopback")


def _plain_envelopes(tables: Tables) -> Iterator[Mistake]:
    """Yield plain envelopes of domains that sign, and what one signature cannot cover."""
    signing = {table.get("name") for table in tables.many["domain"] if {"keys_file", "keys_url"} & table.given}
    for table in tables.many["envelope"]:
        begin, end = table.get("valid_from"), table.get("valid_until")
        if table.get("domain") in signing:
            path = table.at("domain")
            yield Mistake(path, f"{shown(path)}: {table.get('domain')} signs its envelopes itself: send signed ones")
        elif begin is not None and end is not None and end - begin > VALIDITY_S_MAX * SECOND:
            about = f"a signature lasts {VALIDITY_S_MAX // 86_400} days: raise the sequence before, to sign it anew"
            yield Mistake(table.at("valid_until"), f"{shown(table.at('valid_until'))}: {about}", warning=True)


def _loopback(where: str) -> bool:
    return (urlsplit(where).hostname or "") in {"127.0.0.1", "::1", "localhost"}


def _useless(tables: Tables) -> Iterator[Mistake]:
    """Yield what is legal, but that no session can ever use."""
    covered = {table.get("domain") for table in tables.many["envelope"]}
    covered |= {table.get("name") for table in tables.many["domain"] if {"keys_file", "keys_url"} & table.given}
    on_path: set[object] = set()
    reached: set[object] = set()
    for path in tables.many["path"]:
        on_path |= {path.get("access"), path.get("compute"), *(path.get("transport") or ())}
        reached.add(path.get("compute"))
    for domain in tables.many["domain"]:
        name = domain.get("name")
        if name is not None and name in on_path and name not in covered:
            yield Mistake(
                domain.path, f"{shown(domain.path)}: {name} has no [[envelope]]: sessions across it are refused", True
            )
    offered = {anchor.get("aisi") for anchor in tables.many["anchor"]}
    for service in tables.many["service"]:
        if service.get("aisi") is not None and service.get("aisi") not in offered:
            yield Mistake(service.path, f"{shown(service.path)}: no [[anchor]] executes {service.get('aisi')}", True)
    for anchor in tables.many["anchor"]:
        where = anchor.get("domain")
        if where is not None and where not in reached:
            yield Mistake(anchor.path, f"{shown(anchor.path)}: no [[path]] leads to {where}", True)


CHECKS: Final[Sequence[Check]] = (
    _unique,
    _references,
    _ports,
    _plain_text,
    _client_certificates,
    _public_urls,
    _lease_times,
    _secrets,
    _guardrails,
    _validity,
    _keys,
    _plain_envelopes,
    _useless,
)
