"""Settings: where they come from, what is refused, what processes and people are told."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from deploy import settings_show
from deploy.cli import main
from deploy.errors import SettingsError, UserError
from deploy.home import development_secret
from deploy.settings import Settings, edge_config, edge_url, web_url, worker_config
from deploy.settings_load import FIELDS, load
from deploy.stack import WORKERS
from deploy.tokens import make_token, with_development_secret, with_internal_secret
from edge.config import EdgeConfig
from edge.frames import Limits
from workers.config import WorkerConfig

SECRET = "0123456789abcdef0123456789abcdef"


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(environ)
    return caught.value.problems


def config_file(folder: Path, text: str) -> dict[str, str]:
    path = folder / "hikyaku.toml"
    path.write_text(text)
    return {"HIKYAKU_CONFIG": str(path)}


# --- defaults and what processes are told ---------------------------------------------------------


def test_defaults_are_those_of_the_processes() -> None:
    settings = load({}).settings
    assert settings == Settings()
    edge = edge_config(settings, 1)
    assert edge.broker.role == "edge"
    assert replace(edge, broker=replace(edge.broker, role="")) == EdgeConfig()
    told = worker_config(settings)
    assert told.archive.url == (settings.home_path / "objects").as_uri()
    assert told.files.url == (settings.home_path / "files").as_uri()
    assert told.files.spool == str(settings.home_path / "spool")
    homeless = replace(told, archive=replace(told.archive, url=""))
    homeless = replace(homeless, files=replace(told.files, url="", spool=""))
    assert (told.broker.role, told.store.role) == ("operator", "operator")
    nobody = replace(
        homeless,
        broker=replace(told.broker, role=""),
        store=replace(told.store, role=""),
    )
    assert nobody == WorkerConfig()


def test_every_setting_is_explained() -> None:
    for field in FIELDS.values():
        assert field.sentence.endswith("."), field.name
        assert field.expected, field.name


def test_an_edge_is_told_what_was_set() -> None:
    settings = load(
        {
            "HIKYAKU_EDGE_PORT": "9000",
            "HIKYAKU_EDGE_HOST": "0.0.0.0",
            "HIKYAKU_NATS_URL": "nats://a:4222, nats://b:4222",
            "HIKYAKU_ORIGINS": "https://chat.example.org,http://localhost:3000",
            "HIKYAKU_JWT_SECRET": SECRET,
            "HIKYAKU_JWT_AUDIENCE": "chat",
            "HIKYAKU_MESSAGES_PER_S": "2.5",
            "HIKYAKU_CONNECTIONS_PER_USER": "3",
            "HIKYAKU_STREAM_MAX_AGE_S": "3600",
            "HIKYAKU_REPLICAS": "3",
        }
    ).settings
    config = edge_config(settings, 2)
    assert (config.name, config.host, config.port) == ("edge-2", "0.0.0.0", 9001)
    assert config.broker.urls == ("nats://a:4222", "nats://b:4222")
    assert (config.broker.max_age_s, config.broker.replicas) == (3600, 3)
    assert config.origins == ("https://chat.example.org", "http://localhost:3000")
    assert (config.tokens.secret, config.tokens.audience) == (SECRET, "chat")
    assert config.tokens.public_key is None
    assert config.limits == Limits(messages_per_s=2.5, connections_per_user=3)
    assert edge_url(settings, 2) == "ws://127.0.0.1:9001/ws/chat"
    assert web_url(settings, 2) == "http://127.0.0.1:9001/"
    assert edge_url(replace(settings, edge_host="::"), 1) == "ws://[::1]:9000/ws/chat"


def test_a_worker_is_told_what_was_set() -> None:
    settings = load(
        {
            "HIKYAKU_MONGO_URL": "mongodb://db/?replicaSet=rs0",
            "HIKYAKU_MONGO_DATABASE": "chat",
            "HIKYAKU_GROUP_MEMBERS": "50",
            "HIKYAKU_SEARCH_URL": "https://search.example.org",
            "HIKYAKU_SEARCH_KEY": "a key",
            "HIKYAKU_SEARCH_DAYS": "90",
            "HIKYAKU_HOT_DAYS": "60",
            "HIKYAKU_SEARCH_LOCALES": "jpn, cmn",
        }
    ).settings
    config = worker_config(settings)
    assert config.store.url == "mongodb://db/?replicaSet=rs0"
    assert config.store.database == "chat"
    assert (config.search.url, config.search.key) == ("https://search.example.org", "a key")
    assert (config.search.days, config.search.locales) == (60, ("jpn", "cmn"))
    assert config.group_members == edge_config(settings, 1).limits.group_members == 50


@pytest.mark.parametrize(
    ("mode", "url_token", "accepted"),
    [
        ("development", "auto", True),
        ("production", "auto", False),
        ("production", "on", True),
        ("development", "off", False),
    ],
)
def test_url_tokens_follow_the_mode_unless_set(mode: str, url_token: str, accepted: bool) -> None:
    environ = {
        "HIKYAKU_MODE": mode,
        "HIKYAKU_URL_TOKEN": url_token,
        "HIKYAKU_JWT_SECRET": SECRET,
        "HIKYAKU_INTERNAL_SECRET": SECRET,
    }
    assert edge_config(load(environ).settings, 1).url_token is accepted


# --- where values come from -----------------------------------------------------------------------


def test_environment_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    environ = config_file(
        tmp_path, 'edge_port = 9000\nsite = "kyoto"\norigins = ["https://a.example"]\n'
    )
    loaded = load({**environ, "HIKYAKU_SITE": "osaka", "HIKYAKU_HOME": "", "PATH": "/bin"})
    assert (loaded.settings.edge_port, loaded.settings.site) == (9000, "osaka")
    assert loaded.settings.origins == ("https://a.example",)
    assert loaded.settings.home == ".hikyaku"
    assert loaded.sources["site"] == "environment"
    assert loaded.sources["edge_port"] == f"file {environ['HIKYAKU_CONFIG']}"
    assert loaded.sources["home"] == "default"


def test_names_for_the_tests_of_this_project_are_let_through() -> None:
    load({"HIKYAKU_TEST_ANYTHING": "x"})


def test_an_unknown_variable_is_refused_with_the_likely_name() -> None:
    assert problems({"HIKYAKU_EDGE_PROT": "1"}) == [
        "HIKYAKU_EDGE_PROT: there is no such setting; did you mean HIKYAKU_EDGE_PORT?"
        " (from the environment)"
    ]
    (problem,) = problems({"HIKYAKU_ZZZZZZZZ": "1"})
    assert "did you mean" not in problem


def test_an_unknown_key_is_refused_with_the_likely_name(tmp_path: Path) -> None:
    (problem,) = problems(config_file(tmp_path, "edge_prt = 1\n"))
    assert "did you mean edge_port?" in problem
    assert "hikyaku.toml" in problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('edge_port = "9000"\n', "expected a whole number from 1 to 65535 (from the file "),
        ("[edge]\nport = 1\n", "edge: there is no such setting"),
        ("edge_port = \n", "is not valid TOML"),
        ("mode = true\n", "expected development or production"),
        ("origins = [1]\n", "expected values separated by commas"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, text: str, expected: str) -> None:
    (problem,) = problems(config_file(tmp_path, text))
    assert expected in problem


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (problem,) = problems({"HIKYAKU_CONFIG": str(tmp_path / "none.toml")})
    assert "none.toml: No such file" in problem


# --- what is refused ------------------------------------------------------------------------------


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        {
            "HIKYAKU_EDGE_PORT": "99999",
            "HIKYAKU_MODE": "prod",
            "HIKYAKU_PING_INTERVAL_S": "nan",
            "HIKYAKU_SITE": "a.b",
            "HIKYAKU_CONTENT_BYTES": "100000",
        }
    )
    assert [each.partition(":")[0] for each in found] == [
        "HIKYAKU_EDGE_PORT",
        "HIKYAKU_MODE",
        "HIKYAKU_PING_INTERVAL_S",
        "HIKYAKU_SITE",
        "HIKYAKU_CONTENT_BYTES",
    ]
    assert found[0] == (
        "HIKYAKU_EDGE_PORT: '99999' does not fit: expected a whole number from 1 to 65535"
        " (from the environment)"
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        (
            {"HIKYAKU_MODE": "production", "HIKYAKU_INTERNAL_SECRET": SECRET},
            "HIKYAKU_JWT_SECRET: production needs a key",
        ),
        (
            {"HIKYAKU_MODE": "production", "HIKYAKU_JWT_SECRET": SECRET},
            "HIKYAKU_INTERNAL_SECRET: production needs it",
        ),
        ({"HIKYAKU_INTERNAL_SECRET": "short"}, "HIKYAKU_INTERNAL_SECRET: it is too short"),
        ({"HIKYAKU_FILES_URL": "/folder"}, "'/folder' does not fit: expected s3://bucket"),
        (
            {"HIKYAKU_FILES_URL": "s3://a/b", "HIKYAKU_OBJECTS_URL": "s3://a/b"},
            "files need a place of their own",
        ),
        ({"HIKYAKU_FILES_WORKER_URL": "files:8090"}, "expected http://host:port"),
        ({"HIKYAKU_CLAMD": "localhost:3310"}, "expected tcp://host:port or unix:///socket"),
        (
            {"HIKYAKU_FILES_QUOTA_BYTES": "1024"},
            "1024 is less than one file, HIKYAKU_FILE_BYTES=104857600",
        ),
        ({"HIKYAKU_FILES_PORT": "8081"}, "HIKYAKU_FILES_PORT: 8081 is already the port of edge 2"),
        ({"HIKYAKU_HOT_DAYS": "7"}, "HIKYAKU_HOT_DAYS: 7 days must be more than the log has"),
        ({"HIKYAKU_OBJECTS_URL": "/folder"}, "'/folder' does not fit: expected s3://bucket"),
        ({"HIKYAKU_OBJECTS_URL": "gs://x"}, "'gs://x' does not fit: expected s3://bucket"),
        ({"HIKYAKU_JWT_SECRET": "short"}, "HIKYAKU_JWT_SECRET: it is too short"),
        ({"HIKYAKU_JWT_PUBLIC_KEY": "/no/such.pem"}, "there is no file '/no/such.pem'"),
        ({"HIKYAKU_JWT_JWKS": "/no/such.json"}, "there is no file '/no/such.json'"),
        ({"HIKYAKU_JWT_JWKS": "ftp://host/x"}, "expected a file or an https URL"),
        (
            {
                "HIKYAKU_JWT_JWKS": "http://host/x",
                "HIKYAKU_MODE": "production",
                "HIKYAKU_INTERNAL_SECRET": SECRET,
            },
            "expected a file or an https URL",
        ),
        ({"HIKYAKU_EDGE_PORT": "65535"}, "2 edges from port 65535 on would need port 65536"),
        ({"HIKYAKU_NATS_PORT": "8081"}, "HIKYAKU_NATS_PORT: 8081 is already the port of edge 2"),
        (
            {"HIKYAKU_NATS_PORT": "4222", "HIKYAKU_MONGO_PORT": "4222"},
            "HIKYAKU_MONGO_PORT: 4222 is already HIKYAKU_NATS_PORT",
        ),
        ({"HIKYAKU_CONTENT_BYTES": "65537"}, "does not fit into a frame"),
        (
            {"HIKYAKU_FRAME_BYTES": "65536", "HIKYAKU_OUTBOX_BYTES": "65536"},
            "HIKYAKU_OUTBOX_BYTES: 65536 is less than two frames",
        ),
        ({"HIKYAKU_PONG_TIMEOUT_S": "30"}, "must be more than HIKYAKU_PING_INTERVAL_S=30"),
        ({"HIKYAKU_REPLICAS": "3"}, "3 copies need three servers"),
        ({"HIKYAKU_REPLICAS": "2"}, "expected 1 or 3"),
        ({"HIKYAKU_NATS_URL": "localhost:4222"}, "expected nats://host:port"),
        ({"HIKYAKU_MONGO_URL": "http://db"}, "expected mongodb://host:port/"),
        ({"HIKYAKU_SEARCH_LOCALES": "jpn, ja"}, "HIKYAKU_SEARCH_LOCALES: 'ja' is no language"),
        ({"HIKYAKU_ORIGINS": "chat.example.org"}, "'chat.example.org' does not fit"),
        ({"HIKYAKU_ORIGINS": "https://a.example/path"}, "does not fit"),
        ({"HIKYAKU_ORIGINS": "http://[broken"}, "does not fit"),
        ({"HIKYAKU_MONGO_DATABASE": "a$b"}, "HIKYAKU_MONGO_DATABASE: 'a$b' does not fit"),
        ({"HIKYAKU_URL_TOKEN": "yes"}, "expected auto or on or off"),
    ],
)
def test_what_does_not_fit_is_explained(environ: dict[str, str], expected: str) -> None:
    (problem,) = problems(environ)
    assert expected in problem


def test_a_check_is_left_out_when_a_setting_it_needs_is_already_wrong() -> None:
    assert len(problems({"HIKYAKU_EDGE_PORT": "x", "HIKYAKU_NATS_PORT": "8081"})) == 1


VARIABLES = [field.variable for field in FIELDS.values()]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@given(st.dictionaries(st.sampled_from(VARIABLES), TEXTS | st.integers().map(str), max_size=6))
def test_any_environment_is_accepted_or_explained(environ: dict[str, str]) -> None:
    try:
        loaded = load(environ)
    except SettingsError as error:
        found = error.problems
        assert found
        for problem in found:
            assert problem.startswith("HIKYAKU_")
            assert "(from the environment)" in problem or "(default)" in problem
    else:
        edge_config(loaded.settings, 1)
        worker_config(loaded.settings)


@given(st.integers(1, 60_000), st.integers(1, 64), st.floats(0.1, 29), st.integers(1, 65_536))
def test_numbers_are_read_as_written(port: int, edges: int, ping: float, content: int) -> None:
    settings = load(
        {
            "HIKYAKU_EDGE_PORT": str(port),
            "HIKYAKU_EDGES": str(edges),
            "HIKYAKU_PING_INTERVAL_S": repr(ping),
            "HIKYAKU_CONTENT_BYTES": str(content),
        }
    ).settings
    assert (settings.edge_port, settings.edges) == (port, edges)
    assert (settings.ping_interval_s, settings.content_bytes) == (ping, content)


ANY_TEXT = ("HIKYAKU_SEARCH_KEY", "HIKYAKU_NATS_PASSWORD", "HIKYAKU_MONGO_PASSWORD")
"""Secrets that may be any text, so that there is no message."""


@pytest.mark.parametrize(
    "variable", [f.variable for f in FIELDS.values() if f.secret and f.variable not in ANY_TEXT]
)
@pytest.mark.parametrize(
    "value",
    ["hunter2", "x://me:hunter2@h:1", "nats://me:hunter2/@h:x", "me:hunter2@h", "x?hunter2@"],
)
def test_a_secret_is_in_no_message(variable: str, value: str) -> None:
    found = problems({variable: value})
    if value != "hunter2" or variable == "HIKYAKU_JWT_SECRET":
        assert not any("hunter2" in problem for problem in found)


# --- the command line -----------------------------------------------------------------------------


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in list(os.environ):
        if name.startswith("HIKYAKU_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HIKYAKU_HOME", str(tmp_path / "home"))
    return monkeypatch


def test_check_shows_values_and_sources_and_no_secret(
    clean: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.setenv("HIKYAKU_JWT_SECRET", SECRET)
    clean.setenv("HIKYAKU_MONGO_URL", "mongodb://user:pass@db/?tlsCertificateKeyFilePassword=x")
    assert main(["check"]) == 0
    shown = capsys.readouterr().out
    assert SECRET not in shown
    assert "pass" not in shown
    assert "(32 bytes)" in shown
    assert "environment" in shown
    assert "The configuration is valid." in shown


def test_check_reports_all_problems_with_status_2(
    clean: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.setenv("HIKYAKU_EDGES", "0")
    clean.setenv("HIKYAKU_EGDES", "2")
    assert main(["check"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 2
    assert "did you mean HIKYAKU_EDGES?" in captured.err


def test_the_list_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    settings_show.explain()
    listed = capsys.readouterr().out
    assert all(field.variable in listed for field in FIELDS.values())


def test_a_token_is_made_with_the_secret_of_a_site_that_is_there(
    clean: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.setenv("HIKYAKU_JWT_ISSUER", "https://id.example")
    path = tmp_path / "home" / "secret"
    assert main(["token", "飛脚"]) == 2
    assert f"there is no site in HIKYAKU_HOME={path.parent}" in capsys.readouterr().err
    assert not path.parent.exists()
    development_secret(tmp_path / "home")
    assert main(["token", "飛脚", "--ttl-s", "60", "--vip"]) == 0
    token = capsys.readouterr().out.strip()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert development_secret(tmp_path / "home") == path.read_text().strip()
    assert list(path.parent.iterdir()) == [path]
    claims = jwt.decode(token, path.read_text().strip(), ["HS256"], issuer="https://id.example")
    assert (claims["sub"], claims["vip"]) == ("飛脚", True)
    assert claims["exp"] - claims["iat"] == 60


@pytest.mark.parametrize("user", ["", "a\nb", "x" * 65])
def test_token_refuses_what_is_no_user_id(
    clean: pytest.MonkeyPatch, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clean.setenv("HIKYAKU_JWT_SECRET", "x" * 32)
    assert main(["token", user]) == 2
    assert "cannot be a user id" in capsys.readouterr().err


def test_edges_and_workers_share_a_secret_of_the_home(tmp_path: Path) -> None:
    settings = load({"HIKYAKU_HOME": str(tmp_path / "home")}).settings
    shared = with_internal_secret(settings)
    assert len(shared.internal_secret) >= 32
    assert shared.internal_secret != with_development_secret(settings).jwt_secret
    assert with_internal_secret(settings) == shared
    assert edge_config(shared, 1).files.secret == worker_config(shared).files.secret
    assert edge_config(shared, 1).files.url == ""
    apart = replace(shared, files_host="::", files_port=8090)
    assert edge_config(apart, 1).files.url == "http://[::1]:8090"
    elsewhere = replace(apart, files_worker_url="http://files:80/")
    assert edge_config(elsewhere, 1).files.url == "http://files:80"


def test_without_a_shared_secret_no_token_is_made(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    settings = load({"HIKYAKU_JWT_PUBLIC_KEY": str(key), "HIKYAKU_HOME": str(tmp_path)}).settings
    assert with_development_secret(settings) is settings
    with pytest.raises(UserError, match="no secret to sign with"):
        make_token(settings, "alice")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["worker", "nobody"], "there is no worker 'nobody'; there are: directory"),
        (["edge", "--number", "0"], "--number: expected 1 to"),
    ],
)
def test_wrong_words_are_explained(
    clean: pytest.MonkeyPatch,
    words: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(words) == 2
    assert expected in capsys.readouterr().err


def test_the_help_lists_the_workers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["worker", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"one of {', '.join(WORKERS[:-1])} and {WORKERS[-1]}" in said


def test_a_reader_that_ends_is_no_error() -> None:
    command = [sys.executable, "-m", "deploy.cli", "capacity"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["restore", "/nowhere"], "there is no folder /nowhere"),
        (["backup", "/"], "is there already"),
        (["dead", "show"], "use `dead list`"),
        (["export", "--user", "u", "--to", "/"], "is there already"),
        (["erase", "--user", "u"], "this cannot be undone"),
    ],
)
def test_commands_beside_a_site_need_no_secret_of_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    """In a worker's container there is none."""
    monkeypatch.setenv("HIKYAKU_MODE", "production")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert main(words) == 2
    assert said in capsys.readouterr().err
