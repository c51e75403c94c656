"""`hikyaku init`: fresh secrets, written once, readable by their owner only."""

import stat
from pathlib import Path

import pytest

from deploy.cli import main
from deploy.init import write


def values(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def test_secrets_are_long_different_and_begin_with_a_letter(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write(first)
    write(second)
    made = values(first)
    assert made.pop("HIKYAKU_CERTIFICATES") == "./certificates"
    assert len(made) == 19
    assert not set(made.values()) & set(values(second).values())
    assert len(set(made.values())) == len(made)
    for name, value in made.items():
        assert value.isalnum(), name
        assert value[0].isalpha(), name
        assert len(value) >= (16 if name == "HIKYAKU_S3_KEY_ID" else 64), name
    assert stat.S_IMODE(first.stat().st_mode) == 0o600


def test_certificates_are_for_containers_and_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / ".env")
    folder = tmp_path / "certificates"
    found = {
        str(each.relative_to(folder)): stat.S_IMODE(each.stat().st_mode)
        for each in (folder, *folder.rglob("*"))
    }
    assert found == {
        ".": 0o700,
        "ca.key": 0o600,
        **dict.fromkeys(("mongo", "nats", "public"), 0o755),
        **dict.fromkeys(("mongo/ca.pem", "nats/ca.pem", "public/ca.pem"), 0o644),
        **dict.fromkeys(("mongo/server.pem", "nats/server.pem"), 0o644),
    }
    assert main(["certificates", str(folder), "--name", "bücher"]) == 2
    assert "no name of a server" in capsys.readouterr().err
    (folder / "ca.key").write_text("nonsense")
    assert main(["certificates", str(folder)]) == 2
    assert "is no authority's key" in capsys.readouterr().err


def test_a_file_that_is_there_is_left_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".env"
    assert main(["init", str(path)]) == 0
    before = path.read_text()
    capsys.readouterr()
    assert main(["init", str(path)]) == 2
    said = capsys.readouterr().err
    assert str(path) in said
    assert "hikyaku init --add" in said
    assert path.read_text() == before


def test_adding_gives_only_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / ".env"
    path.write_text("HIKYAKU_JWT_SECRET=\n# HIKYAKU_EDGE_PASSWORD=old\nHIKYAKU_MONGO_KEY=kept\n")
    assert main(["init", "--add", str(path)]) == 0
    assert "HIKYAKU_EDGE_PASSWORD" in capsys.readouterr().out
    added = values(path)
    assert added["HIKYAKU_JWT_SECRET"] == ""  # empty by the operator's will: it has another key
    assert added["HIKYAKU_MONGO_KEY"] == "kept"
    assert added["HIKYAKU_EDGE_PASSWORD"] not in ("", "old")
    authority = tmp_path / "certificates" / "ca.key"
    before, key = path.read_text(), authority.read_bytes()
    assert main(["init", "--add", str(path)]) == 0
    assert path.read_text() == before
    assert authority.read_bytes() == key
    assert main(["init", "--add", str(tmp_path / "nothing")]) == 2
    assert "there is no" in capsys.readouterr().err


def test_domain_and_cluster_are_written(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    write(path, domain="chat.example.org", cluster=True)
    assert values(path)["HIKYAKU_DOMAIN"] == "chat.example.org"
    assert values(path)["COMPOSE_FILE"] == "compose.yaml:compose.cluster.yaml"
    both = tmp_path / "both"
    write(both, site="tokyo", cluster=True, linked=True)
    files = "compose.yaml:compose.cluster.yaml:compose.federation.yaml"
    assert values(both)["COMPOSE_FILE"] == files
    assert values(both)["HIKYAKU_SITE"] == "tokyo"


@pytest.mark.parametrize(
    "domain", ["http://foo bar", "https://foo", "foo:8443", "a..b", "-a.b", "a_b", "a" * 64, "a\nb"]
)
def test_what_is_no_name_of_a_host_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], domain: str
) -> None:
    path = tmp_path / "x.env"
    assert main(["init", f"--domain={domain}", str(path)]) == 2
    assert "is no name of a host" in capsys.readouterr().err
    assert not path.exists()


def test_a_folder_that_is_not_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", str(tmp_path / "none" / ".env")]) == 2
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
