"""Compares the files of the archive with the manifest, and makes a lost manifest anew."""

from collections.abc import AsyncIterator
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from .archive_files import Files, Place
from .archive_lease import Lease
from .archive_manifest import Entry, Listed, Manifest, Part, copy_key, parts_of
from .archive_objects import Objects
from .archive_rows import Group, Packed
from .archive_writer import PREFIX, problems_of
from .database import Database


class Problem(NamedTuple):
    """Something wrong with an object."""

    key: str
    what: str


class Check:
    """Reads everything, changes nothing but in `rebuild`. Raises `StoreUnavailable`."""

    def __init__(self, database: Database, objects: Objects):
        self._database = database
        self._objects = objects
        self._manifest = Manifest(database)
        self._files = Files(objects)
        self.files = 0
        self.rows = 0

    async def problems(self) -> AsyncIterator[Problem]:
        """Everything that is wrong, file by file, then what no file of the manifest needs."""
        async for entry in self._manifest.entries():
            self.files += 1
            self.rows += entry.rows
            found = await problems_of(self._objects, entry)
            if not found:
                found = await self._problems_of_parts(entry)
            if found and await self._manifest.present([entry.key]):
                for what in found:
                    yield Problem(entry.key, what)
        async for key in self._objects.list(PREFIX):
            if not await self._manifest.knows(key):
                yield Problem(key, "the manifest does not know it")

    async def _problems_of_parts(self, entry: Entry) -> list[str]:
        listed = sorted(await self._manifest.whole_parts(entry.key), key=_chat)
        return [] if listed == await self._parts(entry) else ["what is listed of its chats differs"]

    async def _parts(self, entry: Entry) -> list[Part]:
        place = Place(entry.key, entry.size, entry.footer)
        groups = [Group(each) async for each in self._files.groups(place)]
        packed = Packed(b"", entry.footer, groups)
        return sorted((replace(p, size=entry.size) for p in parts_of(entry.key, packed)), key=_chat)

    async def rebuild(self) -> int:
        """List again the files that the manifest has lost, from the copies beside them.

        What one file was put in the place of stays out. The messages may be in MongoDB too, where
        that was restored from a backup: the next run sorts that out.
        """
        async with Lease(self._database) as lease:
            copies = [key async for key in self._objects.list(PREFIX) if _is_copy(key)]
            entries = [
                (await self._listed(key)).entry
                for key in copies
                if not await self._manifest.knows(key)
            ]
            restored = 0
            taken: set[str] = set()
            for entry in sorted(entries, key=lambda each: -each.created_at):
                replaced = set(entry.replaces)
                known = await self._manifest.replaced_by(entry.key)
                if entry.key not in taken and not known and taken.isdisjoint(replaced):
                    listed = await self._listed(copy_key(entry.key))
                    found = replace(listed, entry=replace(entry, hot=True))
                    await self._manifest.commit(found, None, lease.owner)
                    restored += 1
                taken |= replaced
            return restored

    async def _listed(self, key: str) -> Listed:
        return msgspec.json.decode(await self._objects.get(key), type=Listed)


def _is_copy(key: str) -> bool:
    return key.endswith(copy_key(""))


def _chat(part: Part) -> str:
    return part.chat
