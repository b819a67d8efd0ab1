"""Models and numbers in Flower's records, and a grid that gives messages their ids."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from fedsafe.engine.grid import LocalGrid
from fedsafe.errors import ConfigError
from fedsafe.federation.arrays import values_of
from fedsafe.params import Layout, Vector
from fedsafe.verify.loading import caught


@dataclass(kw_only=True)
class NodesOnly(LocalGrid):
    """A grid that knows its nodes, and delivers nothing."""

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        """Nobody answers here: the session does."""
        raise NotImplementedError("only configure_train and aggregate_train are called")

    def push(self, messages: Sequence[Message]) -> None:
        """Messages get their ids, and go nowhere."""

    def pull(self, numbers: Sequence[str]) -> list[Message]:
        """Nothing has arrived."""
        return []


def packed(vector: Vector, layout: Layout) -> ArrayRecord:
    """A vector as named arrays."""
    return ArrayRecord(
        {name: Array(np.ascontiguousarray(value)) for name, value in layout.split(vector).items()}
    )


def unpacked(arrays: ArrayRecord, layout: Layout) -> NDArray[np.float64]:
    """``(parameters,)`` of named arrays.

    Raises:
        ValueError: A name or shape is not the model's.
    """
    parts = []
    for name, shape in zip(layout.names, layout.shapes, strict=True):
        if name not in arrays:
            raise ValueError(f"the released model has no {name!r}")
        value = values_of(arrays[name])
        if value.shape != shape:
            raise ValueError(f"{name!r} has shape {value.shape}, not {shape}")
        parts.append(np.asarray(value, np.float64).ravel())
    return np.concatenate(parts)


def arrays_of(source: Callable[[], Any]) -> tuple[Layout, Vector]:
    """Names, shapes and initial values of what a claim's model function returns.

    Raises:
        ConfigError: It returns neither a module, nor a state dict, nor an ArrayRecord.
    """
    given, error = caught(source)
    state = given.state_dict() if hasattr(given, "state_dict") else given
    if error or not hasattr(state, "items"):
        raise ConfigError(
            f"the claim's model function gave {error or type(given).__name__}, not a module, state dict or ArrayRecord"
        )
    values = {name: np.asarray(value.numpy(), np.float32) for name, value in state.items()}
    layout = Layout(names=tuple(values), shapes=tuple(value.shape for value in values.values()))
    return layout, layout.join(values)


def numbers_in(contents: Iterable[RecordDict]) -> dict[str, float]:
    """Every number in the metrics and configurations of messages, by name; lists entry by entry."""
    found: dict[str, float] = {}
    for content in contents:
        for records in (content.metric_records, content.config_records):
            for record in records.values():
                for name, value in record.items():
                    for suffix, single in _singles(value):
                        found[f"{name}{suffix}"] = single
    return found


def _singles(value: Any) -> list[tuple[str, float]]:
    if isinstance(value, list):
        return [(f"[{i}]", float(v)) for i, v in enumerate(value) if isinstance(v, int | float)]
    return [("", float(value))] if isinstance(value, int | float) else []
