"""What a client makes of a request that was held to everything: a noised update or score, under its own key."""

from dataclasses import dataclass, replace
from typing import Any

from flwr.app import Message, RecordDict

from fedsafe.apps.packing import pack_reply
from fedsafe.deploy.experiment import Experiment
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.deploy.requests import Request
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import TRAIN, read_reply
from fedsafe.privacy.mechanisms import Grid
from fedsafe.runs.metrics import RoundMetrics


@dataclass
class Ready:
    """An experiment with what answers for it."""

    experiment: Experiment
    runtime: ClientRuntime
    metrics: RoundMetrics


@dataclass(frozen=True)
class _Context:
    """The part of a Flower context that the runtime reads."""

    node_config: dict[str, Any]


def made(message: Message, request: Request, ready: Ready) -> RecordDict:
    """The content of a reply.

    Raises:
        Refused: Training failed.
    """
    # Who this is was never the server's to say: the runtime looks it up here.
    context, runtime = _Context({"partition-id": ready.experiment.client}), replace(ready.runtime)
    # Whoever packs a request understands the shorter answer.
    short = request.experiment is None and request.kind == TRAIN
    reply = (runtime.upload if short else runtime.answer)(message, context)  # type: ignore[arg-type]
    if "upload" in reply.content:
        return pack_reply(reply.content)
    said = read_reply(reply)
    if said is None or said.failures:
        raise Refused(Refusal.FAILED, "training failed")
    content: RecordDict = reply.content
    return pack_reply(content) if request.experiment is None else content


def share(message: Message, ready: Ready) -> Grid:
    """``(values,)`` what this client gives to a secure sum, before it is masked: with its share of the noise."""
    client = ready.experiment.client
    context = _Context({"partition-id": client})
    return replace(ready.runtime).shares([message], [context])[client]  # type: ignore[list-item]
