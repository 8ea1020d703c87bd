"""Free text at the interface."""

from dataclasses import replace

import pytest

TEXT = "embed English text, p99.9 under 250 ms, 40 requests/s, bursts of 5"


async def test_a_sentence_comes_back_as_the_intent_that_can_be_paged(app_one) -> None:
    answer = await app_one.post("intents/interpret", json={"text": TEXT, "intent": {"place": "access-eu"}})
    assert answer.status_code == 200
    found = answer.json()
    assert found["status"] == "resolved"
    fields = {one["field"]: one for one in found["fields"]}
    assert (fields["place"]["source"], fields["delayMs"]["source"]) == ("REQUEST", "TEXT")
    span = fields["ratePerSecond"]["span"]
    assert TEXT[span["start"] : span["end"]] == "40 requests/s"
    assert found["intent"]["ratePerSecond"] == 40
    paged = await app_one.post("sessions", json={"intent": found["intent"]})
    assert paged.status_code == 201
    assert paged.json()["intent"] == found["intent"]


async def test_what_the_operator_sets_stands_behind_the_sentence_and_before_the_default(rig) -> None:
    rig.service = replace(rig.service, unsaid={"trust_min": 2, "rate_rps": 3.0, "jurisdictions": ("eu",)})
    rig.app = rig.rebuilt()
    async with rig.client() as client:
        answer = await client.post("intents/interpret", json={"text": TEXT, "intent": {"place": "access-eu"}})
    found = answer.json()
    sources = {one["field"]: (one["value"], one["source"]) for one in found["fields"]}
    assert sources["trustMin"] == (2, "POLICY")
    assert sources["jurisdictions"] == (["eu"], "POLICY")
    assert sources["ratePerSecond"] == (40.0, "TEXT")
    assert sources["epsilon"] == (0.001, "TEXT")
    assert sources["prefer"] == ("COST", "DEFAULT")
    assert (found["intent"]["trustMin"], found["intent"]["jurisdictions"]) == (2, ["eu"])


async def test_what_is_missing_is_asked_and_what_is_foreign_is_no_match(app_one) -> None:
    asked = (await app_one.post("intents/interpret", json={"text": "embeddings within 250 ms"})).json()
    assert asked["status"] == "needs_clarification"
    assert asked["questions"][0]["field"] == "place"
    assert set(asked["questions"][0]["choices"]) == {"access-eu", "access-us"}
    assert "intent" not in asked
    none = (await app_one.post("intents/interpret", json={"text": "what is the weather tomorrow"})).json()
    assert none["status"] == "no_match"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text": ""}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"text": "embed", "intent": {"delayMs": -1}}, "intent.delayMs"),
        ({"text": "embed", "intent": {"model": "x"}}, "intent.model"),
        ({}, "text"),
    ],
)
async def test_what_does_not_fit_names_the_field(app_one, body: dict[str, object], field: str) -> None:
    answer = await app_one.post("intents/interpret", json=body)
    assert (answer.status_code, answer.json()["field"]) == (400, field)


async def test_free_text_needs_a_credential(nobody) -> None:
    assert (await nobody.post("intents/interpret", json={"text": TEXT})).status_code == 401
