"""Keys, tokens signed with them, and a real HTTP server with a key set."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()
KEYS: dict[str, Any] = {"RS256": RSA, "ES256": EC, "EdDSA": ED}


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "alice", "exp": time.time() + 600, **more}


def signed(key: Any, algorithm: str, /, kid: str | None = None, **more: Any) -> str:
    headers = {} if kid is None else {"kid": kid}
    return jwt.encode(claims(**more), key, algorithm=algorithm, headers=headers)


def pem(key: Any) -> bytes:
    data: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return data


def jwk(key: Any, kid: str | None = None, **more: Any) -> dict[str, Any]:
    made: dict[str, Any]
    if isinstance(key, rsa.RSAPrivateKey):
        made = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        made = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    else:
        made = json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key()))
    made.pop("key_ops", None)
    return {**made, **({} if kid is None else {"kid": kid}), **more}


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


class KeyServer:
    """A real HTTP server with a key set; `hold` makes it wait, `answer` says what it sends."""

    def __init__(self) -> None:
        self.answer: Callable[[BaseHTTPRequestHandler], None] = lambda _: None
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                outer.may_answer.wait(10)
                outer.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys.json"

    def serve(self, *keys: Any) -> None:
        body = key_set(*keys)

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        self.answer = answer

    def serve_raw(self, data: bytes) -> None:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.wfile.write(data)

        self.answer = answer


@contextmanager
def running(server: KeyServer) -> Iterator[None]:
    thread = threading.Thread(target=server.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.may_answer.set()
        server.server.shutdown()
        server.server.server_close()
        thread.join()
