"""The site's own authority, and the certificates of its NATS and MongoDB servers and of its links.

A folder beside `.env`, which only its owner may enter:

ca.key         the authority's key; stays here
public/ca.pem  its certificate, for those who connect
nats, mongo    for each server `ca.pem` and `server.pem`, its certificate and key in one file

Containers run as another user than whoever made the folder. So what they are given is readable by
all, and the folder around it by nobody else.
"""

import ipaddress
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from .errors import UserError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
AUTHORITY, SERVER = "ca.pem", "server.pem"
SERVERS = {
    "nats": ("nats", "nats-2", "nats-3"),
    "mongo": ("mongo", "mongo-2", "mongo-3"),
}
"""The names under which the servers of `compose.yaml` are found."""

LOCAL = ("localhost", "127.0.0.1")


def write(folder: Path, *, names: Iterable[str] = (), days: int = SERVER_DAYS) -> datetime:
    """Make new certificates for the servers, and the authority if there is none; until when.

    `names` are names and addresses of servers besides those of `compose.yaml`. Raises `UserError`.
    """
    for name in names:
        _general(name)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key, authority = _authority(folder)
        pem = authority.public_bytes(serialization.Encoding.PEM)
        _put(folder / "public" / AUTHORITY, pem, 0o644)
        until = datetime.now(UTC) + timedelta(days=days)
        for server, own in SERVERS.items():
            _put(folder / server / AUTHORITY, pem, 0o644)
            certificate = _certificate((*own, *LOCAL, *names), until, key, authority)
            _put(folder / server / SERVER, certificate, 0o644)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from None
    return until


def write_link(folder: Path, names: Iterable[str]) -> None:
    """Make the certificate of a site's end of its links, and the authority if there is none.

    All in one folder that nobody else may read. It is good as long as the authority, whose
    certificate the linked sites have; `names` are what they find this end by. Raises `UserError`.
    """
    try:
        key, authority = _authority(folder)
        pem = authority.public_bytes(serialization.Encoding.PEM)
        _put(folder / AUTHORITY, pem, 0o600)
        until = authority.not_valid_after_utc
        certificate = _certificate((*names, *LOCAL), until, key, authority)
        _put(folder / SERVER, certificate, 0o600)
    except OSError as error:
        raise UserError(f"{error.filename} cannot be written: {error.strerror}") from None


def _authority(folder: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    path = folder / "ca.key"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _authority_certificate(key)
        _put(path, _private(key) + certificate.public_bytes(serialization.Encoding.PEM), 0o600)
        return key, certificate
    try:
        held = path.read_bytes()
        found = serialization.load_pem_private_key(held, None)
        certificate = x509.load_pem_x509_certificate(held)
    except ValueError as error:
        raise UserError(f"{path} is no authority's key and certificate: {error}") from None
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise UserError(f"{path} is a key of another kind than is made here")
    return found, certificate


def _authority_certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Hikyaku, servers of one site")])
    usage = _usage(key_cert_sign=True, crl_sign=True)
    return (
        _begun(name, name, key, datetime.now(UTC) + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    names: Iterable[str],
    until: datetime,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
) -> bytes:
    own = ec.generate_private_key(ec.SECP256R1())
    general = list(dict.fromkeys(_general(name) for name in names))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(general[0].value))])
    # Servers of a cluster are clients of each other.
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    made = (
        _begun(subject, authority.subject, own, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(general), critical=False)
        .add_extension(issuer, critical=False)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM) + _private(own)


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of machines differ a little; and tests make certificates that have expired.
        .not_valid_before(min(datetime.now(UTC), until) - timedelta(hours=1))
        .not_valid_after(until)
    )


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _general(name: str) -> x509.DNSName | x509.IPAddress:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError:
        raise UserError(f"{name!r} is no name of a server: write it in ASCII") from None


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _put(path: Path, content: bytes, mode: int) -> None:
    """As a whole or not at all: a server may read it just now."""
    if not path.parent.is_dir():
        path.parent.mkdir()
        path.parent.chmod(0o755)
    fd, fresh = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            os.fchmod(fd, mode)
        os.replace(fresh, path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
