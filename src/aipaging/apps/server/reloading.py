"""The configuration file read anew while the controller runs, by SIGHUP or at an operator's call.

Rule 1: a file with any mistake changes nothing; the mistakes go to the log and to `GET /configuration`.
Rule 2: all that can fail (files of policies, tokens of sinks, sequence numbers) is done before anything changes; then
the engine decides about every change in one go, and what lies outside of it is exchanged without anybody in between.
Rule 3: only what differs from the file as it was taken last is touched: what an operator changed by the API since, and
the file does not speak of anew, stays.
Rule 4: what cannot change while it runs is named, again after every reload, until the restart.

Entries that went from the file stay, as they do over a restart: sessions may be on them. They are named, too.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aipaging.adapters.northbound.documents.configuration import ConfigurationProblem, ConfigurationStatus
from aipaging.adapters.northbound.documents.words import ANSWER_ITEMS_MAX, instant
from aipaging.adapters.terminal.errors import InvalidFileError
from aipaging.apps.server.config import ServerConfig, load_config
from aipaging.apps.server.domain_keys import KeySources
from aipaging.apps.server.stated_envelopes import StatedEnvelopes
from aipaging.core.foundation.errors import AipagingError
from aipaging.core.foundation.time import WallUs
from aipaging.core.lease.machine import LeaseTerms
from aipaging.core.paging import commands as c
from aipaging.core.paging.settings import ChangeSettings, Settings, within_term
from aipaging.ports.control import ControlPlane
from aipaging.runtime.http.rates import CallerRates, RateLimit

LOG: Final = logging.getLogger("aipaging.configuration")

LIVE: Final[Mapping[str, str]] = {
    "clients": "client",
    "tenants": "tenant",
    "policies": "policies",
    "key_sources": "domain.keys",
}
"""Fields of a configuration that change while it runs, and what they are called in the file."""

NAMES: Final[Mapping[str, str]] = {"issuers": "issuer", "tracing_endpoint": "tracing"}
"""Fields that wait for a restart and are called otherwise in the file."""

_APART: Final = frozenset({"file", "warnings", "catalogue", "settings", "northbound", "notification"})
"""Fields that say nothing by themselves, or that are looked at part by part."""

_TABLES: Final = ("services", "domains", "paths", "envelopes", "anchors")


def _unchanged() -> None:
    """Exchange nothing."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one part makes of a configuration: commands for the engine, and an exchange that cannot fail."""

    commands: Sequence[c.Command] = ()
    exchange: Callable[[], None] = _unchanged


class LivePart(Protocol):
    """A part that can take another configuration while it runs."""

    def prepared(self, wanted: ServerConfig) -> Step:
        """Do all that can fail, and change nothing yet; called in a thread.

        Raises:
            AipagingError: The configuration cannot be taken.
        """
        ...


class LiveRates:
    """How often each client may ask, as a part that can change."""

    def __init__(self, rates: CallerRates) -> None:
        self._rates = rates

    def prepared(self, wanted: ServerConfig) -> Step:
        """See `LivePart.prepared`."""
        return Step((), lambda: self._set(wanted.northbound.rate))

    def _set(self, limit: RateLimit) -> None:
        self._rates.limit = limit


class Reloading:
    """Takes the configuration file again.

    Attributes:
        status: What is in force, and how the file stands against it.
    """

    def __init__(
        self,
        config: ServerConfig,
        control: ControlPlane,
        parts: Sequence[LivePart],
        *,
        envelopes: StatedEnvelopes,
        key_sources: KeySources,
        wall_us: Callable[[], WallUs],
    ) -> None:
        self._started = config
        self._current = config
        self._settings = config.settings
        self._control = control
        self._parts = parts
        self._envelopes = envelopes
        self._key_sources = key_sources
        self._wall_us = wall_us
        self._changing = asyncio.Lock()
        self.status = ConfigurationStatus(file=str(config.file), in_force_since=instant(wall_us()))

    async def reload(self) -> ConfigurationStatus:
        """Read the file and put into force what can be; a file with problems changes nothing."""
        async with self._changing:
            try:
                wanted = await asyncio.to_thread(load_config, self._started.file, wall_us=self._wall_us())
                await self._take(wanted)
            except AipagingError as error:
                problems = list(_problems(error))
                self.status = _with(self.status, problems)
                for problem in problems:
                    LOG.warning(
                        "the configuration file is not taken: %s",
                        problem.message,
                        extra={"field": problem.field, "line": problem.line},
                    )
            return self.status

    async def _take(self, wanted: ServerConfig) -> None:
        current = self._current
        for envelope in _news(current.catalogue.envelopes, wanted.catalogue.envelopes):
            self._envelopes.check(envelope)
        steps = [await asyncio.to_thread(part.prepared, wanted) for part in self._parts]
        settings = within_term(self._settings, wanted.settings)
        commands = [
            ChangeSettings(settings=settings),
            *_catalogue_commands(current, wanted),
            *(each for step in steps for each in step.commands),
        ]
        # Each is decided before the first of them waits for the journal: nobody sees a half of it.
        await asyncio.gather(*(self._control.submit(command) for command in commands))
        for step in steps:
            step.exchange()
        if wanted.key_sources != current.key_sources:
            await self._key_sources.exchange(wanted.key_sources)
        for envelope in _news(current.catalogue.envelopes, wanted.catalogue.envelopes):
            await self._envelopes.put(envelope)
        before, self._settings, self._current = self._settings, settings, wanted
        self.status = ConfigurationStatus(
            file=str(wanted.file),
            in_force_since=instant(self._wall_us()),
            applied=[*_differing(before, settings), *_live_changes(current, wanted)],
            needs_restart=[*_differing(settings, wanted.settings), *_restart_changes(self._started, wanted)],
            left=list(_left(self._started, wanted))[:ANSWER_ITEMS_MAX],
        )
        LOG.info(
            "the configuration file is in force",
            extra={"applied": self.status.applied, "needs_restart": self.status.needs_restart},
        )


def _with(status: ConfigurationStatus, problems: list[ConfigurationProblem]) -> ConfigurationStatus:
    return ConfigurationStatus(
        file=status.file,
        in_force_since=status.in_force_since,
        needs_restart=status.needs_restart,
        left=status.left,
        problems=problems,
    )


def _problems(error: AipagingError) -> Iterator[ConfigurationProblem]:
    if not isinstance(error, InvalidFileError):
        yield ConfigurationProblem(message=error.message, field=error.field)
        return
    for problem in error.problems[:ANSWER_ITEMS_MAX]:
        if not problem.warning:
            yield ConfigurationProblem(message=problem.message, field=problem.field, line=problem.line)


def _news(before: Mapping[Any, Any], after: Mapping[Any, Any]) -> list[Any]:
    return [value for key, value in after.items() if before.get(key) != value]


def _catalogue_commands(current: ServerConfig, wanted: ServerConfig) -> Iterator[c.Command]:
    before, after = current.catalogue, wanted.catalogue
    tenants = {tenant.tenant: tenant for tenant in current.tenants}
    yield from (c.RegisterService(service=service) for service in _news(before.services, after.services))
    yield from (c.RegisterDomain(domain=domain) for domain in _news(before.domains, after.domains))
    yield from (c.RegisterPath(path=path) for path in _news(before.paths, after.paths))
    yield from (c.RegisterAnchor(anchor=anchor) for anchor in _news(before.anchors, after.anchors))
    yield from (c.RegisterTenant(tenant=tenant) for tenant in wanted.tenants if tenants.get(tenant.tenant) != tenant)


def _differing(before: Settings, after: Settings) -> Iterator[str]:
    """Yield what two settings differ in, as the file calls it."""
    for field in dataclasses.fields(LeaseTerms):
        if getattr(before.lease, field.name) != getattr(after.lease, field.name):
            yield f"lease.{field.name}"
    for field in dataclasses.fields(Settings):
        if field.name != "lease" and getattr(before, field.name) != getattr(after, field.name):
            yield f"lease.{field.name}" if field.name == "lease_ms_max" else f"limits.{field.name}"


def _live_changes(current: ServerConfig, wanted: ServerConfig) -> Iterator[str]:
    for table in _TABLES:
        if getattr(current.catalogue, table) != getattr(wanted.catalogue, table):
            yield table.removesuffix("s")
    yield from (name for field, name in LIVE.items() if getattr(current, field) != getattr(wanted, field))
    if current.northbound.rate != wanted.northbound.rate:
        yield "northbound.rate"
    before, after = current.notification, wanted.notification
    if before.sinks != after.sinks:
        yield "sink"
    if before.allow_networks != after.allow_networks:
        yield "notification.allow_networks"


def _restart_changes(started: ServerConfig, wanted: ServerConfig) -> Iterator[str]:
    for field in dataclasses.fields(ServerConfig):
        waits = field.name not in LIVE and field.name not in _APART
        if waits and getattr(started, field.name) != getattr(wanted, field.name):
            yield NAMES.get(field.name, field.name)
    if started.northbound != dataclasses.replace(wanted.northbound, rate=started.northbound.rate):
        yield "northbound"
    if started.notification.ca != wanted.notification.ca:
        yield "notification.ca"


def _left(started: ServerConfig, wanted: ServerConfig) -> Iterator[str]:
    """Yield what stood in the file when the controller started and does not any more."""
    for table in ("services", "domains", "anchors"):
        gone = getattr(started.catalogue, table).keys() - getattr(wanted.catalogue, table).keys()
        yield from (f"{table.removesuffix('s')} {name}" for name in sorted(gone))
    kept = {tenant.tenant for tenant in wanted.tenants}
    yield from (f"tenant {tenant.tenant}" for tenant in started.tenants if tenant.tenant not in kept)
