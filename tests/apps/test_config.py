"""A configuration is checked completely: every mistake is found, with its line, in one report."""

import contextlib
import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aipaging.adapters.terminal.errors import InvalidFileError
from aipaging.apps.server.config import ServerConfig, load_config
from aipaging.apps.server.config_command import effective
from aipaging.apps.server.config_fields import read_table
from aipaging.apps.server.config_free_text import FREE_TEXT
from aipaging.apps.server.config_reference import example, reference
from aipaging.apps.server.config_schema import sections
from aipaging.core.foundation.time import WallUs
from aipaging.core.wording.reading import FIELDS, REQUIRED

TODAY = dt.date(2026, 3, 1)
NOW = WallUs(int(dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC).timestamp() * 1_000_000))
EXAMPLE = example(today=TODAY, operator_secret="o" * 20, client_secret="c" * 20)
REPOSITORY = Path(__file__).parents[2]


def loaded(folder: Path, text: str, **environment: str) -> ServerConfig:
    file = folder / "aipaging.toml"
    file.write_text(text)
    return load_config(file, wall_us=NOW, environment=environment)


def refused(folder: Path, text: str, **environment: str) -> InvalidFileError:
    with pytest.raises(InvalidFileError) as caught:
        loaded(folder, text, **environment)
    return caught.value


def test_the_example_passes_without_a_warning(tmp_path: Path) -> None:
    config = loaded(tmp_path, EXAMPLE)
    assert config.warnings == ()
    assert config.operator.data_dir == tmp_path / "aipaging-data"
    assert config.gateway.public_url == "https://127.0.0.1:8443"
    assert [client.role for client in config.clients] == ["operator", "client"]
    [anchor] = config.catalogue.anchors.values()
    assert (anchor.host, anchor.port, anchor.capacity_mrps) == ("127.0.0.1", 9101, 100_000)


def test_the_example_names_every_key() -> None:
    for section in sections(Path()):
        for key in section.fields:
            assert f"\n{key} = " in EXAMPLE or f"\n# {key} = " in EXAMPLE, f"{section.name}.{key}"


def test_the_example_shows_the_defaults(tmp_path: Path) -> None:
    operator, _, clients = EXAMPLE.partition("[northbound]")
    _, _, rest = clients.partition("# Who may call")
    assert effective(loaded(tmp_path, operator + "# Who may call" + rest)) == effective(loaded(tmp_path, EXAMPLE))


def test_a_minimal_configuration(tmp_path: Path) -> None:
    config = loaded(tmp_path, '[operator]\nname = "me"\ndata_dir = "d"\n')
    assert config.operator.trust_domain == "me"
    assert [problem.message for problem in config.warnings] == ["there is no [[client]]: nobody can call the API"]


# What is replaced in the example, by what, and words that the message must hold.
MISTAKES = [
    ('name = "example-operator"  ', 'name = "Example"', "lower-case"),
    ('data_dir = "aipaging-data"', "data_dir = 7", "an integer"),
    ("drift_ppm = 500", "drift_pmm = 500", "did you mean drift_ppm"),
    ("lease_ms = 10_000", "lease_ms = 10", "an integer from 100 to"),
    ("lease_ms = 10_000", "lease_ms = true", "true or false"),
    ("lease_ms_max = 60_000", "lease_ms_max = 5_000", "above lease_ms_max"),
    ("drain_ms_max = 30_000", "drain_ms_max = 9_999", "below lease_ms"),
    ('listen = "127.0.0.1:8080"', 'listen = "0.0.0.0:8080"', "plain text"),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1"', "host:port"),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:99999"', "host:port"),
    ('listen = "127.0.0.1:8080"', 'listen = "127.0.0.1:8444"', "taken by northbound.listen"),
    ('address = "127.0.0.1:9101"', 'address = "127.0.0.1:8445"', "taken by southbound.ads_listen"),
    ('# certificate = "api.pem"', 'certificate = "api.pem"', "give both or none"),
    ('# client_ca = "clients.pem"            # session', 'client_ca = "clients.pem"  #', "over TLS only"),
    ('# client_ca = "clients.pem"            # that', 'client_ca = "nowhere.pem"  #', "nowhere.pem is missing"),
    ('driver = "envoy"', 'driver = "nginx"', '"envoy", "memory"'),
    ("plain_text = false ", "plain_text = 0 ", "true or false"),
    ("concurrency = 1", "concurrency = 0", "from 1 to"),
    ('client_id = "example-client"', 'client_id = "operator-console"', "of client[0]"),
    ("# secret_env", "secret_env", "exactly one of"),
    ('role = "operator"', 'role = "root"', '"client", "operator"'),
    ("aisi://example-operator/embeddings/minilm-l6", "https://example.net", "aisi://"),
    ('task = "embeddings"', "", "lacks task"),
    ('languages = ["en"]', 'languages = ["en", "en"]', "twice"),
    ("scores = { sts-benchmark = 82.0 }", 'scores = { sts-benchmark = "good" }', "is text"),
    ('kind = "access"', 'kind = "radio"', "one of"),
    ('kind = "transport"', 'kind = "compute"', "transport is needed here"),
    ("trust = 3 ", "trust = 6 ", "from 0 to 5"),
    ('access = "access-eu"', 'access = "access-us"', "no [[domain]] has the name"),
    ('transport = ["transport-eu"]', 'transport = ["sea"]', "no [[domain]] has the name sea"),
    ('name = "transport-eu"', 'name = "access-eu"', "of domain[0]"),
    ("prefactor = 0.5", "prefactor = nan", "a number from 0"),
    ("prefactor = 0.5", "prefactor = inf", "a number from 0"),
    ("decay_per_ms = 0.4", "decay_per_ms = 0", "above 0"),
    ("loss = 1e-5", "loss = 1.0", "nothing left"),
    ("error = 1e-4", "error = -1e-4", "from 0 to 1"),
    ("rate_rps_max = 100.0", "rate_rps_max = 300.0", "below the guardrail"),
    ("valid_until = 2026-05-30T00:00:00Z    # required", "valid_until = 2026-02-01T00:00:00Z", "not after its start"),
    ("valid_until = 2026-05-30T00:00:00Z    # required", "valid_until = 2026-03-01T00:00:01Z", "expired"),
    ("valid_until = 2026-05-30T00:00:00Z    # required", "valid_until = 2030-01-01T00:00:00", "no time zone"),
    ("valid_until = 2026-05-30T00:00:00Z    # required", 'valid_until = "2030-01-01"', "is text"),
    ('domain = "compute-eu"                # required', 'domain = "access-eu"', "compute is needed here"),
    ("tls = true  ", "tls = 1  ", "an integer"),
    ("capacity_rps = 100 ", "capacity_rps = 0 ", "above 0"),
    ('# public_url = "https://ai', 'public_url = "https://u:p@ai', "password"),
    ("[limits]", "[limit]", "there is no section 'limit'"),
    ("[[anchor]]", "[anchor]", "must be written [[anchor]]"),
    ("[lease] ", "[[lease]] ", "expected a table"),
    ("grace_ms = 500", "grace_ms 500", "not TOML"),
    ("grace_ms = 500", "lease_ms = 1", "not TOML"),
]


@pytest.mark.parametrize(
    ("old", "new", "words"), MISTAKES, ids=[f"{new[:30]}-{words[:20]}" for _, new, words in MISTAKES]
)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    before, found, after = EXAMPLE.partition(old)
    assert found, f"the example no longer holds {old!r}"
    error = refused(tmp_path, before + new + after)
    told = [problem for problem in error.problems if words in problem.message and not problem.warning]
    assert told, [problem.message for problem in error.problems]
    lines = (before + new + after).splitlines()
    for problem in told:
        assert problem.line is not None
        line = lines[problem.line - 1]
        assert line.startswith("[") or str(problem.field or new).split(".")[-1].split(" ")[0] in line, line


def test_all_mistakes_are_told_at_once_in_order(tmp_path: Path) -> None:
    text = EXAMPLE
    for old, new in (
        ("drift_ppm = 500", "drift_ppm = -1"),
        ('task = "embeddings"', 'task = "Embeddings"'),
        ("capacity_rps = 100 ", "capacity_rps = -1 "),
        ('access = "access-eu"', 'access = "nowhere"'),
        ("concurrency = 1", "workers = 1"),
    ):
        assert old in text
        text = text.replace(old, new, 1)
    error = refused(tmp_path, text)
    fields = [problem.field for problem in error.problems if not problem.warning]
    assert fields == [
        "gateway.workers",
        "lease.drift_ppm",
        "service[0].task",
        "path[0].access",
        "anchor[0].capacity_rps",
    ]
    lines = [problem.line for problem in error.problems]
    assert lines == sorted(lines, key=lambda line: line or 0)
    for problem in error.problems:
        if not problem.warning:
            assert str(problem.field).rsplit(".", 1)[1] in text.splitlines()[(problem.line or 0) - 1]


def test_a_missing_section_and_file(tmp_path: Path) -> None:
    assert "[operator] is missing" in refused(tmp_path, "[lease]\n").message
    with pytest.raises(InvalidFileError, match="cannot be read"):
        load_config(tmp_path / "none.toml", wall_us=NOW)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidFileError, match="not UTF-8"):
        load_config(tmp_path / "binary.toml", wall_us=NOW)


def test_a_secret_pasted_in_the_wrong_place_is_not_repeated(tmp_path: Path) -> None:
    begin = EXAMPLE.index("secret_sha256")
    end = EXAMPLE.index("\n", begin)
    for wrong in ('secret_sha256 = "hunter2-hunter2-hunter2"', 'secret = "hunter2-hunter2-hunter2"'):
        error = refused(tmp_path, EXAMPLE[:begin] + wrong + EXAMPLE[end:])
        assert "hunter2" not in " ".join(problem.message for problem in error.problems)


CLIENT = '[operator]\nname = "me"\ndata_dir = "d"\n[[client]]\nclient_id = "a"\ntenant = "t"\n'


def test_secrets_from_files_and_the_environment(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s" * 20 + "\n")
    secret.chmod(0o600)
    by_file = loaded(tmp_path, CLIENT + 'secret_file = "secret"\n')
    by_variable = loaded(tmp_path, CLIENT + 'secret_env = "SECRET"\n', SECRET="s" * 20)
    assert by_file.clients == by_variable.clients
    assert "s" * 20 not in json.dumps(effective(by_file))
    assert by_file.clients[0].secret_sha256 not in json.dumps(effective(by_file))
    secret.chmod(0o640)
    assert "chmod 600" in refused(tmp_path, CLIENT + 'secret_file = "secret"\n').message
    assert "missing or empty" in refused(tmp_path, CLIENT + 'secret_env = "SECRET"\n').message
    assert "at least 16" in refused(tmp_path, CLIENT + 'secret_env = "SECRET"\n', SECRET="short").message
    assert "cannot be read" in refused(tmp_path, CLIENT + 'secret_file = "none"\n').message


WARNINGS: list[tuple[Callable[[str], str], str]] = [
    (lambda text: text[: text.index("[[anchor]]")], "no [[anchor]] executes"),
    (lambda text: text[: text.rindex("[[envelope]]")] + text[text.index("[[anchor]]") :], "has no [[envelope]]"),
    (lambda text: text.replace("2026-05-30T00", "2026-03-02T00"), "expires within a day"),
    (lambda text: text.replace("2026-03-01T00", "2026-03-02T00"), "not valid yet"),
    (lambda text: text.replace("anchor_lost_ms = 3_000", "anchor_lost_ms = 11_000"), "longer than a lease"),
]


@pytest.mark.parametrize(("edit", "words"), WARNINGS, ids=[words for _, words in WARNINGS])
def test_what_works_but_not_as_meant_is_a_warning(tmp_path: Path, edit: Callable[[str], str], words: str) -> None:
    config = loaded(tmp_path, edit(EXAMPLE))
    assert any(words in problem.message for problem in config.warnings), [p.message for p in config.warnings]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_value_breaks_a_reader(data: st.DataObject) -> None:
    for section in sections(Path("/base")):
        document = {key: data.draw(JUNK) for key in section.fields}
        read_table(section, document, (section.name,), [])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(EXAMPLE)), junk=st.text(max_size=8), cut=st.integers(0, 60))
def test_a_broken_file_is_an_error_and_never_a_crash(tmp_path: Path, at: int, junk: str, cut: int) -> None:
    text = (EXAMPLE[:at] + junk + EXAMPLE[at + cut :]).encode("utf-8", "surrogatepass")
    (tmp_path / "c.toml").write_bytes(text)
    with contextlib.suppress(InvalidFileError):
        load_config(tmp_path / "c.toml", wall_us=NOW, environment={})


def test_the_reference_is_up_to_date() -> None:
    page = REPOSITORY / "docs" / "reference" / "configuration.md"
    assert page.read_text() == reference(), "run: aipaging config keys > docs/reference/configuration.md"


def test_what_free_text_leaves_unsaid(tmp_path: Path) -> None:
    minimal = '[operator]\nname = "me"\ndata_dir = "d"\n'
    assert loaded(tmp_path, minimal).northbound.unsaid == {}
    said = '[free_text]\ntrust_min = 3\ndata_class = "internal"\njurisdictions = ["fr", "de"]\nprefer = "delay"\n'
    assert loaded(tmp_path, minimal + said).northbound.unsaid == {
        "trust_min": 3,
        "data_class": "INTERNAL",
        "jurisdictions": ("fr", "de"),
        "prefer": "DELAY",
    }
    error = refused(tmp_path, minimal + "[free_text]\ntrust_min = 6\n")
    assert [problem.message for problem in error.problems if "trust_min" in problem.message]


def test_what_free_text_leaves_unsaid_are_fields_of_the_intent() -> None:
    assert set(FREE_TEXT.fields) < set(FIELDS) - set(REQUIRED)
