"""Whose doing a late or failed request is: what a client does by itself is held against nobody."""

from collections.abc import Mapping
from typing import Any

import pytest

from aipaging.adapters.sidecar.answers import LEASE_ENDED_MEANWHILE, over_contract, queue_full, refusal_answer
from aipaging.adapters.telemetry.causes import HELD_BYTES, Ending
from aipaging.adapters.telemetry.envoy import row_of_entry
from aipaging.adapters.telemetry.server_timing import is_excused
from aipaging.core.audit import Status

MS = 1_000
PLAIN: Mapping[str, Any] = {
    "flags": frozenset[str](), "code": 200, "request_bytes": 200, "answer_bytes": 2_000, "whole_us": 1 * MS,
    "sent_us": 2 * MS, "begun_us": 40 * MS, "answered_us": 60 * MS, "ended_us": 61 * MS,
    "timed": True, "excused": False,
}  # fmt: skip
BIG = HELD_BYTES + 1


def ending(**changes: Any) -> Ending:
    flags = frozenset(changes.pop("flags", ()))
    return Ending(**{**PLAIN, "flags": flags, **changes})


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        # The service's doing.
        ({}, Status.OK),
        ({"code": 404}, Status.OK),
        ({"code": 503, "timed": False}, Status.ERROR),
        ({"code": 429, "timed": False}, Status.ERROR),
        ({"code": 429}, Status.ERROR),
        ({"code": 0, "begun_us": -1}, Status.LOST),
        ({"code": 504, "begun_us": -1, "flags": ["stream_idle_timeout"]}, Status.TIMEOUT),
        ({"flags": ["upstream_connection_termination"]}, Status.ERROR),
        ({"flags": ["upstream_remote_reset"], "answered_us": -1}, Status.ERROR),
        # Its client's, or perhaps.
        ({"flags": ["downstream_connection_termination"], "code": 0}, Status.UNKNOWN),
        ({"flags": ["downstream_remote_reset"]}, Status.UNKNOWN),
        ({"flags": ["downstream_protocol_error"], "code": 400}, Status.UNKNOWN),
        ({"flags": ["stream_idle_timeout"], "code": 408, "whole_us": -1}, Status.UNKNOWN),
        ({"flags": ["upstream_connection_termination"], "code": 503, "whole_us": -1}, Status.UNKNOWN),
        ({"flags": ["upstream_remote_reset"], "answer_bytes": BIG}, Status.UNKNOWN),
        ({"flags": ["stream_idle_timeout"], "answer_bytes": BIG}, Status.UNKNOWN),
        ({"code": 429, "timed": False, "excused": True}, Status.UNKNOWN),
        ({"code": 503, "timed": False, "excused": True}, Status.UNKNOWN),
        # Nobody's word but the anchor's that the request was wrong.
        ({"code": 403, "timed": False}, Status.UNKNOWN),
    ],
)
def test_a_failure_is_the_services_unless_its_client_may_have_brought_it_about(
    changes: dict[str, Any], status: Status
) -> None:
    assert ending(**changes).status() == status


def test_a_body_that_trickles_in_makes_neither_the_path_nor_the_anchor_late() -> None:
    slow = ending(whole_us=9_000 * MS, begun_us=9_030 * MS, answered_us=9_050 * MS, ended_us=9_051 * MS)
    assert slow.least_first_us() == 30 * MS
    assert slow.least_total_us() == 50 * MS
    assert slow.least_anchor_us(9_020 * MS) == slow.most_anchor_us(9_020 * MS) == 22 * MS
    never = ending(whole_us=-1, begun_us=9_030 * MS)
    assert never.least_first_us() == never.least_total_us() == never.least_anchor_us(9_020 * MS) == 0


def test_an_anchor_that_reads_a_large_body_slowly_stays_in_the_upper_count() -> None:
    held_back = ending(whole_us=9_000 * MS, begun_us=9_030 * MS, request_bytes=BIG)
    assert (held_back.least_anchor_us(9_020 * MS), held_back.most_anchor_us(9_020 * MS)) == (22 * MS, 9_020 * MS)


def test_an_answer_that_is_not_read_is_late_by_what_passed_until_it_began() -> None:
    unread = ending(answer_bytes=BIG, answered_us=50_000 * MS, ended_us=60_000 * MS)
    assert unread.least_total_us() == unread.least_first_us() == 39 * MS
    read = ending(answered_us=50_000 * MS, ended_us=60_000 * MS)
    assert read.least_total_us() == 49_999 * MS


def test_who_waits_for_an_answer_in_vain_and_leaves_has_waited() -> None:
    left = ending(flags=["downstream_connection_termination"], code=0, begun_us=-1, answered_us=-1, ended_us=5_000 * MS)
    assert left.status() == Status.UNKNOWN
    assert left.least_total_us() == left.least_first_us() == 4_999 * MS
    assert left.least_anchor_us(-1) == -1


def test_an_ordinary_request_is_as_late_as_it_was() -> None:
    usual = ending()
    assert (usual.least_first_us(), usual.least_total_us()) == (39 * MS, 59 * MS)
    assert usual.least_anchor_us(30 * MS) == usual.most_anchor_us(30 * MS) == 30 * MS


def test_the_sidecar_marks_what_its_client_may_have_brought_about_and_no_model_server_can() -> None:
    policed = refusal_answer(over_contract(1_000, 1, 5), close=False)
    assert b"\r\nserver-timing: guardrail\r\n" in policed
    outlived = refusal_answer(LEASE_ENDED_MEANWHILE, close=False)
    assert b"\r\nserver-timing: lease\r\n" in outlived
    assert b"server-timing" not in refusal_answer(queue_full(1), close=False)
    assert is_excused("lease")
    assert is_excused("guardrail")
    assert not is_excused("guardrail,queue;dur=0.100, inference;dur=5.000")
    assert not is_excused("")


def test_one_trace_context_sent_with_many_requests_does_not_make_them_one() -> None:
    def identity(start: str) -> str:
        headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        return str(
            row_of_entry({"commonProperties": {"startTime": start}, "request": {"requestHeaders": headers}})[
                "request_id"
            ]
        )

    first, again = "2026-11-01T10:00:00.1Z", "2026-11-01T10:00:00.2Z"
    assert identity(first) != identity(again)
    assert identity(first) == identity(first)


def test_in_a_file_a_slow_upload_is_in_no_delay_and_a_slow_reader_leaves_it_unknown() -> None:
    def row(*, answer_bytes: int = 100, **common: str) -> dict[str, Any]:
        marks = {
            "timeToLastRxByte": "0.001s",
            "timeToFirstUpstreamTxByte": "0.002s",
            "timeToFirstUpstreamRxByte": "0.03s",
            "timeToLastUpstreamRxByte": "0.042s",
            "timeToLastDownstreamTxByte": "0.043s",
        }
        response = {
            "responseCode": 200,
            "responseBodyBytes": str(answer_bytes),
            "responseHeaders": {"server-timing": "queue;dur=0.000, inference;dur=30.000"},
        }
        return row_of_entry({"commonProperties": marks | common, "response": response})

    slow = row(timeToLastRxByte="0.022s", timeToLastUpstreamRxByte="0.062s", timeToLastDownstreamTxByte="0.063s")
    assert (slow["end_to_end_us"], slow["domain_inference_us"], slow["domain_network_us"]) == (41_000, 10_000, 30_000)
    unread = row(answer_bytes=BIG)
    assert unread["end_to_end_us"] is None
    assert "domain_network_us" not in unread
    assert unread["domain_inference_us"] == 30_000
