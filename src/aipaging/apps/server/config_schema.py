"""Every section and key of the configuration: what it means, what it may be, what it is when left out."""

from pathlib import Path
from typing import Final

from aipaging.apps.server.config_access import client_fields, issuer_section
from aipaging.apps.server.config_fields import (
    Field,
    HostPort,
    Kind,
    Section,
    address,
    aisi,
    boolean,
    choice,
    digest,
    file,
    instant,
    integer,
    name,
    network,
    number,
    scores,
    several,
    text,
    url,
)
from aipaging.apps.server.config_free_text import FREE_TEXT
from aipaging.apps.server.config_tenants import TENANT, policies
from aipaging.core.anchor.catalogue import DomainKind
from aipaging.core.anchor.intent import DURATION_S_MAX, RATE_RPS_MAX, TRUST_MAX, DataClass
from aipaging.core.audit.live import LivePlan
from aipaging.core.envelope.envelope import Dependence
from aipaging.core.paging.settings import Settings

NORTHBOUND_LISTEN: Final = HostPort("127.0.0.1", 8080)
"""Where clients find a controller of this machine, unless told otherwise."""

_DEFAULTS: Final = Settings()
_AUDIT_DEFAULTS: Final = LivePlan()
_HOUR_MS: Final = 3_600_000
_CAPACITY_RPS_MAX: Final = 1e9
_PORT_ABOUT: Final = "port 0 takes a free one"


def sections(base: Path) -> tuple[Section, ...]:
    """Return every section, in the order of the reference.

    Args:
        base: The folder of the file, from which relative paths count.
    """
    path = file(base)
    return (
        _operator(path),
        _northbound(path),
        FREE_TEXT,
        _southbound(),
        _gateway(path),
        _LEASE,
        _LIMITS,
        _journal(path),
        _AUDIT,
        _client(path),
        issuer_section(path),
        _notification(path),
        _sink(path),
        _TRACING,
        TENANT,
        policies(path),
        _SERVICE,
        _domain(path),
        _PATH,
        _ENVELOPE,
        _ANCHOR,
    )


def _operator(path: Kind) -> Section:
    return Section(
        name="operator",
        about="Who runs this controller.",
        required=True,
        fields={
            "name": Field(kind=name(), required=True, about="The operator's name; the first part of its AISIs."),
            "trust_domain": Field(
                kind=text(allowed="a DNS name in lower case", pattern=r"[a-z0-9]([a-z0-9._-]{0,253}[a-z0-9])?"),
                about="Trust domain of every identity, `spiffe://<trust_domain>/…`; the operator's name by default.",
            ),
            "data_dir": Field(
                kind=path, required=True, about="Where keys, the journal and the gateway's files lie; mode 0700."
            ),
        },
    )


def _northbound(path: Kind) -> Section:
    return Section(
        name="northbound",
        about="The API that clients call. Plain text on loopback only.",
        fields={
            "listen": Field(kind=address(), default=NORTHBOUND_LISTEN, about=f"Address to listen on; {_PORT_ABOUT}."),
            "certificate": Field(kind=path, about="PEM chain; with `key`, the API is HTTPS."),
            "key": Field(kind=path, about="PEM key of the certificate."),
            "client_ca": Field(
                kind=path,
                about="PEM certificates of authorities. A client that shows a certificate of theirs when it pages gets "
                "a session token that is bound to it (`cnf`); none is demanded.",
            ),
            "public_url": Field(kind=url(), about="How clients reach the API; derived from `listen` by default."),
            "rate_rps": Field(
                kind=number(0, _CAPACITY_RPS_MAX),
                default=200.0,
                about="Requests per second that one client may sustain; 0 is no limit. Operators have their own.",
            ),
            "rate_burst": Field(kind=integer(1, 1_000_000), default=400, about="Requests of one client at once."),
            "static_secrets": Field(
                kind=boolean(),
                default=True,
                about="Whether a client's secret is a bearer credential by itself; `false`: only access tokens are.",
            ),
            "token_s": Field(
                kind=integer(30, 3600), default=300, about="How long an access token of this controller lasts."
            ),
            "free_text": Field(
                kind=choice("auto", "minilm", "keywords"),
                default="auto",
                about="What tells tasks in free text: `minilm` with the embeddings of the extra `anchor`, `keywords` "
                "without; `auto`: the former where it is installed.",
            ),
        },
    )


def _southbound() -> Section:
    return Section(
        name="southbound",
        about="Where gateways and anchors reach the controller: mutual TLS always, with identities that it issues.",
        fields={
            "listen": Field(
                kind=address(), default=HostPort("127.0.0.1", 8444), about="HTTPS: look-ups, heartbeats, renewals."
            ),
            "ads_listen": Field(
                kind=address(), default=HostPort("127.0.0.1", 8445), about="gRPC: the discovery service of gateways."
            ),
            "names": Field(
                kind=several(text(allowed="a DNS name or an address")),
                default=(),
                about="Names and addresses, beside the one it listens on, that the controller's certificate holds.",
            ),
        },
    )


def _gateway(path: Kind) -> Section:
    return Section(
        name="gateway",
        about="The user plane that this controller starts and supervises.",
        fields={
            "driver": Field(
                kind=choice("envoy", "memory"), default="envoy", about="`memory` carries no traffic: for trying out."
            ),
            "id": Field(kind=name(), default="gateway-1", about="The gateway's enrolled id."),
            "listen": Field(
                kind=address(), default=HostPort("127.0.0.1", 8443), about="Where clients send their AI traffic."
            ),
            "certificate": Field(kind=path, about="PEM chain; self-signed if left out."),
            "key": Field(kind=path, about="PEM key of the certificate."),
            "client_ca": Field(
                kind=path,
                about="PEM certificates of authorities. Clients are asked for a certificate, and a token that is bound "
                "to one is served with that one only. That of the API by default.",
            ),
            "plain_text": Field(
                kind=boolean(), default=False, about="HTTP without TLS: on loopback only, for measuring."
            ),
            "concurrency": Field(kind=integer(1, 256), default=1, about="Worker threads."),
            "idle_s": Field(
                kind=integer(1, 86_400),
                default=330,
                about="A request on which nothing moves ends after so long: with 504, or with a broken stream if its "
                "answer has begun. Keep it above the `--first-byte-s` and `--gap-s` of the sidecars.",
            ),
            "public_url": Field(
                kind=url(), about="The base URL that sessions are told; derived from `listen` by default."
            ),
        },
    )


def _whole(low: int, high: int, default: int, about: str) -> Field:
    return Field(kind=integer(low, high), default=default, about=about)


_LEASE: Final = Section(
    name="lease",
    about="The times of every COMMIT.",
    fields={
        "lease_ms": _whole(100, _HOUR_MS, _DEFAULTS.lease.lease_ms, "How long a grant or renewal lasts."),
        "lease_ms_max": _whole(
            100,
            _HOUR_MS,
            _DEFAULTS.lease_ms_max,
            "The longest lease_ms ever used with this journal; capacity is held so long after a recovery.",
        ),
        "drift_ppm": _whole(
            0,
            100_000,
            _DEFAULTS.lease.drift_ppm,
            "The most by which the rates of two clocks differ, in parts per million.",
        ),
        "grace_ms": _whole(
            0,
            60_000,
            _DEFAULTS.lease.grace_ms,
            "What is added after the holder's stretched deadline before capacity is sold again.",
        ),
        "drain_ms_max": _whole(
            0, _HOUR_MS, _DEFAULTS.lease.drain_ms_max, "How long the source of a relocation may finish its work."
        ),
    },
)

_LIMITS: Final = Section(
    name="limits",
    about="Limits and time-outs of the controller.",
    fields={
        "anchor_lost_ms": _whole(
            500, _HOUR_MS, _DEFAULTS.anchor_lost_ms, "An anchor not heard of for so long is LOST."
        ),
        "prepare_ms_max": _whole(
            50, 600_000, _DEFAULTS.prepare_ms_max, "A relocation whose target has not answered for so long fails."
        ),
        "retry_ms": _whole(
            50, 600_000, _DEFAULTS.retry_ms, "A relocation that must happen is tried again after so long."
        ),
        "relocations_per_s": _whole(
            1,
            1_000_000,
            _DEFAULTS.relocations_per_s,
            "How fast sessions that must leave are moved at most: by class, then by age.",
        ),
        "kept_ms": _whole(0, 7 * 86_400_000, _DEFAULTS.kept_ms, "How long an ended session can still be read."),
        "duration_s_max": _whole(
            1,
            365 * 86_400,
            _DEFAULTS.duration_s_max,
            f"The most that a session may last, extensions included; one intent asks for {DURATION_S_MAX}.",
        ),
        "sessions_max": _whole(1, 10_000_000, _DEFAULTS.sessions_max, "Live sessions; beyond it, refused."),
    },
)


def _journal(path: Kind) -> Section:
    return Section(
        name="journal",
        about="The journal, which is the evidence log.",
        fields={
            "path": Field(kind=path, about="The file; `journal.db` in the data directory by default."),
            "reserve_mb": _whole(
                0, 10_000, 32, "Space kept aside, so that a full disk still takes the records that revoke and expire."
            ),
            "file_mb": _whole(
                0,
                1_000_000,
                16_384,
                "The size at which the journal goes on in another file; old ones may be moved away. 0: never.",
            ),
        },
    )


_AUDIT: Final = Section(
    name="audit",
    about="The audit of envelopes and sessions while they are in force, from the gateway's access log.",
    fields={
        "enabled": Field(kind=boolean(), default=True, about="Whether there is one."),
        "alpha": Field(
            kind=number(0, 0.5, above=True),
            default=_AUDIT_DEFAULTS.alpha,
            about="Probability that any alarm of a run is false, over all contracts and all time.",
        ),
        "window_requests": _whole(
            1,
            1_000_000,
            _AUDIT_DEFAULTS.window_requests,
            "Requests between two wagers of the alarm; longer than requests depend on one another.",
        ),
        "allowed": _whole(
            1,
            1_000_000,
            _AUDIT_DEFAULTS.allowed,
            "Exceedances that are no violation yet, however short a period; a period ends after "
            "`allowed / epsilon` requests.",
        ),
        "period_s": _whole(1, 31 * 86_400, _AUDIT_DEFAULTS.period_us // 1_000_000, "The longest period of a contract."),
        "otlp_endpoint": Field(
            kind=url(),
            about="Where the measured delays go (extra `tracing`): OTLP over HTTP, such as "
            "`http://127.0.0.1:4318/v1/metrics`. Without it they are at `/metrics` alone.",
        ),
    },
)


def _client(path: Kind) -> Section:
    return Section(
        name="client",
        about="Who may call the API. The secret itself never stands here.",
        many=True,
        fields={
            "client_id": Field(kind=name(), required=True, about="The client's name."),
            "tenant": Field(kind=name(), required=True, about="Who its reservations belong to."),
            "role": Field(
                kind=choice("client", "operator"),
                default="client",
                about="`client`: its own sessions. `operator`: everything, anchors and services included.",
            ),
            "secret_sha256": Field(kind=digest(), about="SHA-256 of the secret."),
            "secret_file": Field(kind=path, about="A file that holds the secret on one line; mode 0600."),
            "secret_env": Field(
                kind=text(allowed="the name of a variable", pattern="[A-Z_][A-Z0-9_]*"),
                about="The environment variable that holds the secret.",
            ),
            **client_fields(path),
        },
    )


def _notification(path: Kind) -> Section:
    return Section(
        name="notification",
        about="How events are posted to sinks: the operator's, and those that clients name for their sessions.",
        fields={
            "allow_networks": Field(
                kind=several(network()),
                default=(),
                about="Private networks in which sinks may be, such as `10.8.0.0/16`; by default none is called.",
            ),
            "ca": Field(kind=path, about="PEM of whom to trust; the system's authorities by default."),
        },
    )


_TRACING: Final = Section(
    name="tracing",
    about="Traces by OpenTelemetry (extra `tracing`); off while there is no endpoint.",
    fields={
        "otlp_endpoint": Field(kind=url(), about="OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`."),
        "requests_percent": Field(
            kind=number(0, 100),
            default=1.0,
            about="How many of the requests that reach the gateway without a trace context are traced. One with a "
            "context (`traceparent`) is traced where its client sampled it.",
        ),
    },
)


def _sink(path: Kind) -> Section:
    return Section(
        name="sink",
        about="Where the operator hears of everything: CloudEvents 1.0.2, signed, at least once.",
        many=True,
        fields={
            "name": Field(kind=name(), required=True, about="Names it in the list of dead letters."),
            "url": Field(kind=url(), required=True, about="https, or an allowed loopback address."),
            "token_file": Field(kind=path, about="A file with the bearer token to show there; mode 0600."),
            "events": Field(
                kind=several(name()), default=(), about="Names of events, such as `session-degraded`; all by default."
            ),
        },
    )


_SERVICE: Final = Section(
    name="service",
    about="One variant of an AI service.",
    many=True,
    fields={
        "aisi": Field(kind=aisi(), required=True, about="Its identity; never an address."),
        "task": Field(kind=name(), required=True, about="What it does, such as `embeddings` or `chat`."),
        "modality": Field(kind=name(), default="text", about="On what."),
        "model": Field(kind=text(), required=True, about="The model's name, as the upstream knows it."),
        "languages": Field(
            kind=several(text(allowed="an ISO 639 code", pattern="[a-z]{2,3}")), default=(), about="Empty for any."
        ),
        "scores": Field(kind=scores(), default=(), about="Benchmark scores that the operator vouches for."),
        "licence": Field(kind=text(empty=True), default="", about="SPDX id of the model's licence."),
        "price": Field(
            kind=integer(0, 10**15), default=0, about="Per 1,000 requests, in millionths of the catalogue's currency."
        ),
    },
)

_DOMAIN_FIELDS: Final = Section(
    name="domain",
    about="One administrative domain.",
    many=True,
    fields={
        "name": Field(kind=name(), required=True, about="Its name."),
        "kind": Field(kind=choice(*(kind.value for kind in DomainKind)), required=True, about="Which part of a path."),
        "region": Field(kind=name(), required=True, about="Where it processes data."),
        "jurisdiction": Field(kind=name(), required=True, about="Whose law it is under."),
        "trust": Field(kind=integer(0, TRUST_MAX), default=0, about="Trust level, 0 (none claimed) to 5."),
        "data_class_max": Field(
            kind=choice(*(data_class.name.lower() for data_class in DataClass)),
            default="public",
            about="The most sensitive data that it is cleared for.",
        ),
        "capacity_rps": Field(
            kind=number(0, _CAPACITY_RPS_MAX), default=0.0, about="Requests/s that may be reserved; 0 is unlimited."
        ),
    },
)


def _domain(path: Kind) -> Section:
    return Section(
        name=_DOMAIN_FIELDS.name,
        about=_DOMAIN_FIELDS.about,
        many=True,
        fields={
            **_DOMAIN_FIELDS.fields,
            "keys_file": Field(
                kind=path, about="A JWK Set: the domain signs its envelopes itself, with these keys; read on change."
            ),
            "keys_url": Field(kind=url(), about="The same, fetched every five minutes; https, or loopback."),
        },
    )


_PATH: Final = Section(
    name="path",
    about="The way from an access domain to a compute domain.",
    many=True,
    fields={
        "access": Field(kind=name(), required=True, about="Where clients are."),
        "compute": Field(kind=name(), required=True, about="Where anchors are."),
        "transport": Field(kind=several(name()), default=(), about="The transport domains between, in order."),
    },
)

_ENVELOPE: Final = Section(
    name="envelope",
    about="What a domain promises: P(delay > offset + x) <= prefactor · exp(-decay · x), within a guardrail.",
    many=True,
    fields={
        "domain": Field(kind=name(), required=True, about="Who promises."),
        "aisi": Field(kind=aisi(), about="The service it is about; all traffic of the domain if left out."),
        "sequence": Field(kind=integer(1, 2**53 - 1), default=1, about="Raise it with every change."),
        "offset_ms": Field(kind=number(0, _HOUR_MS), required=True, about="T: below it nothing is promised."),
        "prefactor": Field(kind=number(0, 1e6), required=True, about="M."),
        "decay_per_ms": Field(kind=number(0, 1e6, above=True), required=True, about="eta."),
        "loss": Field(kind=number(0, 1), default=0.0, about="Probability that a request is lost."),
        "error": Field(kind=number(0, 1), default=0.0, about="Probability that a request fails or times out."),
        "rate_rps_max": Field(
            kind=number(0, RATE_RPS_MAX, above=True), required=True, about="Guardrail: the rate of one session."
        ),
        "burst_max": Field(kind=integer(1, 1_000_000), required=True, about="Guardrail: the burst of one session."),
        "capacity_rps": Field(
            kind=number(0, _CAPACITY_RPS_MAX), default=0.0, about="What may be reserved in all; 0 is unlimited."
        ),
        "valid_from": Field(kind=instant(), required=True, about="Start of validity."),
        "valid_until": Field(kind=instant(), required=True, about="End of validity."),
        "dependence": Field(
            kind=choice(*(clause.value for clause in Dependence)),
            default=Dependence.ANY.value,
            about="What is claimed about the dependence on the other domains of a path.",
        ),
        "common_cause": Field(
            kind=text(empty=True),
            default="",
            about="A shared cause of delay; domains that name the same are never independent.",
        ),
    },
)

_ANCHOR: Final = Section(
    name="anchor",
    about="One endpoint that executes a service: where its sidecar listens.",
    many=True,
    fields={
        "id": Field(kind=name(), required=True, about="Its enrolled id."),
        "domain": Field(kind=name(), required=True, about="The compute domain it stands in."),
        "aisi": Field(kind=aisi(), required=True, about="What it executes."),
        "address": Field(kind=address(), required=True, about="host:port of its sidecar."),
        "tls": Field(kind=boolean(), default=True, about="Mutual TLS; false on loopback only."),
        "capacity_rps": Field(
            kind=number(0, _CAPACITY_RPS_MAX, above=True), required=True, about="Requests/s that may be reserved."
        ),
        "in_flight_max": Field(
            kind=integer(1, 1_000_000), default=64, about="Requests that gateways may have under way at it."
        ),
    },
)
