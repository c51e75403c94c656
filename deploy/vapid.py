"""The key that signs Web Push in development: made once, in the home of the local stack."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from msgspec.structs import replace

from .settings import Settings

SUBJECT = "mailto:nobody@example.com"


def with_development_vapid(settings: Settings) -> Settings:
    """In development, when no key is set, that of the home (made if need be) signs Web Push."""
    if settings.vapid_key or settings.mode != "development":
        return settings
    subject = settings.vapid_subject or SUBJECT
    return replace(settings, vapid_key=str(_key(settings.home_path)), vapid_subject=subject)


def _key(home: Path) -> Path:
    path = home / "vapid.pem"
    if path.is_file():
        return path
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fd, fresh = tempfile.mkstemp(dir=home, prefix="vapid.")  # readable by its owner only
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(text)
        with suppress(FileExistsError):  # another process was faster: its key counts
            os.link(fresh, path)
    finally:
        os.unlink(fresh)
    return path
