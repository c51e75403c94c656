"""What is read from the log of a child process."""

import asyncio
import sys
from pathlib import Path

from deploy.process import Child

CODE = """
import json
print(json.dumps({"t": {}, "s": "F", "msg": "Failed", "attr": {"error": "disk full"}}))
print("12:00 WARNING hikyaku.worker: waiting for NATS: it is away")
print(json.dumps({"level": "warning", "message": "waiting for the log: it is old"}))
print(json.dumps({"t": {}, "s": "I", "msg": "Going down", "attr": {"x": 1}}))
print("{no json")
"""


def test_of_objects_of_json_the_messages_are_read(tmp_path: Path) -> None:
    async def test() -> None:
        child = await Child.start((sys.executable, "-c", CODE), tmp_path / "log", env={})
        assert await child.wait() == 0
        assert child.waits() == "waiting for the log: it is old"
        assert child.last_lines(2) == ["Going down", "{no json"]
        assert child.last_lines(9)[0] == "Failed: disk full"

    asyncio.run(test())
