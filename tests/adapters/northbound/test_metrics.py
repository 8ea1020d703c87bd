"""Metrics: counted from records, named as Prometheus wants, and all that the shipped dashboard and alarms ask for."""

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.adapters.northbound.conftest import INTENT, Rig

from aipaging.adapters.northbound.metrics import Metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
NAME = re.compile(r"\b(?:aipaging|process)_[a-z_]+\b")


@pytest.fixture
def watched(rig: Rig) -> Metrics:
    metrics = rig.service.metrics
    rig.engine.watch(metrics)
    return metrics


async def samples(rig: Rig, metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = (await metrics.scraped(rig.engine))[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_what_became_durable_is_counted(rig: Rig, watched: Metrics, app_one: httpx.AsyncClient) -> None:
    session = (await app_one.post("sessions", json={"intent": INTENT})).json()["sessionId"]
    await app_one.post("sessions", json={"intent": {**INTENT, "delayMs": 1}})
    await app_one.post(f"sessions/{session}/relocate", json={})
    await rig.settled()
    await app_one.delete(f"sessions/{session}")
    found = await samples(rig, watched)
    assert found["aipaging_pages_total", (("constraint", ""), ("outcome", "admitted"))] == 1
    assert found["aipaging_pages_total", (("constraint", "DELAY"), ("outcome", "refused"))] == 1
    assert found["aipaging_sessions_ended_total", (("status_info", "DELETE_REQUESTED"),)] == 1
    assert found["aipaging_relocation_phases_total", (("cause", "CLIENT"), ("phase", "SWITCHED"))] == 1
    assert found["aipaging_lease_revocations_total", ()] >= 1
    assert found["aipaging_journal_append_seconds_count", ()] == found["aipaging_journal_batch_records_count", ()] > 0
    records = {labels: value for (name, labels), value in found.items() if name == "aipaging_journal_records_total"}
    assert sum(records.values()) == found["aipaging_journal_batch_records_sum", ()]


async def test_names_are_those_of_prometheus(rig: Rig, watched: Metrics) -> None:
    text = (await watched.scraped(rig.engine))[0].decode()
    for family in text_string_to_metric_families(text):
        if not family.name.startswith("aipaging_"):
            continue
        assert re.fullmatch(r"[a-z][a-z_]*", family.name)
        assert family.documentation.endswith("."), family.name
        assert not re.search(r"_(ms|us|millis|count|sum|bucket)$", family.name), family.name
        assert (family.type == "counter") == any(
            s.name.endswith("_total") for s in family.samples
        ) or not family.samples


def asked_for() -> set[str]:
    """Return every metric that the dashboard and the alarms name."""
    dashboard: dict[str, Any] = json.loads((DEPLOY / "grafana" / "aipaging.json").read_text())
    rules: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    return {name for expression in expressions for name in NAME.findall(expression)}


async def test_dashboard_and_alarms_ask_for_what_there_is_and_for_all_of_it(rig: Rig, watched: Metrics) -> None:
    text = (await watched.scraped(rig.engine))[0].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    there = {name + suffix for name, family in families.items() for suffix in suffixes.get(family.type, ())}
    asked = asked_for()
    assert len(asked) > 30
    assert asked <= there, f"nobody exports {sorted(asked - there)}"
    ours = {name for name in families if name.startswith("aipaging_") and not name.endswith("_created")}
    unseen = {name for name in ours if not any(one.startswith(name) for one in asked)}
    assert unseen == set(), "an operator should see it on the dashboard"


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "aipaging.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) >= 20
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len(ids)
    for panel in dashboard["panels"]:
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])


def test_every_alarm_says_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())
    for rule in rules["groups"][0]["rules"]:
        assert rule["alert"].startswith("Aipaging")
        assert set(rule["annotations"]) == {"summary", "action"}
        assert rule["labels"]["severity"] in {"page", "ticket", "info"}


def test_what_came_of_snapshots_is_exported_and_not_counted_twice() -> None:
    metrics = Metrics()
    for failed, behind in ((1, 70_000), (1, 90_000), (2, 120_000)):
        metrics.snapshots(failed=failed, behind_records=behind)
    assert metrics._registry.get_sample_value("aipaging_snapshot_failures_total") == 2
    assert metrics._registry.get_sample_value("aipaging_snapshot_behind_records") == 120_000


def test_a_courier_that_starts_anew_does_not_count_backwards() -> None:
    metrics = Metrics()
    for delivered in (5, 7, 0, 2):
        metrics.notifications(delivered=delivered, failures={"TIMEOUT": delivered}, given_up={}, waiting=1)
    metrics.notifications(delivered=2, failures={}, given_up={"HTTP_400": 1}, waiting=0)
