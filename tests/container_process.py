"""A server in a container, with what `tests.servers.Process` can do: killed, paused, started again.

It shares this machine's network, so that its ports behave as a process's do: nothing stands in
between that would accept connections for a server that is dead. Its folder is mounted where it is.
"""

import atexit
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from docker.errors import APIError, DockerException, NotFound
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.docker_client import DockerClient

from .servers import Process

testcontainers_config.ryuk_disabled = True  # it would be one more image; see `remove_all`

LABEL = "hikyaku.test"
RUN = os.environ.get("HIKYAKU_TEST_RUN") or f"hikyaku-test-{uuid4().hex[:12]}"
"""Containers bear this, as a label or at the beginning of their name, so that they can be found."""

IMAGES = {
    "nats-server": os.environ.get("HIKYAKU_TEST_NATS_IMAGE", "hikyaku-nats:offline"),
    "mongod": os.environ.get("HIKYAKU_TEST_MONGO_IMAGE", "hikyaku-mongo:offline"),
    "meilisearch": os.environ.get("HIKYAKU_TEST_SEARCH_IMAGE", "hikyaku-search:offline"),
    "hikyaku": os.environ.get("HIKYAKU_TEST_IMAGE", "hikyaku:offline"),
    "caddy": os.environ.get("HIKYAKU_TEST_PROXY_IMAGE", "hikyaku-proxy:offline"),
}
"""What each program runs in. An image that is not here is not pulled."""

_made: list[DockerContainer] = []


def missing() -> str:
    """Why no container can run here, or empty."""
    try:
        client = DockerClient()
    except DockerException as error:
        return f"no Docker engine answers: {error}"
    try:
        for image in IMAGES.values():
            client.client.images.get(image)
    except NotFound:
        return f"there is no image {image}; deploy/offline/build makes it"
    except DockerException as error:
        return f"no Docker engine answers: {error}"
    finally:
        client.client.close()
    return ""


def remove_all() -> None:
    """Remove what `ContainerProcess` has made in this process."""
    while _made:
        with suppress(NotFound):
            _made.pop().stop()


atexit.register(remove_all)


class ContainerProcess(Process):
    """One server; `command` begins with a program of `IMAGES`."""

    def __init__(self, command: tuple[str, ...], folder: Path, env: dict[str, str] | None = None):
        super().__init__(command, folder)
        program = Path(command[0]).name
        words = ["-c", 'exec "$@" >>"$0" 2>&1', str(self.log), program, *command[1:]]
        self._container = DockerContainer(IMAGES[program])
        self._container.with_command(words).with_volume_mapping(folder, str(folder), "rw")
        self._container.with_tmpfs_mount("/tmp").with_envs(**(env or {}))
        self._container.with_kwargs(
            entrypoint=["sh"],
            network_mode="host",
            user=f"{os.getuid()}:{os.getgid()}",
            read_only=True,
            cap_drop=["ALL"],
            # Folders of tests belong to whoever runs them.
            cap_add=["DAC_OVERRIDE"] if os.getuid() == 0 else [],
            labels={LABEL: RUN},
        )
        self._started = False

    @property
    def _wrapped(self) -> Any:
        return self._container.get_wrapped_container()

    def start(self) -> None:
        self.log.touch()
        if self._started:
            self._wrapped.start()
        else:
            _made.append(self._container)
            self._container.start()
            self._started = True

    @property
    def pid(self) -> int:
        self._wrapped.reload()
        return int(self._wrapped.attrs["State"]["Pid"])

    def send(self, number: int) -> None:
        self._wrapped.kill(signal=number)

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    def end(self, number: int = signal.SIGTERM) -> None:
        if not self.running:
            return
        with suppress(APIError):  # it has ended by itself
            self.send(number)
            if number not in (signal.SIGCONT, signal.SIGKILL):
                self.send(signal.SIGCONT)
        self._wrapped.wait(timeout=20)

    @property
    def running(self) -> bool:
        if not self._started:
            return False
        self._wrapped.reload()
        return bool(self._wrapped.status == "running")
