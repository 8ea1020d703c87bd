"""From a scenario file to a `Scenario`: every mistake is found and named before anything runs.

A mistake has the path of its field, such as `tenant[1].arrivals.rate_per_ms`, and says what is allowed.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from aipaging.core.foundation.errors import InvalidInputError
from aipaging.simulation import kinds
from aipaging.simulation.chains import chain_of, why_no_chain
from aipaging.simulation.contradictions import contradictions
from aipaging.simulation.kinds import Kind
from aipaging.simulation.laws import law_of, recorded_law
from aipaging.simulation.scenario import (
    Arrivals,
    Batching,
    Bucket,
    Copula,
    Correlated,
    Domain,
    Impairment,
    Modulated,
    Modulator,
    Periodic,
    Poisson,
    Recorded,
    Retry,
    Scenario,
    Tenant,
    Trace,
    Work,
)
from aipaging.simulation.traces import TraceError, read_delays, read_trace

Record = TypeVar("Record", Trace, Recorded)
Records: TypeAlias = dict[tuple[Any, ...], Any]
"""What was read of trace files, by file and how it was asked for."""

TIMING: Final = ("slots", "iteration_ms", "per_slot_ms", "prefill_ms", "prefill_ms_per_token")
"""The keys of `batching` that say how long it takes."""

DOMAINS_MAX: Final = 256
TENANTS_MAX: Final = 1024
"""A row of cells each, in every domain on the route: 100 kB."""

TURNS_MAX: Final = 1000
"""Turns of a round robin that a mean packet may need; each is a step of the simulation, and none sends anything."""

MS_PER_ENDING: Final = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1e3),
    **dict.fromkeys(("us", "usec"), 1e-3),
    **dict.fromkeys(("min", "minute", "minutes"), 6e4),
    "ns": 1e-6,
}
"""Units that a key may end in by mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing that is wrong in a scenario.

    Attributes:
        field: Path of the field.
        message: What is wrong, and what is allowed.
        file: The file, where it is not the scenario itself.
        line: The line in that file.
    """

    field: str
    message: str
    file: str | None = None
    line: int | None = None


class ScenarioError(InvalidInputError):
    """A scenario cannot be run as it stands; `mistakes` has everything that is wrong."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
        super().__init__(
            f"{mistakes[0].field}: {mistakes[0].message}{more}", code="INVALID_SCENARIO", field=mistakes[0].field
        )
        self.mistakes = tuple(mistakes)


def read_scenario(
    document: Mapping[str, Any],
    *,
    folder: Path,
    packets: int | None = None,
    replications: int | None = None,
    recorded: Records | None = None,
) -> Scenario:
    """Return the scenario that a parsed file describes.

    Args:
        document: The file, parsed.
        folder: Where traces are looked for.
        packets: In place of the file's number.
        replications: In place of the file's number.
        recorded: Traces that were read before, added to: for a sweep, whose points replay the same ones.

    Raises:
        ScenarioError: It is wrong somewhere.
    """
    overrides = {"packets": packets, "replications": replications}
    return _Reader(folder, recorded if recorded is not None else {}).scenario(
        {**document, **{k: v for k, v in overrides.items() if v is not None}}
    )


class _Reader:
    """Reads one document and collects its mistakes."""

    def __init__(self, folder: Path, recorded: Records) -> None:
        self._folder = folder
        self._recorded = recorded
        self._mistakes: list[Mistake] = []
        self._modulators: dict[str, Modulator] = {}
        self._copulas: dict[str, Copula] = {}

    def scenario(self, document: Mapping[str, Any]) -> Scenario:
        parts = ("domain", "tenant", "modulator", "copula")
        top = {key: value for key, value in document.items() if key not in parts}
        whole = self._fields(top, kinds.SCENARIO, "", also=parts)
        domain_tables = self._tables(document, "domain", DOMAINS_MAX)
        tenant_tables = self._tables(document, "tenant", TENANTS_MAX)
        for path, table in self._tables(document, "modulator", TENANTS_MAX, least=0):
            self._modulator(table, path)
        for path, table in self._tables(document, "copula", TENANTS_MAX, least=0):
            found = self._of_kind(table, kinds.COPULAS, path)
            if found is not None:
                if found[1]["name"] in self._copulas:
                    self._wrong(f"{path}.name", f"there is another copula {found[1]['name']!r}; names are unique")
                self._copulas[found[1]["name"]] = Copula(**found[1])
        domains = [self._domain(table, path) for path, table in domain_tables]
        known = {domain.name: domain for domain in domains if domain}
        named = {str(table.get("name")) for _, table in domain_tables}
        tenants = [self._tenant(table, path, known, named) for path, table in tenant_tables]
        for part, tables in (("domain", domain_tables), ("tenant", tenant_tables)):
            self._unique(part, tables)
        good = [tenant for tenant in tenants if tenant]
        ordered = [] if self._mistakes else self._together(whole or {}, known, good)
        if self._mistakes or whole is None:
            raise ScenarioError(self._mistakes)
        return Scenario(**whole, domains=tuple(ordered), tenants=tuple(good))

    def _together(
        self, whole: Mapping[str, Any], known: Mapping[str, Domain], tenants: Sequence[Tenant]
    ) -> list[Domain]:
        """Check what no single table shows; returns the domains in the order of the routes."""
        if whole["replications"] < 2:
            self._wrong("replications", "an interval needs 2 at least")
        if whole["packets"] < whole["replications"]:
            self._wrong("packets", f"fewer than the {whole['replications']} replications: one each at least")
        for field, message in contradictions(list(known.values()), tenants):
            self._wrong(field, message)
        return self._in_order(known, tenants)

    def _wrong(self, field: str, message: str) -> None:
        self._mistakes.append(Mistake(field=field, message=message))

    def _tables(
        self, document: Mapping[str, Any], part: str, most: int, least: int = 1
    ) -> list[tuple[str, dict[str, Any]]]:
        found = document.get(part, [])
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            self._wrong(part, f"write it as [[{part}]], once for each")
            return []
        if not least <= len(found) <= most:
            self._wrong(part, f"there are {len(found)} [[{part}]]; allowed are {least} to {most}")
            return []
        return [(f"{part}[{index}]", each) for index, each in enumerate(found)]

    def _unique(self, part: str, tables: list[tuple[str, dict[str, Any]]]) -> None:
        seen: set[Any] = set()
        for path, table in tables:
            name = table.get("name")
            if isinstance(name, str) and name in seen:
                self._wrong(f"{path}.name", f"there is another {part} {name!r}; names are unique")
            seen.add(name if isinstance(name, str) else None)

    def _fields(
        self, table: Mapping[str, Any], kind: Kind, path: str, also: Sequence[str] = ()
    ) -> dict[str, Any] | None:
        """Return the values of a table with its defaults, or None if one of them is wrong."""
        before = len(self._mistakes)
        dot = f"{path}." if path else ""
        for key in table:
            if key not in kind.fields and key not in also:
                self._unknown(key, [*kind.fields, *also], dot)
        values: dict[str, Any] = {}
        for key, field in kind.fields.items():
            if key not in table:
                if field.required:
                    self._wrong(dot + key, f"missing: {field.meaning}, {field.allowed.text}")
                values[key] = field.default
            elif not field.allowed.accepts(table[key]):
                self._wrong(dot + key, f"must be {field.allowed.text}, not {table[key]!r}")
            else:
                values[key] = table[key]
        return values if len(self._mistakes) == before else None

    def _unknown(self, key: str, known: list[str], dot: str) -> None:
        close = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {close[0]}? " if close else ""
        stem, _, unit = key.rpartition("_")
        if unit in MS_PER_ENDING and f"{stem}_ms" in known:
            factor = MS_PER_ENDING[unit]
            change = f"{1.0 / factor:g}" if stem.endswith("_per") else f"{factor:g}"
            hint += f"times are in ms here: write {stem}_ms and multiply the number by {change}. "
        self._wrong(dot + key, f"unknown key. {hint}Allowed are {', '.join(known)}")

    def _of_kind(
        self, table: Mapping[str, Any], choices: Mapping[str, Kind], path: str, key: str = "kind"
    ) -> tuple[str, dict[str, Any]] | None:
        name = table.get(key)
        if not isinstance(name, str) or name not in choices:
            said = "missing" if name is None else f"unknown: {name!r}"
            self._wrong(f"{path}.{key}", f"{said}; allowed are {', '.join(choices)}")
            return None
        values = self._fields(
            {each: value for each, value in table.items() if each != key}, choices[name], path, also=(key,)
        )
        return None if values is None else (name, values)

    def _modulator(self, table: dict[str, Any], path: str) -> None:
        values = self._fields(table, kinds.MODULATOR, path)
        if values is None:
            return
        if why := why_no_chain(values["jumps_per_ms"]):
            self._wrong(f"{path}.jumps_per_ms", why)
            return
        if values["name"] in self._modulators:
            self._wrong(f"{path}.name", f"there is another modulator {values['name']!r}; names are unique")
        self._modulators[values["name"]] = chain_of(values["name"], values["jumps_per_ms"])

    def _domain(self, table: dict[str, Any], path: str) -> Domain | None:
        found = self._of_kind(table, kinds.DISCIPLINES, path, key="discipline")
        if found is None:
            return None
        discipline, values = found
        if discipline == "batching":
            timing = {key: values.pop(key) for key in TIMING}
            values["retry"] = self._retry(values["retry"], f"{path}.retry")
            return Domain(**values, discipline=discipline, rate_per_ms=float("inf"), batching=Batching(**timing))
        if discipline == "delay":
            recorded = self._delays(values, path)
            if recorded is None:
                return None
            return Domain(
                name=values["name"], discipline=discipline, rate_per_ms=float("inf"), latency_ms=values["latency_ms"],
                delays=recorded,
            )  # fmt: skip
        if discipline == "fifo":
            values = self._fifo(values, path)
        return Domain(**values, discipline=discipline)

    def _fifo(self, values: dict[str, Any], path: str) -> dict[str, Any]:
        for key in ("buffer_packets", "buffer_work"):
            if values[key] is None:
                del values[key]
        if "buffer_packets" in values and values["buffer_packets"] < values["servers"]:
            self._wrong(
                f"{path}.buffer_packets", f"must be at least the {values['servers']} servers: they hold one each"
            )
        if values["impairment"] is not None:
            if values["servers"] > 1 or "buffer_packets" in values or "buffer_work" in values:
                self._wrong(f"{path}.impairment", "goes with one server and no limit of the buffer")
            found = self._of_kind(values["impairment"], kinds.IMPAIRMENTS, f"{path}.impairment")
            same_rate = {"bad_rate_per_ms": values["rate_per_ms"]}
            values["impairment"] = Impairment(**{**same_rate, **found[1]}) if found else None
        if values["retry"] is not None:
            if values["impairment"] is not None:
                self._wrong(f"{path}.retry", "goes with no impairment: say how often service fails in one of them")
            values["retry"] = self._retry(values["retry"], f"{path}.retry")
        return values

    def _retry(self, table: Mapping[str, Any] | None, path: str) -> Retry | None:
        values = None if table is None else self._fields(table, kinds.RETRIES[""], path)
        return None if values is None else Retry(**values)

    def _delays(self, values: dict[str, Any], path: str) -> Recorded | None:
        try:
            return self._once(
                read_delays, self._folder / values["file"], values["delay_column"], values["delay_unit"],
                sequence_column=values["sequence_column"],
            )  # fmt: skip
        except TraceError as error:
            self._trace_mistake(error, values, path)
            return None

    def _tenant(self, table: dict[str, Any], path: str, known: Mapping[str, Domain], named: set[str]) -> Tenant | None:
        values = self._fields(table, kinds.TENANT, path)
        if values is None:
            return None
        before = len(self._mistakes)
        arrivals = self._arrivals(values["arrivals"], f"{path}.arrivals")
        work = self._work(values["work"], arrivals, f"{path}.work")
        values["prompt"] = self._prompt(values["prompt"], arrivals, f"{path}.prompt")
        values["work_at"] = self._work_at(values, path)
        bucket = self._bucket(values.pop("regulator"), f"{path}.regulator")
        self._route(values["route"], named, f"{path}.route")
        rates = self._reserved(values, known, path)
        uses = {known[name].discipline for name in values["route"] if name in known}
        if "round-robin" in uses:
            self._quantum(values["quantum"], work, path)
        for domain in (known[name] for name in values["route"] if name in known):
            timing = domain.batching
            if timing is not None and timing.prefill_ms_per_token and values["prompt"] is None:
                self._wrong(f"{path}.prompt", f"missing: domain {domain.name!r} takes time for every token of a prompt")
        if len(self._mistakes) > before or arrivals is None or work is None:
            return None
        values |= {"route": tuple(values["route"]), "targets_ms": tuple(map(float, values["targets_ms"]))}
        values |= {"arrivals": arrivals, "work": work, "reserved_rate_per_ms": rates}
        return Tenant(**values, bucket=bucket)

    def _quantum(self, quantum: float | None, work: Work | None, path: str) -> None:
        if quantum is None:
            self._wrong(f"{path}.quantum", "missing: its route has a domain with round-robin")
        elif work is not None and quantum * TURNS_MAX < work.mean:
            self._wrong(
                f"{path}.quantum",
                f"{quantum:g} is less than a {TURNS_MAX:,}th of the mean work ({work.mean:g}): a packet would wait for "
                "thousands of turns",
            )

    def _route(self, route: list[str], named: set[str], path: str) -> None:
        for domain in route:
            if domain not in named:
                there = ", ".join(sorted(named)) or "none"
                self._wrong(path, f"there is no domain {domain!r}; there are: {there}")
        if len(set(route)) < len(route):
            self._wrong(path, "a route visits a domain once at most")

    def _reserved(self, values: dict[str, Any], known: Mapping[str, Domain], path: str) -> dict[str, float]:
        given = values["reserved_rate_per_ms"]
        field = f"{path}.reserved_rate_per_ms"
        if isinstance(given, dict):
            for domain in given:
                if domain not in values["route"]:
                    self._wrong(f"{field}.{domain}", "that domain is not on the tenant's route")
        rates: dict[str, float] = {}
        for name in values["route"]:
            if name not in known or known[name].discipline not in {"reserved", "fair"}:
                continue
            rate = given.get(name) if isinstance(given, dict) else given
            if rate is None:
                self._wrong(field, f"missing for domain {name!r}, whose discipline is {known[name].discipline}")
            else:
                rates[name] = float(rate)
        return rates

    def _arrivals(self, table: Mapping[str, Any], path: str) -> Arrivals | None:
        found = self._of_kind(table, kinds.ARRIVALS, path)
        if found is None:
            return None
        kind, values = found
        if kind == "poisson":
            return Poisson(**values)
        if kind == "periodic":
            return Periodic(**values)
        if kind == "on-off":
            chain = chain_of("", [[0.0, 1.0 / values["mean_off_ms"]], [1.0 / values["mean_on_ms"], 0.0]])
            return Modulated(rates_per_ms=(0.0, values["rate_per_ms"]), modulator=chain)
        if kind == "correlated":
            return self._correlated(values, path)
        return self._trace(values, path) if kind == "trace" else self._of_chain(kind, values, path)

    def _correlated(self, values: dict[str, Any], path: str) -> Correlated | None:
        copula = self._copulas.get(values["copula"])
        rates, shares = values["rates_per_ms"], values["probabilities"]
        if copula is None:
            there = ", ".join(self._copulas) or "none"
            self._wrong(f"{path}.copula", f"there is no copula {values['copula']!r}; there are: {there}")
        elif len(rates) != len(shares):
            self._wrong(f"{path}.probabilities", f"{len(shares)} of them for {len(rates)} rates")
        elif abs(sum(shares) - 1.0) > 1e-9:
            self._wrong(f"{path}.probabilities", f"they add up to {sum(shares):g}, not to 1")
        elif not any(rates):
            self._wrong(f"{path}.rates_per_ms", "one of them must be above 0")
        else:
            return Correlated(
                rates_per_ms=tuple(map(float, rates)), probabilities=tuple(map(float, shares)), copula=copula
            )
        return None

    def _of_chain(self, kind: str, values: dict[str, Any], path: str) -> Modulated | None:
        if kind == "mmpp":
            if why := why_no_chain(values["jumps_per_ms"]):
                self._wrong(f"{path}.jumps_per_ms", why)
                return None
            chain = chain_of("", values["jumps_per_ms"])
        elif values["modulator"] in self._modulators:
            chain = self._modulators[values["modulator"]]
        else:
            there = ", ".join(self._modulators) or "none"
            self._wrong(f"{path}.modulator", f"there is no modulator {values['modulator']!r}; there are: {there}")
            return None
        rates = tuple(map(float, values["rates_per_ms"]))
        if len(rates) != len(chain.jumps_per_ms):
            self._wrong(f"{path}.rates_per_ms", f"{len(rates)} rates for {len(chain.jumps_per_ms)} modes")
            return None
        if not any(rates):
            self._wrong(f"{path}.rates_per_ms", "one of them must be above 0")
            return None
        return Modulated(rates_per_ms=rates, modulator=chain)

    def _trace(self, values: dict[str, Any], path: str) -> Trace | None:
        try:
            return self._once(read_trace, self._folder / values.pop("file"), **values)
        except TraceError as error:
            self._trace_mistake(error, {**values, "file": None}, path)
            return None

    def _once(self, read: Callable[..., Record], *arguments: Any, **options: Any) -> Record:
        key = (read.__name__, *arguments, *sorted(options.items()))
        if key not in self._recorded:
            self._recorded[key] = read(*arguments, **options)
        found: Record = self._recorded[key]
        return found

    def _trace_mistake(self, error: TraceError, values: Mapping[str, Any], path: str) -> None:
        field = f"{path}.{error.field}" if error.field in values else error.field or path
        self._mistakes.append(Mistake(field=field, message=error.message, file=error.file, line=error.line))

    def _work_at(self, values: dict[str, Any], path: str) -> dict[str, Work]:
        laws: dict[str, Work] = {}
        for domain, table in (values["work_at"] or {}).items():
            where = f"{path}.work_at.{domain}"
            if domain not in values["route"][1:]:
                self._wrong(where, "allowed are the domains of the route after the first, whose work is `work`")
            elif not isinstance(table, dict):
                self._wrong(where, "must be a table: a law of work")
            elif law := self._law(table, where):
                laws[domain] = law
        return laws

    def _prompt(self, table: Mapping[str, Any] | None, arrivals: Arrivals | None, path: str) -> Work | None:
        recorded = arrivals.prompts if isinstance(arrivals, Trace) else None
        if recorded is None:
            return None if table is None else self._law(table, path)
        if table is not None:
            self._wrong(path, "the trace has the prompt of each packet: leave it out, or `prompt_column`")
        return recorded_law(recorded)

    def _work(self, table: Mapping[str, Any] | None, arrivals: Arrivals | None, path: str) -> Work | None:
        recorded = arrivals.works if isinstance(arrivals, Trace) else None
        if table is None:
            if recorded is not None:
                return recorded_law(recorded)
            self._wrong(path, "missing: how much work each packet brings")
            return None
        if recorded is not None:
            self._wrong(path, "the trace has the work of each packet: leave it out, or `work_column`")
            return None
        return self._law(table, path)

    def _law(self, table: Mapping[str, Any], path: str) -> Work | None:
        found = self._of_kind(table, kinds.WORK, path)
        if found is None:
            return None
        try:
            return law_of(*found)
        except InvalidInputError as error:
            self._wrong(f"{path}.{error.field}", error.message)
            return None

    def _bucket(self, table: Mapping[str, Any] | None, path: str) -> Bucket | None:
        found = None if table is None else self._of_kind(table, kinds.REGULATORS, path)
        return None if found is None else Bucket(**found[1], holds=found[0] == "shaper")

    def _in_order(self, known: Mapping[str, Domain], tenants: Sequence[Tenant]) -> list[Domain]:
        """Return the domains in an order in which every route goes forward."""
        graph: dict[str, set[str]] = {name: set() for name in known}
        for tenant in tenants:
            for before, after in zip(tenant.route, tenant.route[1:], strict=False):
                graph[after].add(before)
        try:
            return [known[name] for name in TopologicalSorter(graph).static_order()]
        except CycleError as error:
            circle = " -> ".join(reversed(error.args[1]))
            self._wrong("tenant", f"the routes go in a circle ({circle}); only networks that go forward are simulated")
            return []
