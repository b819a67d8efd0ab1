"""Messages between a server and the gates of its clients, in as few pieces as Flower lets them have.

Flower sends each record and each array of a message in a request of its own, and a request has more than a kilobyte
of its own. So what a round asks for is one record: its number, the plan, the run's name, and the model as one piece of
bytes. The experiment is not in it: a gate keeps what it was sent when it joined. A trained model, a fold or a score
comes back as one record too, its bytes sorted by their place in a number and compressed (zlib), which loses nothing.
Only the server opens something compressed, and never more of it than a rule's fold has; a gate opens nothing that is.

A stage of secure aggregation is its own record beside that, and its answer one record with the client's words, which
look like chance and are not compressed.

What is not packed is left as it is: an announcement, a correction, errors.
"""

import math
import zlib
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedsafe.errors import EngineError
from fedsafe.federation.secure_messages import SECURE, StageReply, stage_content
from fedsafe.params import Layout

PACKED = "packed"
KEYS: Mapping[str, type] = {"server-round": int, "plan": str, "run": str, "parameters": bytes}
"""What the record of a request has, and nothing else."""
_NUMBER = 4  # bytes of a float32
_LEVEL = 6
_FORM, _DATA = "form ", "data "
_FORMS = ("<f4", "<f8", "<i8")
_MOST_SIDES = 4
_MOST_BYTES = 64  # for each parameter: the folds of our own rules have at most 16
_BYTES_BESIDE = 2**16


def pack_request(content: RecordDict, run: str) -> RecordDict:
    """The content of a message to a gate, with its model and numbers in one record.

    Args:
        content: Of a train or evaluate message, as `fedsafe.federation.messages.instruction_content` gives it, or of a
            stage of secure aggregation, which may have no model.
        run: The server's name of the run, by which the gate knows the experiment.
    """
    if SECURE in content and "arrays" not in content:
        return RecordDict({PACKED: ConfigRecord({"run": run}), **content})
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
    """A trained model, a fold or a score in one record; other replies as they are."""
    others: dict[str, Any]
    if "upload" in content.array_records:
        arrays, others = dict(content.array_records["upload"]), {**content.metric_records["info"]}
    elif set(content) == {"fold", "info", "error"}:
        arrays = dict(content.array_records["fold"])
        others = {**content.metric_records["info"], **content.config_records["error"]}
    else:
        return content
    values = {name: array.numpy() for name, array in arrays.items()}
    if any(value.dtype.str not in _FORMS for value in values.values()):
        return content
    packed = dict(others)
    for name, value in values.items():
        packed[_FORM + name] = " ".join([value.dtype.str, *map(str, value.shape)])
        packed[_DATA + name] = _squeezed(value)
    return RecordDict({PACKED: ConfigRecord(packed)})


def pack_stage(client: int, said: bytes) -> RecordDict:
    """What a gate says at a stage of secure aggregation; nothing, once it was told that the round has ended."""
    return RecordDict({PACKED: ConfigRecord({"client": client, "said": said})})


def unpack_reply(reply: Message, parameters: int) -> Message:
    """A reply with the content that :func:`pack_reply` was given; others as they are.

    Args:
        reply: From a client, who may send anything; what cannot be unpacked becomes an error.
        parameters: Of the model; nothing much larger is ever put together.
    """
    if reply.has_error() or PACKED not in reply.content:
        return reply
    try:
        content = _unpacked(reply.content.config_records[PACKED], _MOST_BYTES * parameters + _BYTES_BESIDE)
    except (KeyError, ValueError, TypeError, AttributeError, zlib.error):
        reply.__dict__["_content"] = None
        reply.__dict__["_error"] = Error(code=0, reason="a packed reply that cannot be unpacked")
        return reply
    reply.content = content
    return reply


def _unpacked(record: ConfigRecord, most: int) -> RecordDict:
    if set(record) == {"client", "said"}:
        return _stage(record["client"], record["said"])
    arrays, others, left = {}, {}, most
    for key, value in record.items():
        if key.startswith(_DATA):
            name = key.removeprefix(_DATA)
            array = _expanded(cast("bytes", value), cast("str", record[_FORM + name]), left)
            arrays[name], left = Array(array), left - array.nbytes
        elif not key.startswith(_FORM):
            others[key] = value
    if set(others) == {"examples"}:
        return RecordDict({"upload": ArrayRecord(arrays), "info": MetricRecord(others)})  # type: ignore[arg-type]
    error = ConfigRecord({"text": str(others.pop("text"))})
    if set(others) != {"clients", "failures", "cpu-seconds"}:
        raise ValueError("it says neither on how many records nor for how many clients it is")
    return RecordDict({"fold": ArrayRecord(arrays), "info": MetricRecord(others), "error": error})  # type: ignore[arg-type]


def _stage(client: object, said: object) -> RecordDict:
    """Whose it is will be seen by its signature."""
    if type(client) is not int or not 0 <= client < 2**31 or not isinstance(said, bytes):
        raise ValueError("it says neither who nor what")
    heard = {client: said} if said else {}
    return stage_content(StageReply(said=heard, states={}, failures=0, error="", cpu_seconds=0.0))


def _squeezed(values: NDArray[Any]) -> bytes:
    """Signs and exponents of numbers of one size are alike, which is seen once they stand side by side."""
    places = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(values.size, values.itemsize).T
    return zlib.compress(np.ascontiguousarray(places).tobytes(), _LEVEL)


def _expanded(data: bytes, form: str, most: int) -> NDArray[Any]:
    """The array again.

    Raises:
        ValueError: It is not of the form that is said, or larger than what may be.
    """
    kind, *sides = form.split(" ")
    if kind not in _FORMS or len(sides) > _MOST_SIDES or not all(s.isascii() and s.isdigit() for s in sides):
        raise ValueError(f"an array of the form {form[:40]!r}")
    shape = tuple(int(side) for side in sides)
    count, item = math.prod(shape), np.dtype(kind).itemsize
    if count * item > most:
        raise ValueError(f"an array of {count * item} bytes")
    reader = zlib.decompressobj()
    whole = reader.decompress(data, count * item + 1)
    if len(whole) != count * item or not reader.eof or reader.unused_data:
        raise ValueError("an array of another size than it says")
    places = np.frombuffer(whole, np.uint8).reshape(item, count).T
    return np.ascontiguousarray(places).view(kind).reshape(shape)
