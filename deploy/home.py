"""The folder of the local stack: made on first use, locked by one `hikyaku up` at a time.

up.lock       held by the supervisor and all its children, so also while the last one dies
secret        signs development tokens
vapid.pem     signs Web Push in development
search.key    master key of the own search server
internal      secret of edges and workers
roles.key     what the passwords at the own NATS server and MongoDB are made from
mongo.key     key of the own MongoDB as a member of its set
site.json     the site's name and addresses
ports.json    ports chosen for the own servers
nats, mongo, search   their data
objects       files of the archive, unless HIKYAKU_OBJECTS_URL says otherwise
files, spool  users' files, unless HIKYAKU_FILES_URL says otherwise; uploads on their way
log           one file for each process
"""

import fcntl
import hmac
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep

from store.replica_set import Access
from store.roles import NAMES

from .errors import UserError

LOCK_WAIT_S = 5.0


def make_home(home: Path) -> None:
    """Make the folders. Raises `UserError` if that is not possible."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("nats", "mongo/data", "search", "log"):
            (home / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {error.filename}: {error.strerror}; set HIKYAKU_HOME"
        ) from None


@contextmanager
def locked(home: Path) -> Iterator[int]:
    """Hold the home's lock; gives its file descriptor, for the children to hold as well.

    When the process named in it has ended, its children are about to: then this waits for them.
    """
    fd = os.open(home / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(fd, home)
        os.truncate(fd, 0)
        os.pwrite(fd, str(os.getpid()).encode(), 0)
        yield fd
    finally:
        os.close(fd)


def runs_as(home: Path) -> int:
    """The process id of the `hikyaku up` that runs in this home; 0 if none does."""
    try:
        fd = os.open(home / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(fd, 20, 0).decode("ascii", "replace")
        return int(pid) if pid.isdecimal() else 0
    finally:
        os.close(fd)
    return 0


def _lock(fd: int, home: Path) -> None:
    deadline = monotonic() + LOCK_WAIT_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 20, 0).decode("ascii", "replace")
        if monotonic() > deadline or _is_alive(pid):
            raise UserError(
                f"`hikyaku up` already runs in {home} (pid {pid or 'unknown'});"
                " stop it, or set HIKYAKU_HOME to another folder"
            )
        sleep(0.05)


def _is_alive(pid: str) -> bool:
    """A zombie has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def development_secret(home: Path) -> str:
    """The secret that signs development tokens, made once and readable by its owner only."""
    return _secret(home, "secret")


def has_secret(home: Path) -> bool:
    """Whether that was made."""
    return (home / "secret").is_file()


def internal_secret(home: Path) -> str:
    """The secret of edges and workers, made once and readable by its owner only."""
    return _secret(home, "internal")


def search_key(home: Path) -> str:
    """The master key of the own search server, made once and readable by its owner only."""
    return _secret(home, "search.key")


def role_password(home: Path, role: str) -> str:
    """A role's password at the own servers, from a secret readable by its owner only."""
    key = _secret(home, "roles.key").encode()
    return hmac.digest(key, role.encode(), "sha256").hex()


def mongo_access(home: Path, database: str) -> Access:
    """Who may use the own MongoDB."""
    passwords = {role: role_password(home, role) for role in NAMES}
    return Access(_secret(home, "mongo.key"), database, passwords)


def _secret(home: Path, name: str) -> str:
    path = home / name
    with suppress(FileNotFoundError):
        return path.read_text().strip()
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd, fresh = tempfile.mkstemp(dir=home, prefix=f"{name}.")  # readable by its owner only
    try:
        with os.fdopen(fd, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        with suppress(FileExistsError):  # another process was faster: its secret counts
            os.link(fresh, path)
    finally:
        os.unlink(fresh)
    return path.read_text().strip()
