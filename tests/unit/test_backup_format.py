"""What is taken for a backup, and what is not: every file that differs is named."""

from pathlib import Path

import msgspec
import pytest

from broker.log import parse_ancestors
from broker.renewal import KEPT_ANCESTORS, STEP, ancestors_of, jump_to
from deploy.backup_format import (
    FORMAT,
    CollectionPart,
    Damaged,
    LogPart,
    Manifest,
    ObjectLine,
    ObjectsPart,
    StreamPart,
    Writing,
    object_path,
    publish,
    read_manifest,
    verify,
    write_manifest,
)
from deploy.errors import UserError
from edge.cursor import Cursor, in_log


def made(part: Path) -> Manifest:
    """A small backup."""

    def written(path: str, data: bytes) -> Writing:
        file = Writing(part, path)
        file.write(data)
        return file

    picture = written("objects/files/ab/cd", b"picture").close()
    line = ObjectLine(key="ab/cd", size=picture.size, sha256=picture.sha256)
    return Manifest(
        format=FORMAT,
        version="0",
        site="local",
        layout=1,
        layout_least=1,
        created_ms=1,
        finished_ms=2,
        log=LogPart(epoch="e", first_seq=1, last_seq=9, persisted_seq=8),
        streams=[
            StreamPart(file=written("streams/CHAT.snapshot", b"log").close(), config={}, state={})
        ],
        collections=[
            CollectionPart(
                name="messages",
                file=written("database/messages.bson", b"messages").close(),
                documents=1,
                indexes=[],
            )
        ],
        objects=[
            ObjectsPart(
                store="files",
                index=written("objects/files.jsonl", msgspec.json.encode(line) + b"\n").close(),
                objects=1,
                bytes=7,
                missing=0,
            )
        ],
    )


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    part, folder = tmp_path / ".b.part", tmp_path / "b"
    part.mkdir()
    write_manifest(part, made(part))
    publish(part, folder)
    return folder


def test_a_whole_one(backup: Path) -> None:
    manifest = read_manifest(backup)
    verify(backup, manifest)
    assert manifest.size == 3 + 8 + 7 + (backup / "objects/files.jsonl").stat().st_size


@pytest.mark.parametrize(
    "path", ["streams/CHAT.snapshot", "database/messages.bson", "objects/files/ab/cd"]
)
@pytest.mark.parametrize("damage", ["changed", "short", "missing"])
def test_a_file_that_differs_is_named(backup: Path, path: str, damage: str) -> None:
    file = backup / path
    data = file.read_bytes()
    match damage:
        case "changed":
            file.write_bytes(b"x" + data[1:])
        case "short":
            file.write_bytes(data[:-1])
        case _:
            file.unlink()
    with pytest.raises(Damaged, match=f"{path} is "):
        verify(backup, read_manifest(backup))


def test_an_index_that_lacks_an_object(backup: Path) -> None:
    manifest = read_manifest(backup)
    (part,) = manifest.objects
    more = msgspec.structs.replace(part, objects=2)
    with pytest.raises(Damaged, match="lists 1 objects, not 2"):
        verify(backup, msgspec.structs.replace(manifest, objects=[more]))


def test_a_changed_manifest(backup: Path) -> None:
    text = (backup / "manifest.json").read_text()
    (backup / "manifest.json").write_text(text.replace('"last_seq": 9', '"last_seq": 8'))
    with pytest.raises(Damaged, match=r"manifest\.json is damaged"):
        read_manifest(backup)


def test_what_was_not_finished_is_none(tmp_path: Path) -> None:
    part = tmp_path / ".b.part"
    part.mkdir()
    made(part)
    with pytest.raises(UserError, match="it was not finished"):
        read_manifest(part)
    with pytest.raises(UserError, match="there is no folder"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not a backup"):
        read_manifest(tmp_path)


def test_another_format(tmp_path: Path) -> None:
    part = tmp_path / "b"
    part.mkdir()
    write_manifest(part, msgspec.structs.replace(made(part), format=FORMAT + 1))
    with pytest.raises(UserError, match=f"has format {FORMAT + 1}"):
        read_manifest(part)


@pytest.mark.parametrize("key", ["/etc/passwd", "../x", "a/../../b", ""])
def test_no_key_leads_out_of_the_folder(key: str) -> None:
    with pytest.raises(Damaged):
        object_path("files", key)


# --- the restored log ---


def test_it_goes_on_above_all_that_can_have_been_given() -> None:
    assert jump_to(10, 0) == 10 + STEP
    assert jump_to(10, 3600) == 10 + STEP + 360_000_000
    assert jump_to(10, -5) == 10 + STEP


def test_it_names_the_logs_that_it_goes_on_from() -> None:
    first = ancestors_of({"epoch": "a"}, 7)
    assert first == "a:7"
    second = ancestors_of({"epoch": "b", "ancestors": first}, 99)
    assert parse_ancestors(second) == {"b": 99, "a": 7}
    assert parse_ancestors("") == {}
    metadata = {"epoch": "z", "ancestors": " ".join(f"e{n}:{n}" for n in range(20))}
    assert len(parse_ancestors(ancestors_of(metadata, 100))) == KEPT_ANCESTORS


def test_a_cursor_up_to_the_backup_is_one_of_the_restored_log() -> None:
    ancestors = {"old": 7}
    assert in_log(None, "new", ancestors) is None
    assert in_log(Cursor("new", 900), "new", ancestors) == Cursor("new", 900)
    assert in_log(Cursor("old", 7), "new", ancestors) == Cursor("new", 7)
    assert in_log(Cursor("old", 0), "new", ancestors) == Cursor("new", 0)
    assert in_log(Cursor("old", 8), "new", ancestors) is None
    assert in_log(Cursor("other", 1), "new", ancestors) is None
