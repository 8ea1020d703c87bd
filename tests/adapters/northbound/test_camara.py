"""The description of the interface against CAMARA's design guide: it deviates where the page says so, nowhere else."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.adapters.northbound.camara_rules import RULES, findings
from tests.adapters.northbound.conftest import Rig

from aipaging.adapters.northbound.fault_examples import MESSAGES, fault_example
from aipaging.adapters.northbound.oauth.administration import AdministrationRoutes
from aipaging.adapters.northbound.oauth.endpoints import OAuthRoutes
from aipaging.adapters.northbound.openapi import codes_by_status, openapi_document
from aipaging.adapters.northbound.openapi_page import openapi_page
from aipaging.runtime.http.faults import Fault

PAGE = Path(__file__).parents[3] / "docs" / "background" / "camara.md"


class _Access:
    """Stands where the authorization server is: only its table of operations is read."""

    def __getattr__(self, name: str) -> "_Access":
        return self


@pytest.fixture
def document(rig: Rig) -> dict[str, Any]:
    access: Any = _Access()
    operations = [
        *rig.operations(),
        *OAuthRoutes(rig.service, access).operations(),
        *AdministrationRoutes(rig.service, access).operations(),
    ]
    found = openapi_document(operations, server_url="https://control.example")
    described: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(found))
    return described


def listed() -> Iterator[tuple[str, str, str]]:
    """Yield every deviation of the page: the rule, the place, the reason."""
    for row in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in row.strip("|").split(" | ")]
        if len(cells) == 3 and "`" in cells[1]:
            for place in re.findall(r"`([^`]+)`", cells[1]):
                yield cells[0], place, cells[2]


def test_deviations_are_those_that_are_listed(document: dict[str, Any]) -> None:
    found = findings(document)
    allowed = list(listed())
    unlisted = {
        (rule, place)
        for rule, place in found
        if not any(rule == named and fnmatchcase(place, pattern) for named, pattern, _ in allowed)
    }
    assert not unlisted
    gone = {
        (rule, pattern)
        for rule, pattern, _ in allowed
        if not any(rule == named and fnmatchcase(place, pattern) for named, place in found)
    }
    assert not gone
    assert all(len(reason) > 20 for _, _, reason in allowed)
    assert {rule for rule, _, _ in allowed} <= RULES.keys()


BREAKS: dict[str, Any] = {
    "2.2 bounded strings": lambda d: d["components"]["schemas"]["Fault2"]["properties"]["a"].pop("maxLength"),
    "5.7.2 operations": lambda d: d["paths"]["/healthz"]["get"].pop("summary"),
    "5.8.5 x-correlator": lambda d: d["paths"]["/healthz"]["get"]["responses"]["200"].pop("headers"),
    "6.6 scopes": lambda d: d["paths"]["/metrics"]["get"]["security"][0].update(client=["metrics"]),
    "7.2 version in URL": lambda d: d["info"].update(version="0.2.0"),
    "3.2.1 error codes": lambda d: next(
        iter(d["components"]["responses"]["Generic401"]["content"]["application/json"]["examples"].values())
    )["value"].update(code="NOPE"),
    "closed requests": lambda d: d["components"]["schemas"]["IntentRequest"].pop("additionalProperties"),
}


@pytest.mark.parametrize("rule", BREAKS)
def test_a_rule_finds_what_breaks_it(document: dict[str, Any], rule: str) -> None:
    document["components"]["schemas"]["Fault2"] = {"properties": {"a": {"type": "string", "maxLength": 1}}}
    before = {place for name, place in findings(document) if name == rule}
    BREAKS[rule](document)
    assert {place for name, place in findings(document) if name == rule} > before


def test_every_code_has_an_example_of_its_own(rig: Rig) -> None:
    codes = {code for operation in rig.operations() for found in codes_by_status(operation).values() for code in found}
    assert codes <= MESSAGES.keys()
    assert len(set(MESSAGES.values())) == len(MESSAGES)
    for code in MESSAGES:
        assert msgspec.convert(fault_example(code), Fault).code == code


async def test_the_page_shows_everything_and_fetches_nothing(nobody: httpx.AsyncClient) -> None:
    document = (await nobody.get("http://test/openapi.json")).json()
    answer = await nobody.get("http://test/reference")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    page = answer.text
    for methods in document["paths"].values():
        for operation in methods.values():
            assert f"id='{operation['operationId']}'" in page
    for schema in document["components"]["schemas"]:
        assert f"id='{schema}'" in page
    assert not re.findall(r"<(?:script|link|img|iframe)\b|@import|url\(|\bsrc=|\bstyle=|\bon\w+=", page)
    linked = set(re.findall(r"href='#([^']+)'", page))
    assert linked <= set(re.findall(r"id='([^']+)'", page))


async def test_what_the_document_says_cannot_become_markup(rig: Rig) -> None:
    found = openapi_document(rig.operations(), server_url="https://control.example")
    found["info"]["title"] = "<script>alert(1)</script>"
    next(iter(found["paths"].values()))["post"]["summary"] = "'><img src=x onerror=alert(1)>"
    page = openapi_page(found).decode()
    assert "<script>" not in page
    assert "<img" not in page
