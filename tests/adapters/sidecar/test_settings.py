"""Settings are checked before anything starts."""

import pytest

from aipaging.adapters.sidecar.settings import parse_listen, parse_upstream, queue_limits
from aipaging.core.foundation.errors import InvalidInputError


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://h", ("h", 80, False, b"", b"h")),
        ("https://h", ("h", 443, True, b"", b"h")),
        ("http://127.0.0.1:8000/", ("127.0.0.1", 8000, False, b"", b"127.0.0.1:8000")),
        ("https://api.example/v1/", ("api.example", 443, True, b"/v1", b"api.example")),
        ("http://[::1]:8000", ("::1", 8000, False, b"", b"[::1]:8000")),
    ],
)
def test_upstreams(url, parts) -> None:
    found = parse_upstream(url)
    assert (found.host, found.port, found.tls, found.prefix, found.authority) == parts


@pytest.mark.parametrize(
    "url", ["", "h:80", "ftp://h", "http://", "http://h:99999", "http://u:secret@h", "http://h?x", "http://h/ x", "//h"]
)
def test_what_is_no_upstream(url) -> None:
    with pytest.raises(InvalidInputError) as error:
        parse_upstream(url)
    assert "secret" not in error.value.message


@pytest.mark.parametrize("line", ["", "a\r\nb: c", "\u00e9", "a\x00"])
def test_an_authorization_is_one_line(line) -> None:
    with pytest.raises(InvalidInputError):
        parse_upstream("http://h", authorization=line)


def test_a_key_is_not_shown() -> None:
    assert "hosted" not in repr(parse_upstream("http://h", authorization="Bearer hosted"))


def test_listening() -> None:
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_listen("[::1]:9443") == ("::1", 9443)
    for wrong in ("", "h", ":80", "h:", "h:x", "h:70000"):
        with pytest.raises(InvalidInputError):
            parse_listen(wrong)


def test_one_tenant_leaves_half_of_the_queue() -> None:
    assert queue_limits(concurrency=1, waiting_max=5).waiting_per_tenant_max == 3
    for concurrency, waiting in ((0, 1), (1, -1), (100_000, 1)):
        with pytest.raises(InvalidInputError):
            queue_limits(concurrency=concurrency, waiting_max=waiting)


def test_slots_of_tenants() -> None:
    limits = queue_limits(concurrency=8, waiting_max=5, slots=["acme=4", "globex=3"])
    assert limits.reserved == {"acme": 4, "globex": 3}
    for wrong in (["acme"], ["acme=0"], ["acme=-1"], ["acme=x"], ["=3"], ["acme=8"], ["acme=1", "acme=1"], ["A B=1"]):
        with pytest.raises(InvalidInputError) as caught:
            queue_limits(concurrency=8, waiting_max=5, slots=wrong)
        assert caught.value.field == "slots"
