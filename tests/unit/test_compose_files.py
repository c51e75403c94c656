"""What `compose.yaml` and its parts say, without an engine: confined, and no unknown name."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.init import write
from deploy.nats_accounts import of_containers
from deploy.settings_load import CONFIG, FIELDS
from workers.main import WORKERS

ROOT = Path(__file__).parents[2]
FILES = ("compose.yaml", "compose.cluster.yaml")
LINKED = "compose.federation.yaml"
ONE_SHOTS = {"volumes", "mongo-init", "tool"}
PROFILES = {"monitoring", "turn", "objects", "tool"}
PUBLISHING = {"proxy", "grafana", "turn"}
EDGES = {"edge-1", "edge-2"}


def services(file: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / file).read_text())["services"]
    return found


BASE = services(FILES[0])
ADDED = {name: each for name, each in services(FILES[1]).items() if "image" in each}


@pytest.mark.parametrize("name", [*BASE, *ADDED])
def test_every_service_is_confined(name: str) -> None:
    each = {**BASE, **ADDED}[name]
    assert each["user"] == "10001:10001"
    assert each["read_only"] is True
    assert each["cap_drop"] == ["ALL"]
    assert each.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "proxy" else [])
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert not each.get("privileged")
    assert each["logging"]["options"].keys() == {"max-size", "max-file"}
    assert ("ports" in each) == (name in PUBLISHING)
    if name in ONE_SHOTS:
        assert each["restart"] == "no"
    else:
        assert each["restart"] == "unless-stopped"
        assert each["mem_limit"].startswith("${HIKYAKU_")
        assert "healthcheck" in each or name == "turn"
    assert not any("docker.sock" in str(volume) for volume in each.get("volumes", []))


def test_every_worker_has_a_service_in_both_files() -> None:
    assert set(WORKERS) <= BASE.keys()
    for worker in (*WORKERS, "tool"):
        if worker != "tool":
            assert BASE[worker]["command"] == ["worker", worker]
        changed = services(FILES[1])[worker]["environment"]
        assert changed["HIKYAKU_REPLICAS"] == "3"
        assert "mongo-3:27017" in changed["HIKYAKU_MONGO_URL"]
        assert "nats-3:4222" in changed["HIKYAKU_NATS_URL"]


def test_profiles_are_those_of_the_documentation() -> None:
    found = {profile for each in BASE.values() for profile in each.get("profiles", [])}
    assert found == PROFILES
    text = (ROOT / "docs" / "compose.md").read_text()
    assert not [profile for profile in PROFILES if f"`{profile}`" not in text]


@pytest.mark.parametrize("file", [*FILES, LINKED])
def test_containers_are_told_nothing_that_is_no_setting(file: str) -> None:
    known = {field.variable for field in FIELDS.values()} | {CONFIG}
    for name, each in services(file).items():
        if name == "proxy":  # its names are those of its Caddyfile
            continue
        given = {key for key in each.get("environment", {}) if key.startswith("HIKYAKU_")}
        assert given <= known, name


def test_only_edges_and_the_operator_have_the_secret_of_tokens() -> None:
    holders = {name for name, each in BASE.items() if "JWT_SECRET" in str(each)}
    assert holders == EDGES | {"tool"}


def test_the_accounts_of_containers_are_those_of_the_table() -> None:
    written = (ROOT / "deploy" / "nats" / "accounts.conf").read_text()
    assert written == of_containers(), "run `python -m deploy.nats_accounts`"
    for environment in (
        BASE["nats"]["environment"],
        services(FILES[1])["nats"]["environment"],
    ):
        assert set(re.findall(r"\$(NATS_\w+_PASSWORD)", written)) <= environment.keys()


def test_every_process_has_the_password_of_its_role_alone() -> None:
    for name in (*WORKERS, "edge-1", "edge-2"):
        role = "edge" if name in EDGES else name
        environment = BASE[name]["environment"]
        found = set(re.findall(r"\$\{HIKYAKU_(\w+)_PASSWORD", str(environment)))
        assert found == {role.upper()}, name
        assert ("HIKYAKU_NATS_PASSWORD" in environment) == (name != "archive")
        assert any("HIKYAKU_MONGO" in key for key in environment) == (name not in EDGES)


def test_servers_speak_tls_only_and_have_no_key_but_their_own() -> None:
    for name, each in {**BASE, **ADDED}.items():
        kind = name.split("-")[0] if name != "mongo-init" else name
        folders = re.findall(r"CERTIFICATES[^}]*\}/(\w+):/certificates:ro", str(each))
        own = {"nats": ["nats"], "mongo": ["mongo"]}.get(kind, ["public"])
        ours = kind in (*WORKERS, "edge", "tool", "mongo-init", "nats", "mongo")
        assert folders == (own if ours else []), name
        if kind == "mongo":
            assert "--tlsMode requireTLS" in str(each["command"])
    for service in (*BASE.values(), *services(FILES[1]).values()):
        for key, value in service.get("environment", {}).items():
            assert key != "HIKYAKU_NATS_URL" or set(re.findall(r"(\w+)://", value)) == {"tls"}


@pytest.mark.parametrize("file", [*FILES, LINKED])
def test_every_variable_is_explained(file: str) -> None:
    text = (ROOT / "docs" / "compose.md").read_text()
    used = set(re.findall(r"\$\{(\w+)", (ROOT / file).read_text()))
    assert len(used) > 1
    assert not [name for name in sorted(used) if f"`{name}`" not in text]


def test_every_secret_is_required_and_made_by_init(tmp_path: Path) -> None:
    text = "".join((ROOT / file).read_text() for file in FILES)
    required = set(re.findall(r"\$\{(\w+):?\?", text))
    made = set(write(tmp_path / ".env"))
    assert required == made
    for name in required:
        for found in re.findall(rf"\$\{{{name}\b([^}}]*)}}", text):
            # Once said is enough: all of a file is read before anything starts.
            wanted = ("", f"?{name} is missing, see hikyaku init --add")
            assert found.lstrip(":") in wanted, name


def test_images_are_pinned_and_can_be_changed() -> None:
    for name, each in {**BASE, **ADDED}.items():
        found = re.fullmatch(r"\$\{HIKYAKU_(\w+_)?IMAGE:-[\w./-]+:(.+)\}", each["image"])
        assert found, name
        assert found[2] != "latest", name


def test_new_volumes_get_their_owner_from_the_image() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    for file, made in ((FILES[0], BASE), (FILES[1], services(FILES[1]))):
        named = yaml.safe_load((ROOT / file).read_text())["volumes"]
        mounted = {volume.split(":")[0] for volume in made["volumes"]["volumes"]}
        assert mounted == set(named)
        assert not [name for name in named if not re.search(rf"in [^;]*\b{name}\b", dockerfile)]
