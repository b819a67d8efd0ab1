"""Records of the checks' choosing, in the shape in which an app gets its own."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from fedsafe.errors import ConfigError

_KINDS = "a pair (x, y) of arrays or tensors, a TensorDataset, a DataLoader over one, or a pair (train, test) of these"


@dataclass(frozen=True, kw_only=True)
class Records:
    """``(records, ...)`` float32 inputs and ``(records,)`` integer classes."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]


def shape_of(given: Any) -> tuple[int, ...]:
    """Shape of one record of what an app's function returned.

    Raises:
        ConfigError: It is of no kind that can be replaced.
    """
    x = _inputs(given)
    return tuple(int(size) for size in x.shape[1:])


def replaced(given: Any, records: Records) -> Any:
    """The same kind of object with other records in it."""
    if _is_pair_of_arrays(given):
        values = (_like(given[0], records.x), _like(given[1], records.y))
        return type(given)(values) if isinstance(given, list) else values
    if isinstance(given, TensorDataset):
        x, y = given.tensors
        return TensorDataset(_like(x, records.x), _like(y, records.y))
    if isinstance(given, DataLoader):
        return DataLoader(
            replaced(given.dataset, records),
            batch_size=given.batch_size,
            shuffle=isinstance(given.sampler, RandomSampler),
            drop_last=given.drop_last,
        )
    return tuple(replaced(part, records) for part in given)


def _inputs(given: Any) -> Any:
    if _is_pair_of_arrays(given):
        return given[0]
    if isinstance(given, TensorDataset) and len(given.tensors) == 2:
        return given.tensors[0]
    if isinstance(given, DataLoader):
        return _inputs(given.dataset)
    if isinstance(given, tuple | list) and len(given) == 2:
        return _inputs(given[0])
    raise ConfigError(f"client.data returned {type(given).__name__}: verify can replace {_KINDS}")


def _is_pair_of_arrays(given: Any) -> bool:
    return (
        isinstance(given, tuple | list)
        and len(given) == 2
        and all(isinstance(part, Tensor | np.ndarray) for part in given)
    )


def _like(template: Tensor | NDArray[Any], values: NDArray[Any]) -> Any:
    if isinstance(template, Tensor):
        return torch.from_numpy(values.copy()).to(template.dtype)
    return values.astype(template.dtype)
