"""Checks of a running controller: reachable, ready, known to us, with anchors that it hears."""

import datetime as dt
import json
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from aipaging.apps.doctor.finding import Finding, Situation, doubtful, fine, wrong

TIMEOUT_S: Final = 5.0
ENDS_SOON: Final = dt.timedelta(days=1)
"""An envelope that ends sooner ends while somebody sleeps."""

BASE: Final = "/ai-paging/v0.1"
_UNKNOWN: Final = 401
_FORBIDDEN: Final = 403
_TOO_MANY: Final = 429
_DONE: Final = 200


def controller(situation: Situation) -> Iterator[Finding]:
    """Ask the controller how it is, who we are, and which anchors it hears."""
    status, health = _asked(situation, "/healthz")
    if status != _DONE:
        yield from _unreachable(situation, health)
        return
    yield fine(f"a controller answers at {situation.url}")
    status, ready = _asked(situation, "/readyz")
    reasons = ready.get("reasons", []) if isinstance(ready, dict) else [ready]
    if status == _DONE:
        yield fine("it is ready: its journal is writable and a gateway is connected")
    for reason in [] if status == _DONE else reasons:
        yield wrong(f"the controller is not ready: {reason}", fix="look into the controller's log")
    if not situation.credential:
        yield doubtful(
            "no credential was given: nothing was asked in a client's name",
            fix="aipaging doctor --credential-file FILE",
            who="caller",
        )
        return
    yield from _credential(situation)


def _unreachable(situation: Situation, why: Any) -> Iterator[Finding]:
    message = f"no controller answers at {situation.url} ({why})"
    if situation.url_given:
        yield wrong(message, fix="start it (aipaging serve), or correct --url and --ca")
    else:
        yield doubtful(message, fix="start it (aipaging serve), or say where it is with --url")


def _credential(situation: Situation) -> Iterator[Finding]:
    status, answer = _asked(situation, f"{BASE}/services")
    if status != _DONE:
        yield _not_shown(status, answer)
        return
    count = len(answer.get("services", ()))
    yield fine(f"the credential works; {count} services are on offer")
    status, answer = _asked(situation, f"{BASE}/anchors")
    if status == _FORBIDDEN:
        yield fine("the credential is a client's: anchors are shown to operators only")
        return
    anchors: list[dict[str, Any]] = answer.get("anchors", []) if isinstance(answer, dict) else []
    if not anchors:
        yield doubtful("no anchor is registered", fix="aipaging anchors add, or [[anchor]] in the configuration")
    for anchor in anchors:
        yield _anchor(anchor)
    status, answer = _asked(situation, f"{BASE}/envelopes")
    if status == _DONE and isinstance(answer, dict):
        yield from _envelopes(answer.get("envelopes", []), dt.datetime.now(dt.UTC))
    yield from _stopped(situation)
    yield from _configured(situation)


def _not_shown(status: int, answer: Any) -> Finding:
    """Return what it means that the controller does not show what is on offer."""
    if status == _UNKNOWN:
        return wrong(
            "the controller does not know the credential",
            fix="use the secret of a [[client]] of its configuration",
            who="caller",
        )
    if status == _FORBIDDEN:
        return fine("the credential works; its scopes do not let it see what is on offer, so no more was asked")
    if status == _TOO_MANY:
        return doubtful(
            f"the controller did not say whether it knows the credential: {_said(answer)}",
            fix="ask again later; after too many failures only a credential that it knows still passes",
            who="caller",
        )
    return wrong(f"the controller answered with status {status}: {_said(answer)}", fix="look into the controller's log")


def _said(answer: Any) -> str:
    """Return what the controller said for people, or all of it where it said nothing for them."""
    return str(answer.get("message", answer) if isinstance(answer, dict) else answer)


def _stopped(situation: Situation) -> Iterator[Finding]:
    """Tell which kill switches are thrown: who forgets one looks for the reason elsewhere."""
    status, answer = _asked(situation, f"{BASE}/switches")
    for switch in answer.get("switches", ()) if status == _DONE else ():
        what = f"{switch['kind'].lower()} {switch['name']}".strip()
        yield doubtful(
            f"{what} is stopped by a kill switch since {switch['killedAt']}: {switch['reason']}",
            fix="aipaging switch restore, if it may go on",
        )


def _configured(situation: Situation) -> Iterator[Finding]:
    """Tell whether the controller runs with the file as it is now."""
    status, answer = _asked(situation, f"{BASE}/configuration")
    if status != _DONE:
        return
    for problem in answer["problems"]:
        yield wrong(
            f"the configuration file was not taken at the last reload: {problem['message']}",
            fix="correct it and reload: the next start would fail",
        )
    if answer["needsRestart"]:
        yield doubtful(
            f"changes wait for a restart: {', '.join(answer['needsRestart'])}",
            fix="restart the controller when it suits",
        )


def _envelopes(envelopes: list[dict[str, Any]], now: dt.datetime) -> Iterator[Finding]:
    """Tell which promises are over, not believed, or nearly over."""
    if not envelopes:
        yield doubtful("no envelope is in force: nothing can be admitted", fix="aipaging envelopes add")
    well = 0
    for envelope in envelopes:
        what = f"the envelope of {envelope['domain']} {envelope.get('segment', '')}".rstrip()
        if envelope["state"] == "SUSPECT":
            yield wrong(
                f"{what} is SUSPECT: {envelope.get('reason', '')}",
                fix=f"have the domain send another, or aipaging envelopes clear {envelope['digest'][:12]}",
            )
        elif envelope["state"] == "EXPIRED":
            yield wrong(f"{what} has expired: nothing is admitted across it", fix="aipaging envelopes add a newer one")
        elif dt.datetime.fromisoformat(envelope["validUntil"]) - now < ENDS_SOON:
            yield doubtful(f"{what} ends at {envelope['validUntil']}", fix="aipaging envelopes add a newer one before")
        else:
            well += 1
    if well:
        yield fine(f"{well} envelopes are in force for longer than a day")


def credential_file(situation: Situation) -> Iterator[Finding]:
    """Look whether the file with the secret is its owner's alone."""
    file = situation.credential_file
    if file is None or not file.exists():
        return
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        yield wrong(f"others may read {file}", fix=f"chmod 600 {file}, and have a new secret if they did", who="caller")
    else:
        yield fine(f"{file} is its owner's alone")


def key_sets(situation: Situation) -> Iterator[Finding]:
    """Look whether the key sets that the configuration names can be read."""
    sources: dict[str, Any] = situation.config.get("key_sources", {}) if situation.config else {}
    for domain, source in sources.items():
        file, url = source.get("file"), source.get("url")
        fault = _unread(Path(file)) if file else _unfetched(str(url))
        if fault:
            yield wrong(
                f"the key set of {domain} at {file or url}: {fault}",
                fix="publish it there; until then a controller that starts accepts no envelope of the domain",
            )
        else:
            yield fine(f"the key set of {domain} can be read")


def _unread(file: Path) -> str:
    try:
        return _no_key_set(json.loads(file.read_bytes()))
    except OSError as error:
        return str(error.strerror)
    except ValueError:
        return "it is not JSON"


def _unfetched(url: str) -> str:
    import httpx  # noqa: PLC0415 - 60 ms that other commands do not pay

    try:
        with httpx.Client(timeout=TIMEOUT_S, trust_env=False) as client:
            answer = client.get(url)
        return f"it answers {answer.status_code}" if answer.status_code != _DONE else _no_key_set(answer.json())
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return str(error) or type(error).__name__
    except ValueError:
        return "it is not JSON"


def _no_key_set(document: Any) -> str:
    keys = document.get("keys") if isinstance(document, dict) else None
    return "" if isinstance(keys, list) and keys else "it holds no keys"


def _anchor(anchor: dict[str, Any]) -> Finding:
    name, state = anchor["anchorId"], anchor["state"]
    if state == "READY":
        return fine(f"anchor {name} is READY")
    if state == "DRAINING":
        return doubtful(f"anchor {name} is DRAINING", fix=f"aipaging anchors ready {name}, when it may serve again")
    what = "was never heard" if state == "UNKNOWN" else "is LOST"
    return doubtful(
        f"anchor {name} {what}",
        fix=f"on its host: does `aipaging anchor` run, with an identity for {name}, before a healthy upstream?",
    )


def _asked(situation: Situation, path: str) -> tuple[int, Any]:
    """Return status and document; (0, reason) where there was no answer."""
    import httpx  # noqa: PLC0415 - 60 ms that other commands do not pay

    headers = {"authorization": f"Bearer {situation.credential}"} if situation.credential else {}
    try:
        context = ssl.create_default_context(cafile=str(situation.ca) if situation.ca else None)
        with httpx.Client(verify=context, timeout=TIMEOUT_S, trust_env=False) as client:
            answer = client.get(f"{situation.url}{path}", headers=headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return 0, str(error) or type(error).__name__
    try:
        return answer.status_code, answer.json()
    except ValueError:
        return 0, "what answers there is no controller"
