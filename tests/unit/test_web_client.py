"""The files of the web client, and how an edge serves them."""

import asyncio
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from edge.web_client import FOLDER, PAGE, SCRIPT, STYLE, WORKER, WebClient

pytestmark = pytest.mark.anyio

MAX_LINES = 500
MAX_BYTES = 150 * 1000
"""Of all that a page and its worker need, as it is sent."""

SCRIPTS = sorted(FOLDER.rglob("*.js"))
UNSAFE = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function")


def name(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


async def get(client: WebClient, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a GET."""
    target, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": "GET",
        "path": target,
        "query_string": query.encode(),
        "headers": [
            (key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()
        ],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    await Starlette(routes=client.routes)(scope, receive, send)
    found = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], found, b"".join(each.get("body", b"") for each in sent[1:])


@pytest.fixture
def client() -> WebClient:
    return WebClient(development=False)


def test_all_is_small(client: WebClient) -> None:
    wanted = [PAGE, WORKER, *client.needed]
    assert sum(client.sizes[each][1] for each in wanted) < MAX_BYTES
    assert not {
        name(path): lines
        for path in FOLDER.rglob("*.*")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }


async def test_a_page_is_five_answers_with_all_in_them(client: WebClient) -> None:
    _, _, page = await get(client, "/")
    named = set(re.findall(rf'="web/v-{client.version}/([^"]+)"', page.decode()))
    assert named == set(client.needed)
    assert named == {"first.js", "icon.svg", "manifest.json", SCRIPT, STYLE}
    _, _, script = await get(client, f"/web/{SCRIPT}")
    modules = {name(path) for path in SCRIPTS} - {"first.js", WORKER}
    assert set(re.findall(r"^// (\S+\.js)$", script.decode(), re.MULTILINE)) == modules
    _, _, style = await get(client, f"/web/{STYLE}")
    for path in FOLDER.glob("css/*.css"):
        assert name(path) == STYLE or path.read_bytes() in style


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_write_no_html_and_name_no_other_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not UNSAFE.search(text)
    addresses = set(re.findall(r"""https?://[\w.-]+""", text))
    assert addresses <= {"http://www.w3.org", "https://chat.example.org"}
    assert text.lstrip().startswith(("/**", "//", "const VERSION"))


def test_modules_import_what_is_there() -> None:
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"""(?:from|import)\s+'(\.[^']+)'""", text):
            assert (path.parent / target).resolve().is_file(), f"{name(path)}: {target}"


def words(language: str) -> dict[str, str]:
    """The keys of a language, with their texts as they stand there."""
    text = (FOLDER / f"lang/{language}.js").read_text(encoding="utf-8")
    found = re.findall(r"^  '?([\w.]+)'?: (.*),$", text, re.MULTILINE)
    keys = [key for key, _ in found]
    assert len(keys) == len(set(keys))
    return dict(found)


def test_languages_say_the_same_and_all_that_is_said() -> None:
    english, japanese = words("en"), words("ja")
    assert english.keys() == japanese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", japanese[key])), key
    said: set[str] = set()
    begun: set[str] = set()
    for path in SCRIPTS:
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"\bt\(((?:[^(),]|\([^()]*\))*)", text):
            said.update(re.findall(r"'([a-z][\w.]*)'", call))
            begun.update(re.findall(r"`([a-z][\w.]*\.)\$", call))
    said -= {"channel", "group", "system"}  # values that are compared, not said
    assert said <= english.keys()
    unsaid = {key for key in english.keys() - said if not key.startswith(tuple(begun))}
    assert unsaid <= {"chats", "conversation", "panel"}  # by name, in `views/screen.js`


async def test_files_are_kept_by_their_version(client: WebClient) -> None:
    status, headers, body = await get(client, "/")
    assert status == 200
    assert headers["cache-control"] == "no-cache"
    prefix = f"web/v-{client.version}/"
    addresses = re.findall(r'(?:src|href)="([^"]+)"', body.decode())
    assert addresses
    assert all(each.startswith(prefix) for each in addresses)
    for each in addresses:
        status, headers, body = await get(client, f"/{each}")
        assert status == 200, each
        assert "immutable" in headers["cache-control"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_another_version_is_answered_with_this_one_but_not_for_the_worker(
    client: WebClient,
) -> None:
    status, headers, _ = await get(client, "/web/v-0123abcd/app/main.js")
    assert (status, headers["cache-control"]) == (200, "no-cache")
    assert (await get(client, "/web/hikyaku.js"))[0] == 200
    assert (await get(client, "/web/v-0123abcd/app/main.js?v=0123abcd"))[0] == 404
    assert (await get(client, f"/?v={client.version}"))[0] == 200
    status, headers, _ = await get(client, "/web/../web_client.py")
    assert (status, headers["content-type"]) == (404, "text/plain; charset=utf-8")


async def test_what_one_has_is_not_sent_again_and_the_rest_is_compressed(client: WebClient) -> None:
    _, headers, plain = await get(client, "/web/hikyaku.js")
    status, again, body = await get(client, "/web/hikyaku.js", if_none_match=headers["etag"])
    assert (status, body, again["etag"]) == (304, b"", headers["etag"])
    _, packed, body = await get(client, "/web/hikyaku.js", accept_encoding="br, gzip")
    assert packed["content-encoding"] == "gzip"
    assert packed["vary"] == "Accept-Encoding"
    assert gzip.decompress(body) == plain
    assert len(body) < len(plain) / 2


async def test_the_worker_is_told_its_files(client: WebClient) -> None:
    _, headers, body = await get(client, "/web/sw.js")
    assert headers["service-worker-allowed"] == "/"
    first = body.decode().split("\n")[0]
    assert client.version in first
    files = json.loads(first[first.index("[") : first.index("]") + 1])
    assert files == client.needed
    answers = await asyncio.gather(
        *(get(client, f"/web/v-{client.version}/{each}?v={client.version}") for each in files)
    )
    assert {status for status, _, _ in answers} == {200}


async def test_the_page_knows_the_mode() -> None:
    _, _, production = await get(WebClient(development=False), "/")
    _, _, development = await get(WebClient(development=True), "/")
    assert b'name="hikyaku-mode" content="production"' in production
    assert b'name="hikyaku-mode" content="development"' in development
