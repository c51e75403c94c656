"""Reads the configured keys; what cannot be used is named with its setting."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from .provider import Unusable


def p256_key(path: str, setting: str) -> ec.EllipticCurvePrivateKey:
    """A P-256 private key in a PEM file. Raises `Unusable`."""
    try:
        key = load_pem_private_key(Path(path).read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Unusable(f"{setting}: {path}: {_reason(error)}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise Unusable(f"{setting}: {path}: the key must be P-256")
    return key


def point_of(key: ec.EllipticCurvePublicKey) -> bytes:
    """A public key as the 65 bytes of an uncompressed point."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


class ServiceAccount:
    """A service account's JSON file. Raises `Unusable`."""

    def __init__(self, path: str, setting: str):
        try:
            found: dict[str, Any] = json.loads(Path(path).read_bytes())
            self.project = str(found["project_id"])
            self.email = str(found["client_email"])
            self.key_id = str(found.get("private_key_id", ""))
            self.token_uri = str(found["token_uri"])
            key = load_pem_private_key(str(found["private_key"]).encode(), password=None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise Unusable(f"{setting}: {path}: {_reason(error)}") from None
        except KeyError as error:
            raise Unusable(f"{setting}: {path}: there is no {error} in it") from None
        if not isinstance(key, rsa.RSAPrivateKey):
            raise Unusable(f"{setting}: {path}: the key must be RSA")
        self.key = key


def encoded(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text: str) -> bytes:
    """What base64url stands for, padded or not. Raises `ValueError`."""
    bare = text.rstrip("=")
    data = urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    if encoded(data) != bare:
        raise ValueError("is not base64url")
    return data


def _reason(error: Exception) -> str:
    """Without the file's content, which is secret."""
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    return "it is not JSON" if isinstance(error, json.JSONDecodeError) else "it is no such key"
