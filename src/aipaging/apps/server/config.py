"""The one configuration file, checked completely before anything starts.

`load_config` either returns a configuration in which every value is of the core's own types, or raises one error that
holds every mistake with its line. What depends on the machine (ports in use, disk space) is `aipaging doctor`'s.
"""

import hashlib
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from aipaging.adapters.northbound.oauth.public_keys import PublicKey
from aipaging.adapters.terminal.errors import InvalidFileError, Problem
from aipaging.apps.server.config_access import TrustedIssuer, checked_access, issuers_of, keys_of_client
from aipaging.apps.server.config_checks import Tables, cross_checked
from aipaging.apps.server.config_fields import HostPort, Mistake, Section, Table, read_table, shown
from aipaging.apps.server.config_free_text import unsaid_of
from aipaging.apps.server.config_lines import key_lines, line_of
from aipaging.apps.server.config_notification import NotificationPlan
from aipaging.apps.server.config_schema import sections
from aipaging.apps.server.config_values import catalogue_of, notification_of, settings_of, tenants_of
from aipaging.apps.server.domain_keys import KeySource
from aipaging.core.anchor.catalogue import Catalogue
from aipaging.core.audit.live import LivePlan
from aipaging.core.foundation.names import ClientId, DomainName, GatewayId, TenantId
from aipaging.core.foundation.time import WallUs
from aipaging.core.identity.tenant import Tenant
from aipaging.core.paging.settings import Settings
from aipaging.core.wording.reading import Value
from aipaging.runtime.http.rates import RateLimit

CONFIG_BYTES_MAX: Final = 4 * 1024 * 1024
"""Ten thousand anchors; a larger catalogue is registered by the API."""

SECRET_CHARS_MIN: Final = 16
"""Sixteen random characters are 95 bits; fewer can be guessed from the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """A certificate chain and its key, in PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """Who runs the controller."""

    name: str
    trust_domain: str
    data_dir: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Northbound:
    """The API; `public_url` is None where it depends on the port that will be free."""

    listen: HostPort
    tls: TlsFiles | None
    client_ca: Path | None
    public_url: str | None
    free_text: str = "auto"
    unsaid: Mapping[str, Value] = field(default_factory=dict[str, Value])
    static_secrets: bool = True
    token_s: int = 300
    rate: RateLimit


@dataclass(frozen=True, slots=True, kw_only=True)
class Southbound:
    """Where gateways and anchors reach the controller."""

    listen: HostPort
    ads_listen: HostPort
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """The user plane to start; `tls` None and not `plain_text`: a certificate is made for it."""

    driver: str
    gateway: GatewayId
    listen: HostPort
    tls: TlsFiles | None
    client_ca: Path | None
    plain_text: bool
    concurrency: int
    idle_s: int
    public_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPlan:
    """Where the journal lies, the space kept aside for what must always be recorded, and how large one file grows."""

    path: Path
    reserve_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Who may call the API; only the digest of the secret is known.

    Attributes:
        client: Its id.
        tenant: Who its reservations belong to.
        role: `client` or `operator`.
        secret_sha256: Hex digest; "" if it has none.
        keys: Public keys by which it signs assertions.
        scopes: What it may do; empty for all that its role may.
    """

    client: ClientId
    tenant: TenantId
    role: str
    secret_sha256: str
    keys: tuple[PublicKey, ...] = ()
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """A checked configuration.

    Attributes:
        file: Where it was read.
        operator: Who runs the controller.
        northbound: The API.
        southbound: For gateways and anchors.
        gateway: The user plane.
        settings: By what the engine decides.
        journal: Where the evidence lies.
        clients: Who may call.
        policies: The file of policies, or None.
        tenants: Who reservations belong to, and the most that each may hold.
        catalogue: Services, domains, paths, plain envelopes and anchors.
        key_sources: Where the key sets of domains that sign for themselves are published.
        issuers: Authorization servers that are elsewhere.
        warnings: What works, but probably not as meant.
        notification: Where events are pushed.
        tracing_endpoint: Where traces go, or None.
        traced_percent: How many of the requests without a trace context the gateway traces.
        audit: How what is promised is audited while it is in force, None where it is not.
        delays_endpoint: Where the delays that the audit measures go, or None.
    """

    file: Path
    operator: Operator
    northbound: Northbound
    southbound: Southbound
    gateway: GatewayPlan
    settings: Settings
    journal: JournalPlan
    clients: tuple[Client, ...]
    tenants: tuple[Tenant, ...] = ()
    policies: Path | None = None
    catalogue: Catalogue
    key_sources: Mapping[DomainName, KeySource]
    warnings: tuple[Problem, ...]
    issuers: tuple[TrustedIssuer, ...] = ()
    notification: NotificationPlan = field(default_factory=NotificationPlan)
    tracing_endpoint: str | None = None
    traced_percent: float = 1.0
    audit: LivePlan | None = None
    delays_endpoint: str | None = None


def load_config(path: Path, *, wall_us: WallUs, environment: Mapping[str, str] = os.environ) -> ServerConfig:
    """Return the configuration of a file.

    Args:
        path: The file.
        wall_us: Now: an expired envelope is a mistake.
        environment: Where `secret_env` is looked up.

    Raises:
        InvalidFileError: It has mistakes; the error holds all of them.
    """
    text = _text(path)
    document = _parsed(text, path)
    mistakes: list[Mistake] = []
    schema = sections(path.resolve().parent)
    tables = _tables(schema, document, mistakes, wall_us=wall_us)
    mistakes += cross_checked(tables)
    mistakes += checked_access(tables)
    clients = _clients(tables, mistakes, environment)
    lines = key_lines(text)
    problems = sorted(
        (
            Problem(
                mistake.message,
                field=shown(mistake.path),
                file=str(path),
                line=line_of(lines, mistake.path),
                warning=mistake.warning,
            )
            for mistake in mistakes
        ),
        key=lambda problem: problem.line or 0,
    )
    if any(not problem.warning for problem in problems):
        raise InvalidFileError(problems)
    return _config(path, tables, clients, tuple(problems))


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > CONFIG_BYTES_MAX:
            raise _whole_file(path, f"is larger than {CONFIG_BYTES_MAX:,} bytes")
        return path.read_bytes().decode()
    except OSError as error:
        raise _whole_file(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _whole_file(path, f"is not UTF-8 at byte {error.start}") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).partition(" (at ")
        line = place.removeprefix("line ").partition(",")[0]
        problem = Problem(
            f"not TOML: {message[:1].lower()}{message[1:]}",
            field=None,
            file=str(path),
            line=int(line) if line.isdigit() else text.count("\n") + 1,
        )
        raise InvalidFileError([problem]) from error


def _whole_file(path: Path, what: str) -> InvalidFileError:
    return InvalidFileError([Problem(f"the configuration {what}", field=None, file=str(path), line=None)])


def _tables(
    schema: tuple[Section, ...], document: Mapping[str, Any], mistakes: list[Mistake], *, wall_us: WallUs
) -> Tables:
    one: dict[str, Table] = {}
    many: dict[str, list[Table]] = {}
    known = {section.name for section in schema}
    mistakes += (
        Mistake((key,), f"there is no section {key!r}: there are {', '.join(section.name for section in schema)}")
        for key in document
        if key not in known
    )
    for section in schema:
        found = document.get(section.name, [] if section.many else {})
        if not section.many:
            if section.required and section.name not in document:
                mistakes.append(Mistake((), f"the section [{section.name}] is missing: {section.about}"))
                one[section.name] = Table((section.name,))
                continue
            one[section.name] = read_table(section, found, (section.name,), mistakes)
        elif isinstance(found, list):
            many[section.name] = [
                read_table(section, table, (section.name, index), mistakes) for index, table in enumerate(found)
            ]
        else:
            many[section.name] = []
            mistakes.append(Mistake((section.name,), f"[{section.name}] must be written [[{section.name}]]: one each"))
    return Tables(one=one, many=many, wall_us=wall_us)


def _clients(tables: Tables, mistakes: list[Mistake], environment: Mapping[str, str]) -> tuple[Client, ...]:
    clients: list[Client] = []
    for table in tables.many["client"]:
        digest = table.get("secret_sha256")
        try:
            if table.get("secret_file") is not None:
                digest = _digest(_secret_in_file(table.get("secret_file")))
            elif table.get("secret_env") is not None:
                digest = _digest(environment.get(table.get("secret_env"), ""))
        except ValueError as error:
            key = "secret_file" if table.get("secret_file") is not None else "secret_env"
            mistakes.append(Mistake(table.at(key), f"{shown(table.at(key))}: {error}"))
        keys = keys_of_client(table, mistakes)
        if (digest is not None or keys) and {"client_id", "tenant", "role"} <= table.values.keys():
            clients.append(
                Client(
                    client=ClientId(table.get("client_id")),
                    tenant=TenantId(table.get("tenant")),
                    role=table.get("role"),
                    secret_sha256=digest or "",
                    keys=keys,
                    scopes=frozenset(table.get("scopes") or ()),
                )
            )
    return tuple(clients)


def _secret_in_file(path: Path) -> str:
    try:
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError(f"others may read {path}: chmod 600 it")
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        what = error.strerror if isinstance(error, OSError) else "not text"
        raise ValueError(f"{path} cannot be read: {what}") from None


def _digest(secret: str) -> str:
    if len(secret) < SECRET_CHARS_MIN:
        found = f"has {len(secret)} characters" if secret else "is missing or empty"
        raise ValueError(f"the secret {found}: at least {SECRET_CHARS_MIN} random ones are expected")
    return hashlib.sha256(secret.encode()).hexdigest()


def _config(path: Path, tables: Tables, clients: tuple[Client, ...], warnings: tuple[Problem, ...]) -> ServerConfig:
    operator, journal = tables.one["operator"], tables.one["journal"]
    data_dir: Path = operator.get("data_dir")
    south = tables.one["southbound"]
    return ServerConfig(
        file=path,
        operator=Operator(
            name=operator.get("name"),
            trust_domain=operator.get("trust_domain") or operator.get("name"),
            data_dir=data_dir,
        ),
        northbound=_northbound(tables.one["northbound"], unsaid_of(tables.one["free_text"])),
        southbound=Southbound(listen=south.get("listen"), ads_listen=south.get("ads_listen"), names=south.get("names")),
        gateway=_gateway(tables.one["gateway"], client_ca=tables.one["northbound"].get("client_ca")),
        settings=settings_of(tables),
        journal=JournalPlan(
            path=journal.get("path") or data_dir / "journal.db",
            reserve_bytes=journal.get("reserve_mb") * 2**20,
            file_bytes=journal.get("file_mb") * 2**20,
        ),
        clients=clients,
        issuers=issuers_of(tables),
        tenants=tenants_of(tables),
        policies=tables.one["policies"].get("file"),
        catalogue=catalogue_of(tables),
        key_sources={
            DomainName(table.get("name")): KeySource(file=table.get("keys_file"), url=table.get("keys_url"))
            for table in tables.many["domain"]
            if table.get("keys_file") is not None or table.get("keys_url") is not None
        },
        warnings=warnings,
        notification=notification_of(tables),
        tracing_endpoint=tables.one["tracing"].get("otlp_endpoint"),
        traced_percent=tables.one["tracing"].get("requests_percent"),
        audit=_audit(tables.one["audit"]),
        delays_endpoint=tables.one["audit"].get("otlp_endpoint"),
    )


def _audit(table: Table) -> LivePlan | None:
    if not table.get("enabled"):
        return None
    return LivePlan(
        alpha=table.get("alpha"),
        window_requests=table.get("window_requests"),
        allowed=table.get("allowed"),
        period_us=table.get("period_s") * 1_000_000,
    )


def _tls(table: Table) -> TlsFiles | None:
    certificate = table.get("certificate")
    return None if certificate is None else TlsFiles(certificate=certificate, key=table.get("key"))


def _northbound(table: Table, unsaid: Mapping[str, Value]) -> Northbound:
    plan = Northbound(
        listen=table.get("listen"),
        tls=_tls(table),
        client_ca=table.get("client_ca"),
        public_url=table.get("public_url"),
        free_text=table.get("free_text"),
        unsaid=unsaid,
        static_secrets=table.get("static_secrets"),
        token_s=table.get("token_s"),
        rate=RateLimit(per_second=table.get("rate_rps"), burst=table.get("rate_burst")),
    )
    return replace(plan, public_url=plan.public_url or _derived(plan.listen, tls=plan.tls is not None))


def _gateway(table: Table, *, client_ca: Path | None) -> GatewayPlan:
    listen: HostPort = table.get("listen")
    plain_text: bool = table.get("plain_text")
    return GatewayPlan(
        driver=table.get("driver"),
        gateway=GatewayId(table.get("id")),
        listen=listen,
        tls=_tls(table),
        client_ca=None if plain_text else table.get("client_ca") or client_ca,
        plain_text=plain_text,
        concurrency=table.get("concurrency"),
        idle_s=table.get("idle_s"),
        public_url=table.get("public_url") or _derived(listen, tls=not plain_text),
    )


def _derived(listen: HostPort, *, tls: bool) -> str | None:
    return f"{'https' if tls else 'http'}://{listen}" if listen.port else None
