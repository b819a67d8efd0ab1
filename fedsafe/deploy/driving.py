"""A run of a federation, driven from the server's machine: start it, watch it, stop it."""

import json
import os
import time
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import tomli_w
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListNodesRequest, ListRunsRequest, StartRunRequest, StopRunRequest
from flwr.supercore.fab import Fab

from fedsafe.apps.peers import write_peer_keys
from fedsafe.deploy.bundle import bundle_digest
from fedsafe.deploy.federation import Federation
from fedsafe.deploy.operator import control
from fedsafe.deploy.signing import let_in_keys
from fedsafe.deploy.thin_app import build_thin_app
from fedsafe.errors import ConfigError, RecordError
from fedsafe.federation.secure_messages import TRAINS
from fedsafe.runs.config import make_config
from fedsafe.store.files import replace_file

FINISHED: Final = "finished"
_LAST = "run.json"
_WAIT_FOR_NODES = 120.0
_LOOK_SECONDS, _ASK_SECONDS = 0.5, 5.0


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A run that was handed to the server.

    Args:
        number: Flower's.
        out: Its run folder.
        rounds: How many it is to have.
    """

    number: int
    out: Path
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one round's messages came to.

    Args:
        asked: Clients that were sent a message.
        replied: Those whose update or score came back.
        refused: How many said no, by reason.
    """

    asked: int = 0
    replied: int = 0
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run is.

    Args:
        status: Flower's word for it, with what it adds, such as ``"finished: completed"``.
        rounds: Rounds that count.
        of: Rounds planned.
        last: The newest round's figures.
        spend: Planned epsilon after it, by unit.
        exchange: The newest round's messages.
        bytes_sent: By the server to clients, so far.
        bytes_received: From clients.
    """

    status: str
    rounds: int
    of: int
    last: dict[str, float | None] = field(default_factory=dict)
    spend: dict[str, float | None] = field(default_factory=dict)
    exchange: Exchange = field(default_factory=Exchange)
    bytes_sent: int = 0
    bytes_received: int = 0

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen."""
        return self.status.startswith(FINISHED)


def start(
    federation: Federation,
    *,
    resume: bool = False,
    out: Path | None = None,
    wait_for_nodes: float = _WAIT_FOR_NODES,
    wait_for_replies: float = 3600.0,
) -> Submitted:
    """Hand the experiment to the server.

    Args:
        federation: Whose server runs on this machine.
        resume: Go on with the newest run, or the one of ``out``, after its server was lost.
        out: The run folder; a new one in ``server/runs`` by default.
        wait_for_nodes: Seconds until every client must be connected.
        wait_for_replies: Seconds until a round goes on without the clients that have not replied; where updates are
            summed behind masks, each of its five exchanges.

    Raises:
        ConfigError: The server does not run, or takes no run; or there is nothing to resume.
    """
    last = newest_run(federation)
    if resume and last is not None:
        stop(federation, last)  # its server is gone, and nobody told Flower
    if resume and out is None:
        if last is None:
            raise ConfigError(f"{federation.folder} has no run to resume: start one without --resume")
        out = last.out
    out = _new_folder(federation) if out is None else out.resolve()
    if resume and not (out / "record.jsonl").is_file():
        raise ConfigError(f"{out} is no run folder that could be resumed")
    values = resolved_experiment(federation)
    experiment = federation.server.resolve() / "state" / "experiment.toml"
    replace_file(experiment, tomli_w.dumps(values).encode())
    rounds = make_config(values).rounds
    app = federation.folder / "app"
    content = build_thin_app(app)
    settings: dict[str, Any] = {"config": str(experiment), "out": str(out), "resume": resume}
    settings |= {"wait-for-nodes": wait_for_nodes, "wait-for-replies": wait_for_replies}
    if make_config(values).aggregation.secure:
        peers = federation.server.resolve() / "state" / "peers.json"
        write_peer_keys(peers, let_in_keys(federation))
        settings["peers"] = str(peers)
    request = StartRunRequest(
        fab=fab_to_proto(Fab(bundle_digest(content), content, {})),
        override_config=user_config_to_proto(settings),
    )
    with _control(federation) as client:
        answer = client.StartRun(request)
    if not answer.HasField("run_id"):
        raise ConfigError(f"the server took no run: {answer.note or 'its log says why'}")
    noted = {"number": answer.run_id, "out": str(out), "rounds": rounds}
    replace_file(federation.server / "state" / _LAST, json.dumps(noted).encode())
    return Submitted(number=answer.run_id, out=out, rounds=rounds)


def last_run(federation: Federation) -> Submitted:
    """The newest run.

    Raises:
        RecordError: There is none.
    """
    last = newest_run(federation)
    if last is None:
        raise RecordError(
            f"no run was started from {federation.folder} yet: fedsafe deploy start {federation.folder}"
        )
    return last


def state_of(federation: Federation, run: Submitted) -> State:
    """How far a run is, from the server and from the run folder.

    Raises:
        ConfigError: The server does not answer.
    """
    return _state(run, _said(federation, run))


def follow(federation: Federation, run: Submitted) -> Iterator[State]:
    """The state of a run, each time that it has changed, until it is finished.

    The run folder is looked at all the time, and the server, which has other things to do, asked seldom.
    """
    before: State | None = None
    said, asked = _said(federation, run), time.monotonic()
    while True:
        if time.monotonic() - asked > _ASK_SECONDS or _has_ended(run):
            said, asked = _said(federation, run), time.monotonic()
        now = _state(run, said)
        if now != before:
            yield now
        if now.finished:
            return
        before = now
        time.sleep(_LOOK_SECONDS)


@dataclass(frozen=True)
class _Said:
    """What the server says of a run."""

    status: str
    sent: int = 0
    received: int = 0


def _said(federation: Federation, run: Submitted) -> _Said:
    with _control(federation) as client:
        known = client.ListRuns(ListRunsRequest(run_id=run.number)).run_dict
    if run.number not in known:
        return _Said("unknown to the server")
    found = known[run.number]
    words = [found.status.status, found.status.sub_status, found.status.details]
    return _Said(": ".join(word for word in words if word), found.bytes_sent, found.bytes_recv)


def _has_ended(run: Submitted) -> bool:
    lines = lines_of(run.out / "record.jsonl")
    return bool(lines) and lines[-1].get("kind") == "end"


def _state(run: Submitted, said: _Said) -> State:
    rounds = [line for line in lines_of(run.out / "record.jsonl") if line.get("kind") == "round"]
    newest = rounds[-1] if rounds else {}
    return State(
        status=said.status,
        rounds=int(newest.get("round", 0)),
        of=run.rounds,
        last=dict(newest.get("metrics", {})),
        spend=dict(newest.get("spend", {})),
        exchange=_exchange(run.out),
        bytes_sent=said.sent,
        bytes_received=said.received,
    )


def stop(federation: Federation, run: Submitted) -> bool:
    """Stop a run; what it has recorded stays.

    Returns:
        Whether it was running.
    """
    if state_of(federation, run).finished:
        return False
    with _control(federation) as client:
        return bool(client.StopRun(StopRunRequest(run_id=run.number)).success)


def connected(federation: Federation) -> dict[str, str]:
    """What the server says of each client: online, offline, registered."""
    with _control(federation) as client:
        nodes = client.ListNodes(ListNodesRequest()).nodes_info
    said = {node.name: node.status for node in nodes}
    return {name: said.get(name, "not on the roll") for name in federation.names}


def _control(federation: Federation) -> Any:
    server = federation.server
    return control(federation.port, server / "ca.pem", server / "state" / "operator.token")


def resolved_experiment(federation: Federation) -> dict[str, Any]:
    """The experiment with absolute paths, since the server's app runs in another folder.

    Raises:
        ConfigError: It cannot be read, or is for another kind of task.
    """
    source = federation.folder / "experiment.toml"
    try:
        values = tomllib.loads(source.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{source} cannot be read: {error}") from error
    task = values.get("task")
    if not isinstance(task, dict) or task.get("name") != "deployed":
        raise ConfigError(f"{source}: its task is not 'deployed'; `fedsafe deploy init` writes one that is")
    for key in ("schema", "evaluation"):
        if key in task:
            task[key] = str((federation.folder / task[key]).resolve())
    return values


def _new_folder(federation: Federation) -> Path:
    runs = federation.server.resolve() / "runs"
    runs.mkdir(mode=0o700, exist_ok=True)
    number = 1
    while os.path.lexists(runs / f"run-{number}"):
        number += 1
    return runs / f"run-{number}"


def newest_run(federation: Federation) -> Submitted | None:
    """The newest run that was started from this folder; None where there was none."""
    try:
        values = json.loads((federation.server / "state" / _LAST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Submitted(number=values["number"], out=Path(values["out"]), rounds=values["rounds"])


def _exchange(out: Path) -> Exchange:
    lines = lines_of(out / "private" / "replies.jsonl")
    if not lines:
        return Exchange()
    newest = [line for line in lines if line["round"] == lines[-1]["round"]]
    # A round behind masks has five exchanges, in the first of which everybody is asked.
    told = [line for line in newest if not line.get("stage") or line["stage"] == TRAINS] or newest[:1]
    refused: Counter[str] = Counter()
    for line in newest:
        refused.update(line.get("refused", {}))
    return Exchange(
        asked=sum(line["asked"] for line in told),
        replied=sum(line["replied"] for line in told),
        refused=dict(refused),
    )


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that another process may be writing."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
