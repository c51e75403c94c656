"""What needs a Docker engine with the images: skipped, with the reason, where there is none."""

from functools import cache
from pathlib import Path

import pytest

from tests.container_process import missing

from .compose import command

HERE = Path(__file__).parent


@cache
def why_not() -> str:
    return missing() or ("" if command() else "there is neither docker compose nor docker-compose")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if HERE in item.path.parents]
    if mine and why_not():
        for item in mine:
            item.add_marker(pytest.mark.skip(reason=why_not()))
