"""The client's HTTP: what it trusts, and what it says when that is not enough."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from client.errors import TransferStalled
from client.tokens import Tokens
from client.web import Moving, Web

pytestmark = pytest.mark.anyio


async def hello(_: web.Request) -> web.Response:
    return web.Response(text="hello")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def base(authority: trustme.CA) -> AsyncIterator[str]:
    """A server whose certificate is of our own authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "localhost", 0, ssl_context=context)
        await site.start()
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def ask(base: str, patience_s: float) -> str:
    async with Web(base, Tokens("token"), patience_s=patience_s) as client:

        async def attempt(_: Moving) -> str:
            async with client.request("GET", "/") as answer:
                return await answer.text()

        return await client.again(attempt)


async def test_an_authority_named_after_the_start_is_trusted(
    base: str, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted = tmp_path / "root.crt"
    authority.cert_pem.write_to_path(str(trusted))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    assert await ask(base, 60) == "hello"


async def test_a_server_that_is_not_trusted_is_said(base: str) -> None:
    with pytest.raises(TransferStalled, match="certificate verify failed"):
        await ask(base, 0.2)
