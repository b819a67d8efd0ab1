"""What the newest run of a federation did, beside what was predicted of it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fedsafe.deploy.driving import lines_of, newest_run, state_of
from fedsafe.deploy.federation import Federation
from fedsafe.deploy.figures import STATUS
from fedsafe.deploy.prediction import Prediction
from fedsafe.errors import ConfigError
from fedsafe.federation.secure_messages import TRAINS
from fedsafe.report.formats import epsilon

# As often as a plan's own figure may differ in its last bits from another machine's.
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class ClientRealised:
    """What one client did in a run.

    Args:
        rounds: In which it released something.
        epsilon: That it has spent in the run; None where its level has no guarantee.
        told_by: ``"gate"``, where the client's folder is here, or ``"server"``, which knows what was planned.
    """

    rounds: int
    epsilon: float | None
    told_by: str


@dataclass(frozen=True, kw_only=True)
class Realised:
    """What a run did.

    Args:
        out: Its folder.
        plan: Hash of the plan that it follows.
        rounds: That count.
        replies: In each exchange to train, how many answered.
        seconds: Of each round.
        clients: By name.
        bytes_per_round_and_client: As the server counts them, without TLS and polling; None where it does not answer.
    """

    out: str
    plan: str
    rounds: int
    replies: tuple[int, ...]
    seconds: tuple[float, ...]
    clients: Mapping[str, ClientRealised]
    bytes_per_round_and_client: float | None

    def plain(self) -> dict[str, Any]:
        """For ``prediction.json``."""
        return asdict(self)


def realised(federation: Federation, curve: Sequence[float | None]) -> Realised | None:
    """What the newest run did; None where none has begun.

    Args:
        federation: Whose run it is; its server need not run.
        curve: Planned epsilon after each round, for a gate that has not written down what it spent.
    """
    run = newest_run(federation)
    lines = lines_of(run.out / "record.jsonl") if run is not None else []
    if run is None or not lines:
        return None
    private = run.out / "private"
    rounds = [line for line in lines if line.get("kind") == "round"]
    told = [line for line in lines_of(private / "replies.jsonl") if line["kind"] == "train"]
    # Of a round behind masks, the exchange in which clients train.
    exchanges = [line for line in told if line.get("stage", "") in ("", TRAINS)]
    try:
        state = state_of(federation, run)
        carried = state.bytes_sent + state.bytes_received
    except ConfigError:
        carried = 0
    messages = sum(line["asked"] for line in exchanges)
    planned = rounds[-1]["spend"].get("record") if rounds else 0.0
    server = ClientRealised(rounds=len(rounds), epsilon=planned, told_by="server")
    token = _text(private / "run.token")
    return Realised(
        out=str(run.out),
        plan=str(lines[0].get("plan", {}).get("hash", "")),
        rounds=len(rounds),
        replies=tuple(line["replied"] for line in exchanges),
        seconds=tuple(line["seconds"] for line in lines_of(private / "timings.jsonl")),
        clients={
            name: _told_by_gate(federation.client_folder(name), token, curve) or server
            for name in federation.names
        },
        bytes_per_round_and_client=carried / messages if carried and messages else None,
    )


def above(prediction: Prediction, found: Realised) -> list[str]:
    """What a run has spent above the prediction, which is an error somewhere: one line for each client."""
    if found.plan != prediction.plan:
        return []
    lines = []
    for name, client in found.clients.items():
        curve = prediction.clients[name].epsilon if name in prediction.clients else ()
        most = _most(curve, client.rounds)
        if client.epsilon is not None and most is not None and client.epsilon > most + _ROUNDING:
            lines.append(
                f"{name} has spent epsilon {client.epsilon:.6g} in {client.rounds} rounds, above the predicted "
                f"{most:.6g}: stop the run, and compare {name}'s ledger with the plan"
            )
    return lines


def lines_of_prediction(prediction: Prediction, found: Realised | None) -> Iterator[str]:
    """The table, for people."""
    rounds, shown = prediction.rounds, _some(prediction.rounds)
    yield (
        f"predicted: {rounds} rounds, {prediction.parameters} parameters, plan {prediction.plan[:12]}; epsilon at "
        f"delta {prediction.delta:g}"
    )
    heads = [f"round {number}" for number in shown]
    same = found if found is not None and found.plan == prediction.plan else None
    did = f"{'spent':>10} {'in rounds':>10} told by" if same else ""
    yield (
        f"{'client':<24}{'records':>8} "
        + "".join(f"{head:>10}" for head in heads)
        + f"{'expected':>10} {did}"
    )
    for name, client in prediction.clients.items():
        spent = "".join(f"{_said(client.epsilon[number - 1]):>10}" for number in shown)
        line = f"{name:<24}{client.records:>8} {spent}{_said(client.expected_epsilon):>10} "
        if same is not None and name in same.clients:
            own = same.clients[name]
            line += f"{_said(own.epsilon):>10} {own.rounds:>10} {own.told_by}"
        yield line
    if prediction.client_level and prediction.client_level[-1] is not None:
        yield f"client level: epsilon {_said(prediction.client_level[-1])}, of noise that clients trust the server for"
    traffic = prediction.traffic
    yield (
        f"bytes of a round and client: {traffic.down} down, {traffic.up} up before it is compressed, about "
        f"{traffic.overhead} of requests, polling and TLS"
    )
    replies = sum(prediction.replies) / max(1, rounds)
    yield (
        f"seconds of a round: {_mean(prediction.seconds):.1f}; of the run: {sum(prediction.seconds):.0f}, without "
        f"joining; {replies:.1f} of {_mean(prediction.asked):.1f} clients asked answer in time"
    )
    yield from _lines_of_run(prediction, found)


def _lines_of_run(prediction: Prediction, found: Realised | None) -> Iterator[str]:
    if found is None:
        yield "no run has begun"
        return
    if found.plan != prediction.plan:
        yield f"the newest run, {found.out}, follows another plan ({found.plan[:12]}): it is not compared"
        return
    carried = found.bytes_per_round_and_client
    bytes_ = "not known, the server does not answer" if carried is None else f"{carried:.0f}"
    yield (
        f"realised: {found.out}: {found.rounds} of {prediction.rounds} rounds, {_mean(found.seconds):.1f} seconds and "
        f"{_mean(found.replies):.1f} replies a round; bytes of messages for a round and client: {bytes_}"
    )
    if not above(prediction, found):
        yield "the realised spend is nowhere above the predicted"


def _told_by_gate(folder: Path, token: str, curve: Sequence[float | None]) -> ClientRealised | None:
    try:
        status = json.loads((folder / "state" / STATUS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the folder is at the client
    for run in status["runs"]:
        if token and run["run"] == token:
            rounds = len(run["released"])
            spent = run["realised_epsilon"]
            return ClientRealised(
                rounds=rounds, epsilon=_most(curve, rounds) if spent is None else spent, told_by="gate"
            )
    return ClientRealised(rounds=0, epsilon=0.0, told_by="gate")


def _most(curve: Sequence[float | None], rounds: int) -> float | None:
    return 0.0 if not rounds else curve[min(rounds, len(curve)) - 1] if curve else None


def _some(rounds: int) -> list[int]:
    return sorted({1, max(1, rounds // 2), rounds})


def _said(value: float | None) -> str:
    return "none" if value is None else epsilon(value)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
