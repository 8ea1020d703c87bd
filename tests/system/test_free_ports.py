"""The ports that systems of real processes are told to listen on."""

import socket
from pathlib import Path

import pytest

from aipaging.core.foundation.errors import UnavailableError
from aipaging.testing import stack

HOST = "127.0.0.1"


def test_no_free_port_is_one_that_the_system_gives_to_others_meanwhile() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < stack._PORT_MIN + stack._PORTS_MIN:
        pytest.skip("this system keeps no range of ports back")
    ports = stack.free_ports(20)
    assert len(set(ports)) == 20
    assert max(ports) < lowest
    with socket.socket() as given:
        given.bind((HOST, 0))
        assert given.getsockname()[1] >= lowest


def test_a_port_that_somebody_has_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        (port,) = stack.free_ports(1)
        taken.bind((HOST, port))
        taken.listen()
        monkeypatch.setattr(stack, "_PORT_MIN", port)
        monkeypatch.setattr(stack, "_PORTS_MIN", 1)
        monkeypatch.setattr(stack, "_lowest_given_port", lambda: port + 1)
        with pytest.raises(UnavailableError, match="no 1 free"):
            stack.free_ports(1)
