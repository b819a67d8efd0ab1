"""What a message of a server may carry, to the last byte: anything else is not read.

An array is compared with the header that FedSafe itself writes for a parameter of the agreed model: no header of a
server's is ever parsed, nothing pickled or compressed is opened, and no shape is believed.
"""

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, Message
from flwr.common.constant import SType

from fedsafe.aggregation.secure import STAGES
from fedsafe.apps.nodes import EXPERIMENT, JOIN, RUN
from fedsafe.apps.packing import KEYS, PACKED, unpack_request
from fedsafe.deploy.refusals import Refusal, Refused
from fedsafe.errors import EngineError
from fedsafe.federation.messages import EVALUATE, TRAIN
from fedsafe.federation.secure_messages import ENDS, SECURE, TRAINS, StageRequest, read_stage
from fedsafe.params import Layout

_RELEASES = {TRAIN: {"arrays", "config", "announced", "correction"}, EVALUATE: {"arrays", "config"}}
_STAGE_KEYS = {"stage", "round", "plan", "inputs", "said", "state"}
_DIGEST = 32  # bytes
_TOKEN = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a message asks for, before it is known what of it is allowed.

    Args:
        kind: ``"query.join"``, ``"train"`` or ``"evaluate"``.
        run: The server's name of the run.
        experiment: The whole configuration, as TOML; None in a packed message, of a run that was joined before.
        stage: Of secure aggregation; None where an update is to be sent by itself.
    """

    kind: str
    run: str
    experiment: str | None
    stage: StageRequest | None = None

    @property
    def joins(self) -> bool:
        """Whether nothing is to be released."""
        return self.kind == JOIN


def read_request(message: Message) -> Request:
    """The request in a message.

    Raises:
        Refused: It is none of the three, or carries something else besides.
    """
    kind = message.metadata.message_type
    if kind != JOIN and kind not in _RELEASES:
        raise _not_understood(f"a message of type {kind!r}")
    if not message.has_content():
        raise _not_understood("a message without content")
    if PACKED in message.content:
        return _packed_request(message, kind)
    carried = set(message.content) - {EXPERIMENT}
    if unknown := carried - _RELEASES.get(kind, set()):
        raise _not_understood(f"a {kind} message carries {', '.join(sorted(map(repr, unknown)))}")
    experiment = message.content.config_records.get(EXPERIMENT)
    if experiment is None:
        raise _not_understood("the message names no experiment")
    text, run = experiment.get("config"), experiment.get(RUN)
    if not isinstance(text, str) or not isinstance(run, str) or not _TOKEN.fullmatch(run):
        raise _not_understood("the message has no configuration, or no name of the run")
    return Request(kind=kind, run=run, experiment=text)


def _packed_request(message: Message, kind: str) -> Request:
    if kind == JOIN:
        raise _not_understood("a packed message to join")
    stage = _stage(message) if kind == TRAIN and SECURE in message.content else None
    keys = KEYS if stage is None or stage.stage == TRAINS else {"run": str}
    beside = set(message.content) - ({PACKED} if stage is None else {PACKED, SECURE})
    if unknown := beside - (_RELEASES[kind] - {"arrays", "config"} if keys is KEYS else set()):
        raise _not_understood(f"a packed {kind} message carries {', '.join(sorted(map(repr, unknown)))}")
    packed = message.content.config_records.get(PACKED)
    if (
        packed is None
        or set(packed) != set(keys)
        or any(type(packed[key]) is not form for key, form in keys.items())
    ):
        raise _not_understood("a packed message that does not have what one has")
    run = packed["run"]
    if not isinstance(run, str) or not _TOKEN.fullmatch(run):
        raise _not_understood("the message has no name of the run")
    return Request(kind=kind, run=run, experiment=None, stage=stage)


def _stage(message: Message) -> StageRequest:
    """The stage of secure aggregation in a packed message."""
    record = message.content.config_records.get(SECURE)
    if record is None or set(record) != _STAGE_KEYS:
        raise _not_understood("a stage of secure aggregation that does not have what one has")
    try:
        stage = read_stage(message)
    except EngineError as error:
        raise _not_understood(str(error)) from error
    # A client's state is its own: what a server sends as one is not looked at.
    if stage is None or stage.stage not in (*STAGES, ENDS) or stage.state or len(stage.inputs) != _DIGEST:
        raise _not_understood("a stage of secure aggregation that there is not, or a state, or other inputs")
    return stage


def flat_layout(message: Message) -> Layout:
    """A layout of one tensor, as long as the model in a packed message: its vector is that of the agreed one.

    Raises:
        Refused: It has no model.
    """
    try:
        packed = message.content.config_records[PACKED]["parameters"]
    except KeyError:
        raise _not_understood("a packed message without a model") from None
    if not isinstance(packed, bytes) or not packed:
        raise _not_understood("a packed message without a model")
    return Layout(names=("all",), shapes=((len(packed) // 4,),))


def unpack(message: Message, layout: Layout) -> None:
    """Give a packed message the content that the others have; it is held to the same afterwards.

    Raises:
        Refused: Its model has another size.
    """
    if PACKED in message.content:
        try:
            message.content = unpack_request(message.content, layout)
        except EngineError as error:
            raise _not_understood(str(error)) from error


def require_instruction(message: Message, layout: Layout) -> None:
    """Refuse a train or evaluate message that is not one of the agreed model, before a byte of it is decoded.

    Raises:
        Refused: A name, type, shape or length is not the model's, or a value is not finite.
    """
    content = message.content
    config = content.config_records.get("config")
    if (
        config is None
        or set(config) != {"server-round", "plan"}
        or type(config["server-round"]) is not int
        or type(config["plan"]) is not str
    ):
        raise _not_understood("no round or no plan, or something else beside them")
    arrays = content.array_records.get("arrays")
    if arrays is None:
        raise _not_understood("no model")
    _require_arrays(arrays, dict(zip(layout.names, layout.shapes, strict=True)))
    if "correction" in content:
        correction = content.array_records.get("correction")
        _require_arrays({} if correction is None else correction, {"correction": (layout.total,)})
    if "announced" in content:
        announced = content.metric_records.get("announced")
        if announced is None or not all(
            type(value) in (int, float) and math.isfinite(float(value))  # type: ignore[arg-type]
            for value in announced.values()
        ):
            raise _not_understood("what is announced is not finite numbers")


def _require_arrays(arrays: Mapping[str, Array] | ArrayRecord, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if set(arrays) != set(shapes):
        raise _not_understood(f"arrays {sorted(arrays)[:5]}, where the model has {sorted(shapes)[:5]}")
    for name, array in arrays.items():
        header, size = _header(shapes[name]), 4 * math.prod(shapes[name])
        data = array.data
        if array.stype != SType.NUMPY or len(data) != len(header) + size or not data.startswith(header):
            raise _not_understood(f"{name} is not a float32 array of shape {shapes[name]}")
        if not np.isfinite(np.frombuffer(data, "<f4", offset=len(header))).all():
            raise _not_understood(f"{name} has a value that is not finite")


def _header(shape: tuple[int, ...]) -> bytes:
    """What NumPy writes before the values of a float32 array."""
    written = io.BytesIO()
    form = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(written, form)
    return written.getvalue()


def _not_understood(detail: str) -> Refused:
    return Refused(Refusal.MESSAGE_NOT_UNDERSTOOD, detail)
