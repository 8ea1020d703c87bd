"""The command line: help, exit statuses and one JSON form, whatever goes wrong and wherever."""

import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click
import pytest

from aipaging.adapters.terminal.guard import run
from aipaging.apps.cli.api import URL_DEFAULT
from aipaging.apps.cli.reference import reference
from aipaging.apps.cli.registry import COMMANDS, aipaging
from aipaging.apps.server.config_schema import NORTHBOUND_LISTEN
from aipaging.core.foundation.errors import UnavailableError

SESSION = "0c5ab7c6-9d35-4c7f-8a55-5c29b8f4bd54"
BOUND = {
    "delayMs": 250.0,
    "epsilon": 0.001,
    "epsilonBound": 0.00012345,
    "rung": "union-any-dependence",
    "assumptions": ["delay-contracts-hold"],
    "budget": [{"domain": "access-eu", "delayMs": 90.1, "epsilon": 1e-5, "failure": 0.0}],
}
PAGED = {
    "sessionId": SESSION,
    "status": "AVAILABLE",
    "aisi": "aisi://op/embeddings/minilm",
    "anchorId": "eu-1",
    "gatewayUrl": "https://127.0.0.1:8443",
    "expiresAt": "2030-01-01T00:00:00Z",
    "tenant": "t",
    "aist": "header.payload.signature",
    "commit": {
        "epoch": {"term": 1, "n": 2},
        "leaseMs": 10_000,
        "remainingMs": 9_000,
        "ratePerSecond": 40.0,
        "burst": 5,
    },
    "bound": BOUND,
}
REJECTED = [{"anchorId": "eu-1", "aisi": "aisi://op/e/m", "eligible": False, "path": [], "bound": None,
             "rejection": {"constraint": "DELAY", "message": "too \x1b[31mslow"}}]  # fmt: skip


class Controller:
    """What a test wants the controller to answer, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any, str]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        self.too_often: list[tuple[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("content-length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                path = self.path.removeprefix("/ai-paging/v0.1")
                outer.asked.append((self.command, path, body, self.headers.get("authorization", "")))
                status, document = outer.answers.get(path, (404, {"status": 404, "code": "NOT_FOUND", "message": "no"}))
                retry_after = ""
                if outer.too_often:
                    status, (retry_after, code) = 429, outer.too_often.pop(0)
                    document = {"status": 429, "code": code, "message": "too often", "who": "caller"}
                content = (
                    b""
                    if document is None
                    else document
                    if isinstance(document, bytes)
                    else json.dumps(document).encode()
                )
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                if retry_after:
                    self.send_header("retry-after", retry_after)
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Iterator[Controller]:
    standing = Controller()
    monkeypatch.setenv("AIPAGING_URL", standing.url)
    monkeypatch.setenv("AIPAGING_CREDENTIAL", "the-secret")
    thread = threading.Thread(target=standing.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield standing
    standing.server.shutdown()
    thread.join()
    standing.server.server_close()


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def document(self) -> Mapping[str, Any]:
        [line] = self.out.splitlines()
        return dict(json.loads(line))


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Any:
    def ran(*arguments: str) -> Ran:
        status = run(aipaging, arguments)
        captured = capsys.readouterr()
        return Ran(int(status), captured.out, captured.err)

    return ran


ADD = ("anchors", "add", "a", "--domain", "d", "--aisi", "x", "--capacity", "1")
INTENT = ("--task", "embeddings", "--place", "access-eu", "--delay", "250ms")


def test_help_is_fast_and_imports_no_application() -> None:
    code = (
        "import sys; from aipaging.apps.cli.registry import aipaging\n"
        "from aipaging.adapters.terminal.guard import run\n"
        "run(aipaging, ['--help'])\n"
        "heavy = {'numpy', 'httpx', 'scipy', 'rich', 'starlette', 'cryptography'} & set(sys.modules)\n"
        "apps = [name for name in sys.modules if name.startswith('aipaging.apps.') and '.cli' not in name]\n"
        "print(sorted(heavy), apps, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[] []"
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


def installed() -> Iterator[tuple[str, click.Command]]:
    for name in COMMANDS:
        with contextlib.suppress(UnavailableError):  # not in this build
            command = aipaging.get_command(click.Context(aipaging), name)
            assert command is not None
            yield name, command


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command, str]]:
    """Yield what can be run, each with the help that its reader has seen by then."""
    if not isinstance(command, click.Group):
        yield name, command, command.epilog or ""
        return
    for inner in command.list_commands(click.Context(command)):
        found = command.get_command(click.Context(command), inner)
        assert found is not None
        for each, leaf, seen in leaves(f"{name} {inner}", found):
            yield each, leaf, (command.epilog or "") + seen


def test_every_command_has_help_examples_and_json() -> None:
    assert len(dict(installed())) > 8
    for top, group in installed():
        for name, command, seen in leaves(top, group):
            assert "Examples:" in seen, name
            assert command.help, name
            assert any("--json" in option.opts for option in command.params), name


@pytest.mark.parametrize(
    ("arguments", "status", "code", "field"),
    [
        (("fly",), 2, "USAGE", None),
        ((), 2, "USAGE", None),
        (("page", "--delay", "250"), 2, "USAGE", "delay"),
        (("page", "--nonsense"), 2, "USAGE", None),
        (("page", "--task", "x"), 2, "INVALID_ARGUMENT", "place"),
        (("page", *INTENT, "--epsilon", "0.1", "--percentile", "p90"), 2, "INVALID_ARGUMENT", "epsilon"),
        (("page", *INTENT, "--percentile", "p40"), 2, "USAGE", "percentile"),
        (("page", *INTENT, "--quality", "good"), 2, "INVALID_ARGUMENT", "quality"),
        (("page", *INTENT, "--duration", "1.5s"), 2, "INVALID_ARGUMENT", "duration"),
        (("page", *INTENT, "--url", "http://192.0.2.1"), 2, "INVALID_ARGUMENT", "url"),
        (("page", *INTENT, "--url", "https://127.0.0.1:9"), 4, "CONTROLLER_UNREACHABLE", None),
        (("page", "--intent", "/nowhere.json"), 2, "INVALID_ARGUMENT", "intent"),
        (("page", *INTENT, "--credential-file", "/nowhere"), 2, "INVALID_ARGUMENT", "credential-file"),
        (("sessions", "show", SESSION), 2, "NOT_FOUND", None),
        ((*ADD, "--address", "h"), 2, "INVALID_ARGUMENT", "address"),
        (("bench", "nothing"), 2, "INVALID_ARGUMENT", "name"),
        (("config", "check", "/nowhere.toml"), 2, "INVALID_CONFIGURATION", None),
    ],
)  # fmt: skip
def test_what_goes_wrong_has_one_form(
    cli: Any, controller: Controller, arguments: tuple[str, ...], status: int, code: str, field: str | None
) -> None:
    told = cli(*arguments, "--json")
    assert told.status == status
    assert told.document["error"]["code"] == code
    assert told.document["error"].get("field") == field
    assert told.document["error"]["who"] in {"caller", "operator"}
    for_people = cli(*arguments)
    assert for_people.status == status
    assert "Traceback" not in for_people.err
    assert for_people.err
    assert for_people.out == ""


@pytest.mark.parametrize(
    ("answer", "status", "who"),
    [
        ((401, {"code": "UNAUTHENTICATED", "message": "who?", "who": "caller"}), 3, "caller"),
        ((409, {"code": "INCOMPATIBLE_STATE", "message": "no", "who": "caller"}), 3, "caller"),
        ((503, {"code": "UNAVAILABLE", "message": "later", "who": "operator"}), 4, "operator"),
        ((500, {"code": "INTERNAL", "message": "oops", "who": "bug"}), 1, "bug"),
        ((200, b"<html>"), 4, "operator"),
        ((502, b"<html>"), 4, "operator"),
        ((400, {"code": "OUT_OF_RANGE", "message": "x", "who": "caller", "field": "intent.burst"}), 2, "caller"),
    ],
)
def test_what_the_controller_refuses_ends_with_the_matching_status(
    cli: Any, controller: Controller, answer: tuple[int, Any], status: int, who: str
) -> None:
    controller.answers["/sessions"] = answer
    told = cli("page", *INTENT, "--json")
    assert (told.status, told.document["error"]["who"]) == (status, who)


@pytest.mark.parametrize("command", [("services",), ("events",)])
def test_who_gave_no_credential_is_told_how(
    cli: Any, controller: Controller, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    refusal = {"code": "UNAUTHENTICATED", "message": "a bearer credential is expected", "who": "caller"}
    cli(*command)
    controller.answers[controller.asked[-1][1]] = (401, refusal)
    assert "a bearer credential is expected" in cli(*command).err
    monkeypatch.delenv("AIPAGING_CREDENTIAL")
    told = cli(*command)
    assert told.status == 3
    assert "--credential-file" in told.err


def test_page_sends_what_was_said(cli: Any, controller: Controller) -> None:
    controller.answers["/sessions"] = (201, PAGED)
    told = cli(
        "page", *INTENT, "--percentile", "p99.9", "--rate", "40", "--burst", "5", "--duration", "10m", "--region", "eu",
        "--data-class", "internal", "--quality", "sts-benchmark=80", "--first-token", "--prefer", "delay", "--json",
    )  # fmt: skip
    assert told.status == 0
    assert told.document == PAGED
    [(method, path, body, authorization)] = controller.asked
    assert (method, path, authorization) == ("POST", "/sessions", "Bearer the-secret")
    assert body == {
        "intent": {
            "task": "embeddings", "place": "access-eu", "delayMs": 250.0, "epsilon": 0.001, "ratePerSecond": 40.0,
            "burst": 5, "durationS": 600, "regions": ["eu"], "dataClass": "INTERNAL", "delayScope": "FIRST_TOKEN",
            "quality": {"benchmark": "sts-benchmark", "scoreMin": 80.0}, "prefer": "DELAY",
        }
    }  # fmt: skip


def test_flags_override_the_intent_of_a_file(cli: Any, controller: Controller, tmp_path: Path) -> None:
    controller.answers["/intents/resolve"] = (200, {"intent": {}, "candidates": [{"eligible": True}]})
    file = tmp_path / "intent.json"
    file.write_text('{"task": "chat", "place": "access-eu", "delayMs": 9.0}')
    assert cli("page", "--intent", str(file), "--delay", "0.5s", "--dry-run", "--json").status == 0
    assert controller.asked[0][2] == {"intent": {"task": "chat", "place": "access-eu", "delayMs": 500.0}}


def test_a_session_for_people(cli: Any, controller: Controller, tmp_path: Path) -> None:
    controller.answers["/sessions"] = (201, PAGED)
    token = tmp_path / "token"
    told = cli("page", *INTENT, "--token-file", str(token))
    assert "P(delay > 250 ms, or lost, or failed) <= 1.3e-4, within the 0.001 asked for" in told.out
    assert "epoch 1.2, 9,000 of 10,000 ms left, 40 requests/s, burst 5" in told.out
    assert "header.payload" not in told.out
    assert token.read_text() == "header.payload.signature\n"
    assert token.stat().st_mode & 0o777 == 0o600


def test_a_refusal_tells_every_candidate(cli: Any, controller: Controller) -> None:
    refusal = {"status": 422, "code": "AI_PAGING.ADMISSION_REFUSED", "message": "none", "who": "caller",
               "sessionId": SESSION, "constraint": "DELAY", "candidates": REJECTED}  # fmt: skip
    controller.answers["/sessions"] = (422, refusal)
    told = cli("page", *INTENT, "--json")
    assert told.status == 3
    assert told.document["candidates"] == REJECTED
    assert told.document["constraint"] == "DELAY"
    for_people = cli("page", *INTENT)
    assert "DELAY" in for_people.out
    assert "\x1b" not in for_people.out
    assert for_people.status == 3


def test_resolve_without_an_eligible_candidate_is_refused(cli: Any, controller: Controller) -> None:
    controller.answers["/intents/resolve"] = (200, {"intent": {}, "candidates": REJECTED})
    told = cli("resolve", *INTENT, "--json")
    assert told.status == 3
    assert told.document["error"]["code"] == "ADMISSION_REFUSED"
    assert told.document["candidates"] == REJECTED


def test_the_other_operations(cli: Any, controller: Controller) -> None:
    path = f"/sessions/{SESSION}"
    relocated = PAGED | {"relocation": {"phase": "FAILED", "cause": "CLIENT", "sourceAnchorId": "eu-1", "message": "x"}}
    anchor = {"anchorId": "a", "state": "READY", "domain": "d", "aisi": "s", "host": "h", "port": 1, "tls": True,
              "capacityPerSecond": 1.0, "reservedPerSecond": 0.0, "inFlightMax": 1, "sessions": 0}  # fmt: skip
    controller.answers |= {
        path: (200, relocated),
        f"{path}/extend": (200, PAGED),
        f"{path}/relocate": (202, PAGED),
        f"{path}/move": (202, PAGED),
        f"{path}/erase": (204, None),
        "/retrieve-sessions": (200, {"sessions": [PAGED], "pagination": {"totalCount": 1}}),
        "/anchors": (200, {"anchors": [anchor]}),
        "/anchors/a/drain": (200, anchor),
        "/anchors/a/ready": (200, anchor),
        "/anchors/a": (204, None),
        "/anchors/..%2Fsessions": (204, None),
        "/services": (200, {"services": []}),
    }
    for arguments, status, asked in (
        (("extend", SESSION, "--by", "10m"), 0, ("POST", f"{path}/extend", {"additionalDurationS": 600})),
        (("relocate", SESSION, "--to", "eu-2"), 0, ("POST", f"{path}/relocate", {"targetAnchorId": "eu-2"})),
        (("relocate", SESSION, "--wait"), 1, ("GET", path, None)),
        (("release", SESSION), 0, ("DELETE", path, None)),
        (("sessions", "move", SESSION, "--place", "us"), 0, ("POST", f"{path}/move", {"place": "us"})),
        (("sessions", "erase", SESSION), 0, ("POST", f"{path}/erase", None)),
        (("sessions", "list", "--anchor", "a"), 0,
         ("POST", "/retrieve-sessions", {"page": 1, "perPage": 100, "filter": {"anchorId": "a"}})),
        (("anchors", "list"), 0, ("GET", "/anchors", None)),
        (("anchors", "drain", "a"), 0, ("POST", "/anchors/a/drain", None)),
        (("anchors", "ready", "a"), 0, ("POST", "/anchors/a/ready", None)),
        (("anchors", "remove", "a"), 0, ("DELETE", "/anchors/a", None)),
        (("anchors", "remove", "../sessions"), 0, ("DELETE", "/anchors/..%2Fsessions", None)),
        (("services",), 0, ("GET", "/services", None)),
    ):  # fmt: skip
        told = cli(*arguments, "--json")
        assert told.status == status, (arguments, told.out)
        assert told.document
        assert controller.asked[-1][:3] == asked
        assert cli(*arguments).status == status


def test_a_bug_is_told_as_one(cli: Any, monkeypatch: pytest.MonkeyPatch, controller: Controller) -> None:
    monkeypatch.setattr("aipaging.apps.cli.page.intent_of", lambda _: 1 / 0)
    monkeypatch.delenv("AIPAGING_DEBUG", raising=False)
    told = cli("page", *INTENT, "--json")
    assert (told.status, told.document["error"]["who"]) == (1, "bug")
    assert "Traceback" not in told.err
    monkeypatch.setenv("AIPAGING_DEBUG", "1")
    told = cli("page", *INTENT, "--json")
    assert "Traceback" in told.err
    assert told.document["error"]["code"] == "INTERNAL"


def test_a_missing_extra_is_named(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aipaging.apps.bench.command", None)
    told = cli("bench", "list", "--json")
    assert (told.status, told.document["error"]["code"]) == (4, "COMMAND_MISSING")

    def onnxruntime(*_: Any) -> None:
        raise ModuleNotFoundError("No module named 'onnxruntime'", name="onnxruntime")

    monkeypatch.setattr("aipaging.apps.cli.page.intent_of", onnxruntime)
    told = cli("page", "--json")
    assert told.status == 4
    assert "aipaging[anchor]" in told.document["error"]["message"]


def test_the_default_url_is_where_a_default_controller_listens() -> None:
    assert f"http://{NORTHBOUND_LISTEN}" == URL_DEFAULT


def test_a_reader_that_has_gone_is_no_trace() -> None:
    command = f"{sys.executable} -m aipaging.apps.cli config keys | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_the_reference_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
    assert page.read_text() == reference(), "run: make reference"


def test_who_asks_too_often_asks_again_when_told_to(controller: Controller, cli: Any) -> None:
    controller.answers["/switches/kill"] = (200, {"switches": []})
    controller.too_often = [("0", "TOO_MANY_REQUESTS")] * 3
    done = cli("switch", "kill", "all", "--reason", "fire")
    assert (done.status, len(controller.asked)) == (0, 4)
    assert done.err.count("is asked again in 0 s") == 3


@pytest.mark.parametrize(
    "refused", [[("0", "TOO_MANY_REQUESTS")] * 9, [("31", "TOO_MANY_REQUESTS")], [("0", "QUOTA_EXCEEDED")]]
)
def test_who_is_told_to_wait_long_or_for_ever_is_told_so(
    controller: Controller, cli: Any, refused: list[tuple[str, str]]
) -> None:
    controller.too_often = list(refused)
    done = cli("switch", "kill", "all", "--reason", "fire", "--json")
    assert done.status != 0
    assert done.document["error"]["code"] == refused[0][1]
    assert len(controller.asked) == min(len(refused), 4)
