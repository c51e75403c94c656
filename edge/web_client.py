"""The web client of `docs/web.md`: the files under `edge/web`, read once, at `/` and `/web/`.

Everything is held in memory, plain and compressed; nothing comes from elsewhere. The page's modules
are joined to one script and its style sheets to one; each is there alone, too, for other pages. The
page names its files below `/web/v-<digest>/`: browsers keep them until they change, and never mix
two versions.
"""

import gzip
import hashlib
import json
import re
from pathlib import Path
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from .web_join import script, style

FOLDER = Path(__file__).parent / "web"
PAGE = "index.html"
SCRIPT = "app/main.js"
STYLE = "css/page.css"
WORKER = "sw.js"
ICON = "icon.svg"
SHARED = ("hikyaku.js", "hikyaku/")
"""The protocol part, which pages of other origins may import."""

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/manifest+json; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
COMPRESSED = (".css", ".html", ".js", ".json", ".svg")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "worker-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types hikyaku",
    )
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept-Encoding",
}
PAGE_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""For what can be a page or a worker. On scripts and styles browsers do not read them, and there
are so many of those that the lines would weigh as much as a third of what they hold."""
ASK_AGAIN = {"Cache-Control": "no-cache"}
KEEP = {"Cache-Control": "public, max-age=31536000, immutable"}

_OTHER = re.compile(r"^v-[0-9a-f]+/")


class File(NamedTuple):
    """One file as it is sent."""

    body: bytes
    compressed: bytes | None
    etag: str
    headers: dict[str, str]


class WebClient:
    """The files, and the routes that serve them."""

    def __init__(self, *, development: bool, folder: Path = FOLDER):
        bodies = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.suffix in TYPES
        }
        if development:
            page = bodies[PAGE]
            bodies[PAGE] = page.replace(b'content="production"', b'content="development"')
        self.version = _digest(b"\0".join(bodies.values()))
        self._prefix = f"v-{self.version}/"
        parts = _join(bodies)
        bodies[PAGE] = bodies[PAGE].replace(b'="web/', f'="web/{self._prefix}'.encode())
        self.needed = [name for name in bodies if name not in {PAGE, WORKER, *parts}]
        head = f'const VERSION = "{self.version}", FILES = {json.dumps(self.needed)};\n'
        bodies[WORKER] = head.encode() + bodies[WORKER]
        self._files = {name: _file(name, body) for name, body in bodies.items()}
        self.routes = [
            Route("/", self._page, methods=["GET"]),
            Route("/favicon.ico", self._icon, methods=["GET"]),
            Route("/web/{name:path}", self._named, methods=["GET"]),
        ]

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """Bytes of each file: as it is, and as it is sent."""
        return {
            name: (len(file.body), len(file.compressed or file.body))
            for name, file in self._files.items()
        }

    async def _page(self, request: Request) -> Response:
        return self._answer(PAGE, request, ASK_AGAIN)

    async def _icon(self, request: Request) -> Response:
        """Browsers ask for it on their own where no page names one."""
        return self._answer(ICON, request, ASK_AGAIN)

    async def _named(self, request: Request) -> Response:
        name: str = request.path_params["name"]
        if name.startswith(self._prefix):
            return self._answer(name.removeprefix(self._prefix), request, KEEP)
        # Another version is wanted while edges are being replaced: better this one than none.
        return self._answer(_OTHER.sub("", name), request, ASK_AGAIN)

    def _answer(self, name: str, request: Request, caching: dict[str, str]) -> Response:
        file = self._files.get(name)
        # A worker that installs asks for its own version, since it keeps what it gets.
        if file is None or request.query_params.get("v", self.version) != self.version:
            return PlainTextResponse("there is no such file\n", 404, {**PAGE_HEADERS, **ASK_AGAIN})
        headers = {**file.headers, **caching, "ETag": file.etag}
        if file.etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        body = file.body
        if file.compressed is not None and "gzip" in request.headers.get("accept-encoding", ""):
            body = file.compressed
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)


def _join(bodies: dict[str, bytes]) -> set[str]:
    """Put into the page's script and style sheet all that they import; returns what that was."""
    texts = {name: body.decode() for name, body in bodies.items() if name.endswith((".js", ".css"))}
    parts: set[str] = set()
    for join, entry in ((script, SCRIPT), (style, STYLE)):
        joined, names = join(texts, entry)
        bodies[entry] = joined.encode()
        parts.update(names)
    return parts - {SCRIPT, STYLE}


def _file(name: str, body: bytes) -> File:
    suffix = Path(name).suffix
    alone = name == WORKER or suffix in (".html", ".svg")
    headers = {**(PAGE_HEADERS if alone else HEADERS), "Content-Type": TYPES[suffix]}
    if name.startswith(SHARED):
        headers["Access-Control-Allow-Origin"] = "*"
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    else:
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
    if name == WORKER:
        headers["Service-Worker-Allowed"] = "/"
    compressed = gzip.compress(body, 9, mtime=0) if suffix in COMPRESSED else None
    return File(body, compressed, f'"{_digest(body)}"', headers)


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:24]
