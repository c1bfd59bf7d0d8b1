"""Real servers for the tests: a container where Docker answers, else a process; both behind the same few calls.

`BROKER_CRYPTO_TEST_BROKERS=process` leaves Docker alone, `=container` insists on it. Images are built here, from nothing but
the server's own binary; `BROKER_CRYPTO_NATS_IMAGE` names another one instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

from broker_crypto_nats.server import LocalServer, find_server

IMAGE = "broker-crypto/nats:2.15.1"
RECIPE = Path(__file__).resolve().parents[2] / "docker" / "nats" / "Dockerfile"


class NatsServer(Protocol):
    """What tests do with a server. After `stop` or `kill`, `start` brings it back on the same port with the same store."""

    url: str
    port: int
    store: Path
    monitoring: str

    def start(self) -> Any: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...


def wanted() -> str:
    return os.environ.get("BROKER_CRYPTO_TEST_BROKERS", "auto")


@cache
def docker_answers() -> bool:
    """Whether an engine is there; asked once."""
    if wanted() == "process":
        return False
    # A .dockerenv in a machine's root folder makes testcontainers think that it runs inside one: say that it does not.
    os.environ.setdefault("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
    os.environ.setdefault("TESTCONTAINERS_HOST_OVERRIDE", "127.0.0.1")
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    if wanted() != "container" and not socket_answers(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")):
        return False
    import docker

    client = docker.from_env(timeout=5)
    try:
        return bool(client.ping())
    finally:
        client.close()


def socket_answers(host: str) -> bool:
    """Whether somebody listens there: docker's own client leaves a socket open where nobody does."""
    scheme, _, address = host.partition("://")
    with socket.socket(socket.AF_UNIX if scheme == "unix" else socket.AF_INET) as probe:
        probe.settimeout(2)
        try:
            name, _, port = address.partition(":")
            probe.connect(address if scheme == "unix" else (name, int(port)))
        except (OSError, ValueError):
            return False
    return True


def nats_server(folder: Path, *, extra: str = "", name: str = "local") -> NatsServer:
    """A server that is not started yet, over `folder`."""
    return ContainerServer(folder, extra=extra, name=name) if docker_answers() else LocalServer(folder, extra=extra, name=name)


@cache
def nats_image() -> str:
    """The image's name; builds it where it is ours and missing."""
    named = os.environ.get("BROKER_CRYPTO_NATS_IMAGE")
    return named or build_nats_image()


def build_nats_image() -> str:
    import docker

    client = docker.from_env()
    try:
        with tempfile.TemporaryDirectory() as context:
            shutil.copy(find_server(), Path(context) / "nats-server")
            shutil.copy(RECIPE, Path(context) / "Dockerfile")
            (Path(context) / "tmp").mkdir()
            client.images.build(path=context, tag=IMAGE, rm=True, pull=False)
    finally:
        client.close()
    return IMAGE


class ContainerServer:
    """nats-server in a container on the host's network, its folder mounted, so that a test can look at its files."""

    def __init__(self, folder: Path, *, extra: str = "", name: str = "local") -> None:
        self.folder = folder
        self.port = free_port()
        self.monitoring_port = free_port()
        self.monitoring = f"http://127.0.0.1:{self.monitoring_port}"
        self._extra = extra
        self._name = name
        self._container: Any = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        return self.folder / "jetstream"

    def start(self) -> Self:
        if self._container is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / "nats.conf").write_text(self._configuration())
            self._container = self._make()
            self._container.start()
        else:
            self._container.get_wrapped_container().start()
        self._wait()
        return self

    def stop(self) -> None:
        if self._container is not None:
            self._container.get_wrapped_container().stop(timeout=10)

    def kill(self) -> None:
        if self._container is not None:
            self._container.get_wrapped_container().kill()

    def close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            container.stop()  # testcontainers' word for: kill it and take it away

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def _make(self) -> Any:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(nats_image()).with_kwargs(network_mode="host")
        container = container.with_volume_mapping(str(self.folder), "/data", "rw")
        return container.with_command(["-c", "/data/nats.conf"])

    def _configuration(self) -> str:
        return (
            f'server_name: {self._name}\nlisten: "127.0.0.1:{self.port}"\nhttp: "127.0.0.1:{self.monitoring_port}"\n'
            'jetstream { store_dir: "/data/jetstream", max_memory_store: 64MB, max_file_store: 4GB, sync_interval: always }\n'
            f"{self._extra}\n"
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                if connection.recv(4) == b"INFO":
                    return
            time.sleep(0.02)
        out, err = self._container.get_logs()
        raise TimeoutError((out + err).decode(errors="replace")[-2000:])


class Cluster:
    """Three nats-servers as processes that replicate their streams. `servers` may be killed and started one by one."""

    def __init__(self, folder: Path) -> None:
        routes = [f"127.0.0.1:{free_port()}" for _ in range(3)]
        listed = ", ".join(f'"nats://{route}"' for route in routes)
        self.servers = [
            LocalServer(
                folder / f"n{at}",
                name=f"n{at}",
                extra=f'cluster {{ name: C, listen: "{route}", no_advertise: true, routes = [{listed}] }}',
            )
            for at, route in enumerate(routes)
        ]

    def __enter__(self) -> Self:
        for server in self.servers:
            server.start()
        deadline = time.monotonic() + 30
        while not all(self._whole(server) for server in self.servers):
            if time.monotonic() > deadline:
                raise TimeoutError("the cluster has no leader")
            time.sleep(0.05)
        return self

    def __exit__(self, *ignored: object) -> None:
        for server in self.servers:
            server.kill()

    def _whole(self, server: LocalServer) -> bool:
        try:
            with urllib.request.urlopen(f"{server.monitoring}/healthz", timeout=2):
                pass
            with urllib.request.urlopen(f"{server.monitoring}/jsz", timeout=2) as answer:
                meta = json.load(answer).get("meta_cluster") or {}
        except OSError:  # not there yet, or not healthy
            return False
        return bool(meta.get("leader")) and meta.get("cluster_size") == 3


def end(server: NatsServer) -> None:
    """Stop it and leave nothing behind, however it was started."""
    if isinstance(server, ContainerServer):
        server.close()
    else:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        raise SystemExit("usage: python -m tests.support.servers build")
    print(json.dumps({"image": build_nats_image()}))
