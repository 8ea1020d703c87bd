import os
import signal
import socket
import threading

import httpx
import pytest

from aipaging.adapters.upstream.listening import Address, parsed_address, run_server
from aipaging.core.foundation.errors import InvalidInputError, UnavailableError


@pytest.mark.parametrize(
    ("text", "address", "url"),
    [
        ("127.0.0.1:8101", ("127.0.0.1", 8101), "http://127.0.0.1:8101"),
        ("localhost:0", ("localhost", 0), "http://localhost:0"),
        ("[::1]:80", ("::1", 80), "http://[::1]:80"),
    ],
)
def test_addresses(text, address, url):
    assert parsed_address(text) == address
    assert parsed_address(text).url == url


@pytest.mark.parametrize("text", ["", ":80", "host", "host:", "host:-1", "host:65536", "host:²", "::1:80", "[x]:80"])
def test_other_texts_are_no_addresses(text):
    with pytest.raises(InvalidInputError, match=r"127\.0\.0\.1:8101"):
        parsed_address(text)


def test_an_address_in_use_is_said_so():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UnavailableError, match="--listen"):
            run_server(_hello, Address("127.0.0.1", port), announcement={}, as_json=True)


async def _hello(_scope, receive, send):
    await receive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(("as_json", "said"), [(True, '{"listening":"'), (False, "listening on http://127.0.0.1:")])
def test_it_says_where_it_listens_and_ends_on_sigterm(monkeypatch, capfd, as_json, said):
    statuses = []

    def visit_and_end(announced):
        statuses.append(httpx.get(announced["listening"]).status_code)
        os.kill(os.getpid(), signal.SIGTERM)

    from aipaging.adapters.upstream import listening

    say = listening._say

    def say_and_visit(announced, *, as_json):
        say(announced, as_json=as_json)
        threading.Thread(target=visit_and_end, args=[announced]).start()

    monkeypatch.setattr(listening, "_say", say_and_visit)
    run_server(_hello, Address("127.0.0.1", 0), announcement={"model": "m"}, as_json=as_json)
    captured = capfd.readouterr()
    assert statuses == [204]
    assert (captured.out if as_json else captured.err).startswith(said)
    assert "m" in (captured.out if as_json else captured.err)
