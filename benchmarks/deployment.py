"""A whole federation on loopback: the server, and a SuperNode and a gate for each client, as plain processes.

They are started by the scripts that ``fedsafe deploy init`` wrote, and none outlives the context.
"""

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from fedsafe.deploy.federation import Federation, read_client
from fedsafe.deploy.pages import write_client_commands
from fedsafe.deploy.superlink import ENVIRONMENT, end_leftovers

BIN = Path(sys.executable).parent
SERVER = "server"
_PATIENCE = 300.0


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now, below those that outgoing connections take at any moment."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.randbelow(15_000) + 15_000
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found


class Deployment:
    """The processes of a federation.

    Args:
        federation: Whose folder is on this machine; its clients get free ports.
        env: Further environment of every process.
    """

    def __init__(self, federation: Federation, **env: str) -> None:
        self.federation = federation
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {
            **os.environ,
            **ENVIRONMENT,
            "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
            **env,
        }
        self.logs = federation.folder / "logs"
        self.logs.mkdir(exist_ok=True)
        ports = iter(free_ports(2 * len(federation.names)))
        for name in federation.names:
            own = read_client(federation.client_folder(name))
            replace(own, runtime_port=next(ports), metrics_port=next(ports)).write()
            write_client_commands(federation, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End every process, by its number."""
        for process in self.processes.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + 15
        for process in self.processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, end - time.monotonic()))
            if process.poll() is None:
                process.kill()
                process.wait()
        end_leftovers(self.federation.server / "state", self.federation.port)

    def start_all(self) -> None:
        """Everything; the SuperNodes once the server listens, since they wait longer after each vain attempt."""
        self.start_server()
        for name in self.federation.names:
            self.start_gate(name)
        self.wait_for_log(SERVER, "Uvicorn running on")
        for name in self.federation.names:
            self.start_node(name)

    def start_server(self) -> None:
        """The server."""
        self.start(SERVER, ["sh", str(self.federation.server / "superlink.sh")])

    def start_client(self, name: str) -> None:
        """A client's two processes."""
        self.start_node(name)
        self.start_gate(name)

    def start_node(self, name: str, *, folder: Path | None = None, named: str | None = None) -> None:
        """A client's SuperNode, from its own folder or from another one."""
        own = self.federation.client_folder(name) if folder is None else folder
        self.start(named or f"{name}-supernode", ["sh", str(own / "supernode.sh")])

    def start_gate(self, name: str) -> None:
        """A client's gate."""
        self.start(f"{name}-gate", ["sh", str(self.federation.client_folder(name) / "gate.sh")])

    def start(self, name: str, command: list[str], **env: str) -> None:
        """One process; what it says is appended to its log."""
        with (self.logs / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**self.env, **env},
            )

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process and wait for its end."""
        self.processes[name].send_signal(number)
        self.processes[name].wait(30)

    def log(self, name: str) -> str:
        """What a process has said."""
        return (self.logs / f"{name}.log").read_text(errors="replace")

    def wait_for_log(self, name: str, part: str, seconds: float = _PATIENCE) -> None:
        """Wait until a process has said something.

        Raises:
            TimeoutError: It did not, or it ended; with the end of its log.
        """
        self.until(lambda: part in self.log(name), f"{name} did not say {part!r}", seconds, name)

    def until(
        self,
        happened: Callable[[], bool],
        otherwise: str,
        seconds: float = _PATIENCE,
        name: str | None = None,
    ) -> None:
        """Wait until something is so.

        Raises:
            TimeoutError: It is not; with the end of the log of the process that it depends on.
        """
        end = time.monotonic() + seconds
        while not happened():
            ended = name is not None and self.processes[name].poll() is not None
            if (ended and not happened()) or time.monotonic() > end:
                said = self.log(name)[-3000:] if name is not None else ""
                raise TimeoutError(f"{otherwise}\n{said}")
            time.sleep(0.1)

    def wait_until_connected(self, seconds: float = _PATIENCE) -> None:
        """Wait until every client is connected to the server, and its gate waits for work."""
        for name in self.federation.names:
            self.wait_for_log(f"{name}-supernode", "SuperNode ID", seconds)
            self.wait_for_log(f"{name}-gate", '"waiting"', seconds)

    def command(self, *words: str, timeout: float = 900.0, **env: str) -> subprocess.CompletedProcess[str]:
        """``fedsafe deploy ...``, to its end."""
        return subprocess.run(
            [str(BIN / "fedsafe"), "deploy", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.env, **env},
        )


def lines_of(path: Path) -> list[Mapping[str, Any]]:
    """The whole lines of a file of JSON lines."""
    import json

    if not path.is_file():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
