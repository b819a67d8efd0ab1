"""Who is turned away, and that the log says why: forged keys, certificates that do not hold, plain HTTP, outsiders."""

import asyncio
import base64
import json
import logging
import socket
import ssl
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import uvicorn
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from fedsafe.deploy.admission import KEY_HEADER, LOG, Door, Roll
from fedsafe.deploy.certificates import (
    issue_node,
    issue_server,
    make_authority,
    new_key,
    public_pem,
    read_certificate,
    read_key,
    write_certificate,
    write_key,
)
from fedsafe.deploy.operator import OperatorOnly, secret_file
from fedsafe.deploy.superlink import secured
from fedsafe.errors import ConfigError


class Said(logging.Handler):
    """What was logged while a test ran."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def wait(self, part, seconds=5.0):
        """Whether a line with this part comes."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not any(part in line for line in self.lines):
            time.sleep(0.01)
        return any(part in line for line in self.lines)


@pytest.fixture
def said():
    handler = Said()
    LOG.addHandler(handler)
    yield handler
    LOG.removeHandler(handler)


class Side:
    """A federation's authority, its server's folder, and a client with a key."""

    def __init__(self, folder, name="trial", days=30):
        self.key, self.folder = new_key(), folder
        self.authority = make_authority(name, self.key)
        (folder / "nodes").mkdir(parents=True)
        server = new_key()
        write_key(folder / "server.key", server)
        write_certificate(folder / "ca.pem", self.authority)
        issued = issue_server(self.authority, self.key, server.public_key(), ["127.0.0.1"], days=days)
        write_certificate(folder / "server.pem", issued)

    def certify(self, key, client="north", days=30, nodes=None):
        issued = issue_node(self.authority, self.key, key.public_key(), client, days=days)
        write_certificate((nodes or self.folder / "nodes") / f"{client}.pem", issued)


async def behind(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"in"})


class Serving:
    """The door over loopback, with the TLS of the real server and nothing behind it."""

    def __init__(self, side):
        self.roll = Roll(folder=side.folder / "nodes", authority=side.authority)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._server = uvicorn.Server(secured(Door(behind, self.roll), side.folder, "127.0.0.1", self.port))
        self._server.config.log_config = None
        self._thread = threading.Thread(target=self._server.run)

    def __enter__(self):
        self._thread.start()
        end = time.monotonic() + 20
        while not self._server.started and time.monotonic() < end:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)

    def ask(self, key=None, path="/v1/fleet/pull-messages", authority=None, scheme="https"):
        headers = (
            {}
            if key is None
            else {KEY_HEADER.decode(): base64.b64encode(public_pem(key.public_key())).decode()}
        )
        request = urllib.request.Request(f"{scheme}://127.0.0.1:{self.port}{path}", headers=headers, data=b"")
        trusted = ssl.create_default_context(cafile=str(authority)) if authority else None
        try:
            with urllib.request.urlopen(request, context=trusted, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())["detail"]


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    return Side(tmp_path_factory.mktemp("side") / "server")


@pytest.fixture(scope="module")
def serving(side):
    with Serving(side) as serving:
        yield serving


def test_the_header_is_the_one_that_flowers_nodes_send():
    assert KEY_HEADER.decode() == FLEET_HTTP_PUBLIC_KEY_HEADER


def test_a_client_on_the_roll_is_let_in(side, serving):
    key = new_key()
    side.certify(key)
    assert serving.ask(key, authority=side.folder / "ca.pem") == (200, "in")


def test_a_forged_key_is_turned_away_and_the_log_says_why(side, serving, said):
    side.certify(new_key())
    status, reason = serving.ask(new_key(), authority=side.folder / "ca.pem")
    assert status == 400
    assert "is not of this federation" in reason
    assert said.wait("turned away 127.0.0.1 at /v1/fleet/pull-messages: key ")


def test_an_expired_certificate_is_turned_away_and_the_log_says_why(side, serving, said):
    key = new_key()
    side.certify(key, days=-1)
    assert "expired on" in serving.ask(key, authority=side.folder / "ca.pem")[1]
    assert said.wait("north: its certificate expired on")


def test_a_certificate_that_expires_while_the_server_runs_is_turned_away_from_then_on(
    side, tmp_path, monkeypatch
):
    import datetime

    from fedsafe.deploy import admission, certificates

    key = new_key()
    side.certify(key, days=1)
    roll = Roll(folder=side.folder / "nodes", authority=side.authority)
    assert roll.refuses(key.public_key()) == ""
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)
    monkeypatch.setattr(admission, "why_not", lambda one, other: certificates.why_not(one, other, now=later))
    assert "expired on" in roll.refuses(key.public_key())


def test_another_federations_certificate_is_turned_away_and_the_log_says_why(side, serving, said, tmp_path):
    other, key = Side(tmp_path / "other", "elsewhere"), new_key()
    other.certify(key, nodes=side.folder / "nodes")
    status, reason = serving.ask(key, authority=side.folder / "ca.pem")
    assert status == 400
    assert "another federation's authority signed it" in reason
    assert said.wait("another federation's authority signed it")


def test_a_revoked_client_is_turned_away_at_its_next_message(side, serving):
    key = new_key()
    side.certify(key)
    assert serving.ask(key, authority=side.folder / "ca.pem")[0] == 200
    (side.folder / "nodes" / "north.pem").unlink()
    assert serving.ask(key, authority=side.folder / "ca.pem")[0] == 400


def test_the_roll_tells_who_came_and_who_went(side, tmp_path):
    told, nodes = [], tmp_path / "nodes"
    nodes.mkdir()
    roll = Roll(
        folder=nodes,
        authority=side.authority,
        admit=lambda name, key: told.append(("came", name, key)),
        remove=lambda name, key: told.append(("went", name, key)),
    )
    key = new_key()
    side.certify(key, nodes=nodes)
    roll.refresh()
    roll.refresh()
    (nodes / "north.pem").unlink()
    roll.refresh()
    pem = public_pem(key.public_key())
    assert told == [("came", "north", pem), ("went", "north", pem)]


def test_a_request_without_a_key_is_turned_away(side, serving):
    status, reason = serving.ask(authority=side.folder / "ca.pem")
    assert (status, "names no node key" in reason) == (400, True)


def test_plain_http_is_turned_away_and_the_log_says_why(serving, said):
    with pytest.raises((OSError, urllib.error.URLError)):
        serving.ask(new_key(), scheme="http")
    assert said.wait("it spoke plain HTTP, and this server speaks TLS only")


def test_a_client_that_trusts_another_federation_does_not_connect_and_the_log_says_why(
    serving, said, tmp_path
):
    other = Side(tmp_path / "other", "elsewhere")
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        serving.ask(new_key(), authority=other.folder / "ca.pem")
    assert said.wait("its ca.pem is of another federation")


def test_a_client_does_not_speak_with_a_server_whose_certificate_expired(said, tmp_path):
    side = Side(tmp_path / "server", days=-1)
    with Serving(side) as serving, pytest.raises(urllib.error.URLError, match="expired"):
        serving.ask(new_key(), authority=side.folder / "ca.pem")
    assert said.wait("the client found this server's certificate expired")


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/v1/responses"]
)
def test_nobody_outside_reaches_what_is_for_the_servers_own_machine(side, path):
    assert _through(side, path, "10.0.0.9") == 400


@pytest.mark.parametrize(
    ("path", "status"), [("/v1/control/start-run", 200), ("/docs", 400), ("/health", 200)]
)
def test_the_servers_own_machine_reaches_its_interfaces_and_nothing_else(side, path, status):
    assert _through(side, path, "127.0.0.1") == status


def test_whoever_has_not_the_operators_token_starts_no_run(tmp_path):
    token = secret_file(tmp_path / "operator.token")
    plugin = OperatorOnly(token)
    key = "flwr-oidc-access-token"
    assert (tmp_path / "operator.token").stat().st_mode & 0o777 == 0o600
    assert plugin.validate_tokens_in_metadata([(key, token.decode())])[0]
    for wrong in ([], [(key, "")], [(key, token.decode()[:-1])], [("other", token.decode())]):
        assert plugin.validate_tokens_in_metadata(wrong) == (False, None)


def test_the_same_reason_is_logged_once_a_minute(side, serving, said):
    for _ in range(5):
        serving.ask(authority=side.folder / "ca.pem", path="/v1/fleet/push-messages")
    assert sum("push-messages" in line for line in said.lines) == 1


def _through(side, path, peer):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "path": path, "client": (peer, 1), "headers": []}
    door = Door(behind, Roll(folder=side.folder / "nodes", authority=side.authority))
    asyncio.run(door(scope, None, send))
    return sent[0]["status"]


def test_keys_and_certificates_are_read_as_they_were_written(side):
    certificate, key = read_certificate(side.folder / "server.pem"), read_key(side.folder / "server.key")
    assert certificate.public_key() == key.public_key()


def asked(door, path):
    """The status of an answer to a request of nobody, without a connection."""
    answers = []

    async def send(message):
        answers.append(message)

    scope = {"type": "http", "path": path, "headers": [], "client": ("10.0.0.9", 1)}
    asyncio.run(door(scope, None, send))
    return answers[0]["status"]


def test_nobody_writes_lines_of_the_log(side, said):
    door = Door(behind, Roll(folder=side.folder / "nodes", authority=side.authority))
    assert asked(door, "/x\n2030-01-01 north is off the roll\x1b[2J" + "y" * 500) == 400
    (line,) = said.lines
    assert line.isprintable()
    assert len(line) < 200


def test_a_flood_of_different_requests_fills_no_log(side, said):
    door = Door(behind, Roll(folder=side.folder / "nodes", authority=side.authority))
    assert {asked(door, f"/{number}") for number in range(400)} == {400}
    assert len(said.lines) == 201
    assert said.lines[-1] == "more is turned away than is said here"


def test_a_certificate_that_is_taken_away_while_the_folder_is_read(side, monkeypatch):
    roll = Roll(folder=side.folder / "nodes", authority=side.authority)
    gone = side.folder / "nodes" / "gone.pem"
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([gone]))
    assert "no certificate" in roll.refuses(new_key().public_key())


@pytest.mark.parametrize("left", [b"", b"0" * 10])
def test_a_secret_that_was_not_written_to_its_end_is_made_again(tmp_path, left):
    path = tmp_path / "operator.token"
    path.write_bytes(left)
    path.chmod(0o600)
    made = secret_file(path)
    assert (len(made), path.stat().st_mode & 0o777) == (64, 0o600)
    assert secret_file(path) == made
    assert [found.name for found in tmp_path.iterdir()] == ["operator.token"]


def test_a_token_that_others_can_read_is_none_and_no_token_lets_nobody_in(tmp_path):
    path = tmp_path / "operator.token"
    path.write_bytes(b"0" * 64)
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"mode 644.*delete it"):
        secret_file(path)
    assert OperatorOnly(b"").validate_tokens_in_metadata([]) == (False, None)
