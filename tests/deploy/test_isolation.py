"""An uploaded app with code of its own gets nothing, whatever it does; where that cannot be had, it does not run."""

import json
import os
import shutil
import socket
import tempfile
import textwrap
import threading
from pathlib import Path

import pytest
import tomli_w
from hospitals import Hospital, bundle, fold, refused

from fedsafe.deploy import isolation
from fedsafe.deploy.bundle import bundle_digest, has_own_code
from fedsafe.deploy.inside import escapes
from fedsafe.deploy.isolation import Isolated
from fedsafe.deploy.policy import IsolationPolicy
from fedsafe.deploy.refusals import Refused

PROJECT = tomli_w.dumps({"tool": {"flwr": {"app": {"components": {"clientapp": "theirs:app"}}}}})
ASKS = "from fedsafe.deploy.inside import ask\nwhile_asking = ask()\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Whether this machine has a place to put an app; tests of what happens there are for machines that have."""
    hidden = tmp_path_factory.mktemp("hidden")
    (hidden / "secret").write_text("secret")
    try:
        isolated = Isolated(IsolationPolicy(), [hidden])
        isolated.run(*_empty())
    except Refused as refusal:
        pytest.skip(f"this machine cannot isolate: {refusal}")


@pytest.fixture
def outside():
    """A folder of ours outside of what is mounted empty for an app anyway."""
    folder = Path(tempfile.mkdtemp(dir="/srv" if os.access("/srv", os.W_OK) else Path.home()))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _empty():
    from flwr.app import Message, RecordDict

    from fedsafe.engine.grid import identify

    identify()
    return bundle({}), Message(RecordDict(), dst_node_id=2, message_type="train"), RecordDict


def app(body: str) -> dict[str, str]:
    """A bundle's files: an app whose body runs when it is called."""
    code = (
        "def app(message, context):\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
        + "\n    return message\n"
    )
    return {"pyproject.toml": PROJECT, "theirs.py": code}


def hospital_that_allows(folder: Path, files: dict[str, str], **changes) -> Hospital:
    fab = bundle(files)
    made = Hospital(folder)
    made.fab = fab
    made.allow(code__apps=[bundle_digest(fab)], **changes)
    return made.restart()


def test_a_bundle_is_thin_if_it_names_our_app_and_has_no_code():
    from hospitals import THIN

    assert not has_own_code(bundle(THIN))
    assert has_own_code(bundle({**THIN, "fedsafe/apps/client.py": "app = None"}))
    assert has_own_code(bundle({"pyproject.toml": PROJECT}))
    for broken in (
        b"",
        b"PK",
        bundle({}),
        bundle({"pyproject.toml": "x = "}),
        bundle({"pyproject.toml": "x = 1"}),
    ):
        with pytest.raises(Refused, match="app_not_allowed"):
            has_own_code(broken)


@pytest.mark.usefixtures("place")
def test_an_app_that_asks_gets_the_gates_reply_and_cannot_change_it(tmp_path):
    hospital = hospital_that_allows(
        tmp_path / "north",
        app("""
        from fedsafe.deploy.inside import ask
        got = ask()
        assert len(got) > 0
        message.content.clear()
        return "something else"
        """),
    )
    reply = hospital.ask(1)
    assert fold(reply)
    assert set(reply.content) == {"fold", "info", "error"}
    assert hospital.kinds() == ["agreement", "release", "reply"]
    assert fold(hospital.ask(1)) == fold(reply)
    hospital.gate.close()


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("body", ["pass", "import os; os._exit(1)"])
def test_an_app_that_asks_for_nothing_releases_nothing(tmp_path, body):
    hospital = hospital_that_allows(tmp_path / "north", app(body))
    assert refused(hospital.ask(1)) == "failed"
    assert "release" not in hospital.kinds()
    hospital.gate.close()


ATTEMPTS = """
import json, os, socket, subprocess, sys
found = {}
def attempt(name, what):
    try:
        found[name] = repr(what())[:200]
    except BaseException as error:
        pass
attempt("list", lambda: os.listdir(FOLDER) or 1/0)
attempt("data", lambda: open(FOLDER + "/patients.csv").read())
attempt("ledger", lambda: open(FOLDER + "/state/ledger.sqlite", "ab").write(b"x"))
attempt("write ledger", lambda: os.makedirs(FOLDER + "/state") or open(FOLDER + "/state/ledger.sqlite", "wb"))
attempt("key", lambda: [open(os.path.join(a, c), "rb").read() for a, b, cs in os.walk(FOLDER) for c in cs] or 1/0)
attempt("loopback", lambda: socket.create_connection(("127.0.0.1", PORT), 2))
attempt("abroad", lambda: socket.create_connection(("192.0.2.1", 80), 2))
attempt("abstract", lambda: socket.socket(socket.AF_UNIX).connect("\\0fedsafe-test"))
attempt("gate", lambda: os.kill(GATE, 0))
attempt("environment", lambda: open("/proc/%d/environ" % GATE, "rb").read())
attempt("inherited", lambda: [k for k in os.environ if k not in ("PATH", "HOME", "FLWR_HOME", "OMP_NUM_THREADS",
    "GRPC_VERBOSITY", "LC_CTYPE", "PWD", "OLDPWD", "SHLVL", "_")] or 1/0)
attempt("unmount", lambda: subprocess.run(["umount", FOLDER], check=True, capture_output=True))
attempt("root", lambda: os.setuid(0))
attempt("other user", lambda: os.stat(FOLDER).st_uid == os.getuid() or 1/0)
attempt("descriptors", lambda: [d for d in os.listdir("/proc/self/fd") if int(d) > 2 and
    not os.readlink("/proc/self/fd/" + d).startswith(("socket:", "/proc"))] or 1/0)
from fedsafe.deploy.inside import _gate
own = _gate.pop()
own.sendall((1).to_bytes(8, "big") + (b"t" if not found else b"x"))
"""


@pytest.mark.usefixtures("place")
def test_an_app_that_reads_writes_and_connects_finds_nothing(outside):
    """It reports by the one bit that it has: it asks only where every attempt failed."""
    listening = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind("\0fedsafe-test")
    abstract.listen()
    folder = outside / "north"
    places = {"FOLDER": str(folder), "PORT": listening.getsockname()[1], "GATE": os.getpid()}
    head = "".join(f"{name} = {value!r}\n" for name, value in places.items())
    hospital = hospital_that_allows(folder, app(head + ATTEMPTS))
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o666)  # even where the files are open to everybody
    before = (folder / "state" / "ledger.sqlite").stat().st_size
    reply = hospital.ask(1)
    assert not reply.has_error(), hospital.details()
    assert hospital.kinds() == ["agreement", "release", "reply"]
    assert (folder / "state" / "ledger.sqlite").stat().st_size >= before
    hospital.restart().gate.close()
    listening.close()
    abstract.close()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_same_attempts_succeed_without_the_place(tmp_path):
    """Or the test above could not fail."""
    folder = tmp_path / "north"
    Hospital(folder).gate.close()
    listening = socket.create_server(("127.0.0.1", 0))
    code = ATTEMPTS.split("from fedsafe")[0]
    code = code.replace('attempt("root"', 'attempt("none"')
    scope = {"FOLDER": str(folder), "PORT": listening.getsockname()[1], "GATE": os.getpid()}
    ledger = (folder / "state" / "ledger.sqlite").read_bytes()
    exec(code, scope)
    (folder / "state" / "ledger.sqlite").write_bytes(ledger)
    assert {"list", "data", "ledger", "key", "loopback", "gate", "environment", "inherited"} <= set(
        scope["found"]
    )
    listening.close()


@pytest.mark.usefixtures("place")
def test_an_app_that_runs_on_is_ended_with_everything_that_it_started(tmp_path):
    hospital = hospital_that_allows(
        tmp_path / "north",
        app("""
        import os, time
        for _ in range(3):
            os.fork()
        os.setsid() if os.getpid() != os.getpgrp() else None
        time.sleep(1000)
        """),
        isolation__seconds=8.0,
    )
    assert refused(hospital.ask(1)) == "failed"
    assert "8 s" in hospital.details()
    assert not _processes_of("nobody")
    hospital.gate.close()


def _processes_of(user: str) -> list[str]:
    import pwd

    own = pwd.getpwnam(user).pw_uid
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if path.stat().st_uid == own and b"fedsafe.deploy.inside" in (path / "cmdline").read_bytes():
                found.append(path.name)
        except OSError:
            continue
    return found


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("said", [b"x", b"t" * 1000])
def test_an_app_that_says_anything_else_on_its_socket(tmp_path, said):
    hospital = hospital_that_allows(
        tmp_path / "north",
        app(f"""
        from fedsafe.deploy.inside import _gate
        _gate.pop().sendall({len(said)}.to_bytes(8, "big") + {said!r})
        """),
    )
    assert refused(hospital.ask(1)) == "failed"
    assert "release" not in hospital.kinds()
    hospital.gate.close()


def test_without_the_rights_the_app_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(isolation.subprocess, "Popen", lambda *a, **k: pytest.fail("it ran"))
    hospital = hospital_that_allows(tmp_path / "north", app("pass"))
    assert refused(hospital.ask(1)) == "app_not_allowed"
    assert "no rights" in hospital.details()
    hospital.gate.close()


def test_without_the_tools_the_app_does_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "setpriv" else f"/usr/bin/{tool}")
    with pytest.raises(Refused, match="setpriv is not installed"):
        Isolated(IsolationPolicy(), [tmp_path])


@pytest.mark.parametrize("user", ["root", "nobody-of-that-name"])
def test_a_user_that_is_no_other_user(tmp_path, monkeypatch, user):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Refused, match=r"isolation\.user"):
        Isolated(IsolationPolicy(user=user), [tmp_path])


def test_a_process_that_can_reach_what_is_hidden_says_so(tmp_path):
    (tmp_path / "secret").write_text("x")
    assert str(tmp_path) in escapes([str(tmp_path)])
    assert str(tmp_path / "secret") in escapes([str(tmp_path / "secret")])
    assert not [path for path in escapes([str(tmp_path / "none")]) if path.startswith("/")]


def test_a_place_that_does_not_keep_it_is_not_given_the_app(tmp_path, monkeypatch):
    """The process finds out before it has the app: here nothing is mounted, and it is the same user."""

    def start(self, descriptor):
        import subprocess
        import sys

        program = (
            f"from fedsafe.deploy.inside import main; main({descriptor}, {[str(p) for p in self._hidden]!r})"
        )
        return subprocess.Popen([sys.executable, "-I", "-c", program], pass_fds=(descriptor,), stderr=-3)

    monkeypatch.setattr(Isolated, "_start", start)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    hospital = hospital_that_allows(tmp_path / "north", app("pass"))
    assert refused(hospital.ask(1)) == "app_not_allowed"
    assert "cannot keep the app" in hospital.details()
    hospital.gate.close()


@pytest.mark.usefixtures("place")
def test_nothing_of_the_app_is_left(tmp_path):
    hospital = hospital_that_allows(
        tmp_path / "north", app("open('/tmp/left-by-an-app', 'w').write('x')\n" + ASKS.replace("\n", "\n"))
    )
    assert not hospital.ask(1).has_error()
    assert not Path("/tmp/left-by-an-app").exists()
    assert threading.active_count() < 50
    assert json.loads((hospital.folder / "state" / "status.json").read_text())["refusals"] == {}
    hospital.gate.close()
