"""What most tests of linked sites begin with; those that need another company make their own."""

from collections.abc import AsyncIterator

import pytest

from tests.offices import Company


@pytest.fixture(scope="module")
async def company(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Company]:
    """Two linked sites, shared by the tests of a module; use user ids of your own."""
    company = Company(tmp_path_factory.mktemp("company"), ["tokyo", "osaka"])
    async with company.running():
        yield company
