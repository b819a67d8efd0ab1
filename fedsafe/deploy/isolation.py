"""Running what a server uploaded, where it can reach nothing.

An app with code of its own runs in a process of another user of the operating system, without network, in an empty file
system for everything that may be written, and behind one socket, over which it can ask once for what its message asks
for: the gate makes that as it always does. What the app replies is not read. Where this machine cannot keep a process
in such a place, the app is refused.

Guarantees:
    ============================================  ====================================================
    the app                                       finds
    ============================================  ====================================================
    opens the client's folder or records          nothing there: they lie under an empty mount
    opens a connection                            no interface but a loopback of its own that is down
    looks for other processes                     its own alone
    reads the environment                         a path and an empty home
    writes files                                  memory that is gone with it, up to a limit
    asks twice, or anything else                  the end
    runs on                                       the end, after ``seconds``
    ============================================  ====================================================
"""

import contextlib
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_to_proto

from fedsafe.deploy.framing import receive, send
from fedsafe.deploy.policy import IsolationPolicy
from fedsafe.deploy.refusals import Refusal, Refused

_TOOLS = ("unshare", "setpriv", "mount", "sh")
_WRITABLE = ("/tmp", "/var/tmp", "/dev/shm", "/run")  # noqa: S108 - mounted empty for the app alone
_MEGABYTE = 2**20
_PATIENCE = 5.0  # seconds


class Isolated:
    """A place for uploaded code.

    Args:
        policy: As whom it runs, and its limits.
        hidden: Folders and files that must not be there for it.

    Raises:
        Refused: This machine has no such place.
    """

    def __init__(self, policy: IsolationPolicy, hidden: Sequence[Path]) -> None:
        missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
        if missing or os.geteuid() != 0:
            why = (
                f"{', '.join(missing)} is not installed"
                if missing
                else "the gate has no rights to isolate it"
            )
            raise Refused(Refusal.APP_NOT_ALLOWED, f"the app has code of its own, and {why}")
        try:
            user = pwd.getpwnam(policy.user)
        except KeyError:
            raise Refused(
                Refusal.APP_NOT_ALLOWED, f"isolation.user {policy.user!r} is no user here"
            ) from None
        if user.pw_uid == 0:
            raise Refused(Refusal.APP_NOT_ALLOWED, "isolation.user is root, who can read everything")
        self._policy, self._uid, self._gid = policy, user.pw_uid, user.pw_gid
        whole = [path.resolve() for path in hidden]
        # What lies below a hidden folder is gone with it, and nothing can be mounted on it.
        self._hidden = [path for path in whole if not any(other in path.parents for other in whole)]

    def run(self, fab: bytes, message: Message, train: Callable[[], RecordDict]) -> None:
        """Run an app on a message until it ends.

        Args:
            fab: The allowed bundle.
            message: What the app is given.
            train: Makes the reply to the message; called at most once.

        Raises:
            Refused: The place does not keep the app, or it did not end in time.
        """
        own, theirs = socket.socketpair()
        with own:
            with theirs:
                process = self._start(theirs.fileno())
            try:
                self._talk(own, fab, message, train)
            finally:
                _end(process)

    def _talk(
        self,
        own: socket.socket,
        fab: bytes,
        message: Message,
        train: Callable[[], RecordDict],
    ) -> None:
        own.settimeout(self._policy.seconds)
        try:
            kept = receive(own, 1) == b"k"  # as it found itself, see `fedsafe.deploy.inside`
        except (EOFError, OSError):
            kept = False
        if not kept:
            raise Refused(
                Refusal.APP_NOT_ALLOWED, "this machine cannot keep the app from the client's folder"
            )
        try:
            content = recorddict_to_proto(message.content).SerializeToString(deterministic=True)
            for part in (fab, message.metadata.message_type.encode(), content):
                send(own, part)
            if receive(own, 1) != b"t":
                return
        except EOFError:
            return  # it ended and did not ask
        except TimeoutError:
            raise Refused(
                Refusal.FAILED, f"the uploaded app ran for {self._policy.seconds:g} s, and was ended"
            ) from None
        except OSError as error:
            raise Refused(Refusal.FAILED, f"the uploaded app broke off: {error}") from error
        made = train()
        # What the app does with it is of no consequence: the reply is made.
        with contextlib.suppress(OSError):
            own.settimeout(_PATIENCE)
            send(own, recorddict_to_proto(made).SerializeToString(deterministic=True))
            own.recv(1)

    def _start(self, descriptor: int) -> "subprocess.Popen[bytes]":
        place = "; ".join(["set -e", *self._mounts(), 'exec "$@"'])
        program = (
            "import sys; from fedsafe.deploy.inside import main; "
            f"main({descriptor}, {[str(path) for path in self._hidden]!r})"
        )
        tools = {tool: str(shutil.which(tool)) for tool in _TOOLS}
        command = [
            *(tools["unshare"], "--net", "--mount", "--ipc", "--uts", "--pid"),
            *("--fork", "--kill-child", "--mount-proc", tools["sh"], "-c", place, "place"),
            *(tools["setpriv"], f"--reuid={self._uid}", f"--regid={self._gid}", "--clear-groups"),
            *("--pdeathsig", "KILL"),
            *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"),
            *(sys.executable, "-I", "-c", program),
        ]
        return subprocess.Popen(  # noqa: S603 - nothing of it comes from a message
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", "FLWR_HOME": "/tmp", "OMP_NUM_THREADS": "1"},  # noqa: S108
            pass_fds=(descriptor,),
            preexec_fn=self._limit,
        )

    def _mounts(self) -> list[str]:
        """What the shell mounts, over the hidden paths first: one of them may lie in a writable folder."""
        lines = []
        for path in self._hidden:
            if path.is_dir():
                lines.append(f"mount -t tmpfs -o mode=0700,size=4k none {_quoted(path)}")
            elif path.exists():
                lines.append(f"mount --bind /dev/null {_quoted(path)}")
        size = self._policy.memory_megabytes
        there = [name for name in _WRITABLE if Path(name).is_dir() and not Path(name).is_symlink()]
        options = f"mode=1777,nosuid,nodev,size={size}m"
        return [*lines, *(f"mount -t tmpfs -o {options} none {folder}" for folder in there)]

    def _limit(self) -> None:
        memory = self._policy.memory_megabytes * _MEGABYTE
        seconds = int(self._policy.seconds) + 1
        for limit, value in (
            (resource.RLIMIT_AS, memory),
            (resource.RLIMIT_CPU, seconds),
            (resource.RLIMIT_NPROC, 256),
            (resource.RLIMIT_NOFILE, 256),
            (resource.RLIMIT_CORE, 0),
        ):
            resource.setrlimit(limit, (value, value))


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a place with all that runs in it: its first process is the one whose death the kernel ends the others with.

    The process that made the place only waits for it, and its death is a signal that an app can turn off.
    """
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile
        if parent == process.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(status.parent.name), signal.SIGKILL)
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _quoted(path: Path) -> str:
    return "'" + str(path).replace("'", "'\\''") + "'"
