"""Messages between a server and the gates of its clients, in as few pieces as Flower lets them have.

Flower sends each record and each array of a message in a request of its own, and a request has more than a kilobyte
of its own. So what a round asks for is one record: its number, the plan, the run's name, and the model as one piece of
bytes. The experiment is not in it: a gate keeps what it was sent when it joined. A trained model comes back as one
record too, its bytes sorted by their place in a number and compressed (zlib), which loses nothing. Only the server
opens something compressed, and never more of it than a model has; a gate opens nothing that is.

What is not packed is left as it is: an announcement, a correction, folds, scores, errors.
"""

import zlib
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedsafe.errors import EngineError
from fedsafe.params import Layout, Vector

PACKED = "packed"
KEYS: Mapping[str, type] = {"server-round": int, "plan": str, "run": str, "parameters": bytes}
"""What the record of a request has, and nothing else."""
_NUMBER = 4  # bytes of a float32
_LEVEL = 6


def pack_request(content: RecordDict, run: str) -> RecordDict:
    """The content of a message to a gate, with its model and numbers in one record.

    Args:
        content: Of a train or evaluate message, as `fedsafe.federation.messages.instruction_content` gives it.
        run: The server's name of the run, by which the gate knows the experiment.
    """
    config = content.config_records["config"]
    arrays = content.array_records["arrays"]
    vector = np.concatenate([np.asarray(array.numpy(), "<f4").ravel() for array in arrays.values()])
    packed = ConfigRecord({**config, "run": run, "parameters": vector.tobytes()})
    others = {name: record for name, record in content.items() if name not in ("config", "arrays")}
    return RecordDict({PACKED: packed, **others})


def unpack_request(content: RecordDict, layout: Layout) -> RecordDict:
    """What :func:`pack_request` was given.

    Args:
        content: With a record of `KEYS`; their types are the caller's to check.
        layout: Of the agreed model.

    Raises:
        EngineError: The model has another size.
    """
    packed = content.config_records[PACKED]
    data = packed["parameters"]
    if not isinstance(data, bytes) or len(data) != _NUMBER * layout.total:
        raise EngineError(f"the message's model has not the {_NUMBER * layout.total} bytes of the agreed one")
    tensors = layout.split(np.frombuffer(data, "<f4"))
    others = {name: record for name, record in content.items() if name != PACKED}
    return RecordDict(
        {
            "arrays": ArrayRecord(
                {name: Array(np.ascontiguousarray(value)) for name, value in tensors.items()}
            ),
            "config": ConfigRecord({key: packed[key] for key in ("server-round", "plan")}),
            **others,
        }
    )


def pack_reply(content: RecordDict) -> RecordDict:
    """A trained model in one record; other replies as they are."""
    if "upload" not in content.array_records:
        return content
    trained = np.ascontiguousarray(content.array_records["upload"]["trained"].numpy(), "<f4")
    record = {"trained": _squeezed(trained), "examples": content.metric_records["info"]["examples"]}
    return RecordDict({PACKED: ConfigRecord(record)})  # type: ignore[arg-type]


def unpack_reply(reply: Message, parameters: int) -> Message:
    """A reply with the content that :func:`pack_reply` was given; others as they are.

    Args:
        reply: From a client, who may send anything.
        parameters: Of the model; nothing larger is ever put together.
    """
    if reply.has_error() or PACKED not in reply.content.config_records:
        return reply
    record = reply.content.config_records[PACKED]
    data, examples = record.get("trained"), record.get("examples")
    trained = _expanded(data, parameters) if isinstance(data, bytes) else None
    # What is no model of this size becomes one of no size, which whoever reads it counts as a failure.
    upload = ArrayRecord({"trained": Array(np.zeros(0, np.float32) if trained is None else trained)})
    info = MetricRecord({"examples": examples if type(examples) is int else 0})
    reply.content = RecordDict({"upload": upload, "info": info})
    return reply


def _squeezed(values: Vector) -> bytes:
    """Signs and exponents of numbers of one size are alike, which is seen once they stand side by side."""
    places = values.view(np.uint8).reshape(-1, _NUMBER).T
    return zlib.compress(np.ascontiguousarray(places).tobytes(), _LEVEL)


def _expanded(data: bytes, count: int) -> Vector | None:
    """The numbers again; None where there are not so many."""
    reader = zlib.decompressobj()
    try:
        whole = reader.decompress(data, _NUMBER * count + 1)
    except zlib.error:
        return None
    if len(whole) != _NUMBER * count or not reader.eof or reader.unused_data:
        return None
    places = np.frombuffer(whole, np.uint8).reshape(_NUMBER, count).T
    return np.ascontiguousarray(places).view("<f4").reshape(count).astype(np.float32, copy=False)
