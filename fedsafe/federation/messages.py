"""The codec between FedSafe's values and Flower's records. Both entry points of a client speak it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsafe.aggregation import Fold
from fedsafe.errors import EngineError
from fedsafe.federation.arrays import values_of
from fedsafe.params import Layout, Vector

TRAIN = "train"
EVALUATE = "evaluate"

# What reading gives where a client sent other records, or arrays that are none.
_NOT_SENT = (KeyError, TypeError, ValueError, AttributeError)

_CORRECTION = "correction"
_ANNOUNCED = "announced"


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What a client is asked to train from, or to evaluate.

    Args:
        round: The round, from 1.
        plan: Hash of the privacy plan that the server follows.
        parameters: The broadcast model.
        announced: Public numbers that the aggregator announces for this round.
    """

    round: int
    plan: str
    parameters: Vector
    announced: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What comes back for one client or for a chunk of them.

    Args:
        fold: The folded updates, or scores.
        clients: Clients who did what was asked.
        failures: Clients who failed; each counts as zero.
        error: What the first failure said, or nothing.
        cpu_seconds: Processor time that it took.
    """

    fold: Fold
    clients: int
    failures: int
    error: str
    cpu_seconds: float


def pack_parameters(vector: Vector, layout: Layout) -> ArrayRecord:
    """The model as named arrays, as every Flower app expects it."""
    return ArrayRecord({name: Array(value) for name, value in layout.split(vector).items()})


def unpack_parameters(arrays: ArrayRecord, layout: Layout) -> Vector:
    """``(parameters,)`` vector of named arrays.

    Raises:
        EngineError: A name or shape is not the model's.
    """
    found = {name: values_of(array) for name, array in arrays.items()}
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name not in found or found[name].shape != shape:
            got = found[name].shape if name in found else "nothing"
            raise EngineError(f"parameter {name} should have shape {shape}, the message carries {got}")
    return layout.join(found)


def instruction_content(
    arrays: ArrayRecord, *, round: int, plan: str, announced: Mapping[str, float] | None = None
) -> RecordDict:
    """The content of a message to a client; many messages share one."""
    content = RecordDict({"arrays": arrays, "config": ConfigRecord({"server-round": round, "plan": plan})})
    if announced:
        content[_ANNOUNCED] = MetricRecord(dict(announced))
    return content


def with_correction(content: RecordDict, correction: Vector) -> RecordDict:
    """The same content with a record of its own for one client's correction; the model's record stays shared."""
    return RecordDict({**content, _CORRECTION: ArrayRecord({_CORRECTION: Array(correction)})})


def read_instruction(message: Message, layout: Layout) -> Instruction:
    """What a message asks for."""
    config = message.content.config_records["config"]
    return Instruction(
        round=cast("int", config["server-round"]),
        plan=cast("str", config["plan"]),
        parameters=unpack_parameters(message.content.array_records["arrays"], layout),
        announced={
            k: float(cast("float", v)) for k, v in message.content.metric_records.get(_ANNOUNCED, {}).items()
        },
    )


def read_correction(message: Message, layout: Layout) -> Vector | None:
    """``(parameters,)`` to add to every step's gradient, if the message carries one.

    Raises:
        EngineError: It is not as long as the model.
    """
    record = message.content.array_records.get(_CORRECTION)
    if record is None:
        return None
    correction: Vector = values_of(record[_CORRECTION]).astype(np.float32, copy=False)
    if correction.shape != (layout.total,):
        raise EngineError(
            f"a correction should have shape ({layout.total},), the message carries {correction.shape}"
        )
    return correction


def announced_digest(shared: bytes, announced: Mapping[str, float]) -> bytes:
    """Digest of the broadcast parameters and the plan together with what was announced beside them."""
    if not announced:
        return shared
    return hashlib.sha256(shared + json.dumps(dict(announced), sort_keys=True).encode()).digest()


def release_digest(shared: bytes, correction: Vector | None) -> bytes:
    """Digest of everything that a client's release depends on besides its records.

    Args:
        shared: Digest of the broadcast parameters and the plan (``fedsafe.params.input_digest``).
        correction: Of this client. Another one must not meet the same noise.
    """
    if correction is None:
        return shared
    return hashlib.sha256(shared + np.ascontiguousarray(correction, "<f4").tobytes()).digest()


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A client's trained model, for the server to fold: a quarter of the bytes of FedAvg's fold.

    Args:
        parameters: ``(parameters,)`` float32, as trained.
        examples: How many records it was trained on, which is public.
    """

    parameters: Vector
    examples: int


def upload_message(upload: Upload, to: Message) -> Message:
    """A trained model as a Flower message."""
    trained = np.ascontiguousarray(upload.parameters, np.float32)
    info = MetricRecord({"examples": upload.examples})
    return Message(
        RecordDict({"upload": ArrayRecord({"trained": Array(trained)}), "info": info}), reply_to=to
    )


def read_upload(message: Message, layout: Layout) -> Upload | None:
    """The trained model that a message carries; None for one that carries something else.

    Raises:
        EngineError: It is not as long as the model, the number of records is none, or either is not there.
    """
    if message.has_error() or "upload" not in message.content.array_records:
        return None
    try:
        trained = values_of(message.content.array_records["upload"]["trained"])
        examples = message.content.metric_records["info"]["examples"]
    except _NOT_SENT as error:
        raise EngineError(
            f"a client sent something else than a trained model ({type(error).__name__})"
        ) from error
    if trained.shape != (layout.total,) or trained.dtype != np.float32:
        raise EngineError(
            f"a trained model should be {layout.total} numbers of float32, a client sent {trained.dtype} of the shape "
            f"{trained.shape}"
        )
    if not isinstance(examples, int) or not 0 < examples < 2**53:
        raise EngineError(f"a client says that it trained on {examples!r} records")
    return Upload(parameters=trained, examples=examples)


def reply_message(reply: Reply, to: Message) -> Message:
    """A reply as a Flower message."""
    fold = ArrayRecord(
        {name: Array(np.ascontiguousarray(value)) for name, value in reply.fold.arrays.items()}
    )
    info = MetricRecord(
        {"clients": reply.clients, "failures": reply.failures, "cpu-seconds": reply.cpu_seconds}
    )
    content = RecordDict({"fold": fold, "info": info, "error": ConfigRecord({"text": reply.error})})
    return Message(content, reply_to=to)


def read_reply(message: Message) -> Reply | None:
    """The reply that a message carries; None for one that only carries an error.

    Raises:
        EngineError: It carries neither.
    """
    if message.has_error():
        return None
    try:
        info = message.content.metric_records["info"]
        fold = message.content.array_records["fold"]
        return Reply(
            fold=Fold(arrays={name: values_of(array) for name, array in fold.items()}),
            clients=cast("int", info["clients"]),
            failures=cast("int", info["failures"]),
            error=cast("str", message.content.config_records["error"]["text"]),
            cpu_seconds=cast("float", info["cpu-seconds"]),
        )
    except _NOT_SENT as error:
        raise EngineError(f"a client sent something else than a fold ({type(error).__name__})") from error
