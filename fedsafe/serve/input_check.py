"""Whether an encoded input can be a record at all: finite, within the public bounds, one-hot where it must be."""

import contextlib

import numpy as np
from numpy.typing import NDArray

from fedsafe.data import InputSchema
from fedsafe.errors import DataError
from fedsafe.serve.detectors.base import Floats

_SLACK = 1e-5


class InputCheck:
    """Checks encoded inputs against a public schema.

    Args:
        schema: The schema.
    """

    def __init__(self, schema: InputSchema) -> None:
        self.shape = tuple(schema.shape)
        self._low = np.asarray(schema.low, np.float32).ravel() - np.float32(_SLACK)
        self._high = np.asarray(schema.high, np.float32).ravel() + np.float32(_SLACK)
        self._names = tuple(schema.feature_names)
        groups = schema.one_hot
        self._member = np.zeros((len(self._low), len(groups)), np.float32)
        for column, group in enumerate(groups):
            self._member[list(group), column] = 1.0

    def array(self, x: object) -> Floats:
        """``(n, *inputs)`` float32 of what a caller gave.

        Raises:
            DataError: It is no array of numbers of that shape.
        """
        try:
            found = np.asarray(x)
            if found.dtype == np.bool_ or found.dtype.kind not in "fiu":
                raise ValueError(f"it holds {found.dtype}")
            if found.dtype != np.float32:
                with np.errstate(over="ignore"):
                    found = found.astype(np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the inputs are no array of numbers ({error}); give {self._wanted}") from error
        if found.ndim != len(self.shape) + 1 or found.shape[1:] != self.shape:
            raise DataError(f"the inputs have the shape {found.shape}; give {self._wanted}")
        return found

    @property
    def _wanted(self) -> str:
        return f"an array of shape (n, {', '.join(map(str, self.shape))})"

    def wrong(self, x: Floats) -> tuple[NDArray[np.bool_], dict[int, str]]:
        """Which of ``(n, *inputs)`` are no record.

        Returns:
            ``(n,)`` flags, and for each flagged row what is wrong.
        """
        flat = x.reshape(len(x), -1)
        inside = (flat >= self._low) & (flat <= self._high)  # False also where it is no number
        whole = np.count_nonzero(inside) == inside.size
        with contextlib.nullcontext() if whole else np.errstate(invalid="ignore", over="ignore"):
            fits = self._one_hot(flat)
        if whole and np.count_nonzero(fits) == fits.size:
            return np.zeros(len(flat), np.bool_), {}
        bad = np.asarray(~(inside & fits.all(axis=1, keepdims=True)).all(axis=1))
        return bad, {int(row): self._why(flat[row], ~inside[row]) for row in np.flatnonzero(bad)}

    def _one_hot(self, flat: Floats) -> NDArray[np.bool_]:
        """``(..., groups)`` whether a group is ones and zeros alone, and one 1: its sum and its squares' are 1 then."""
        return np.asarray((flat @ self._member == 1.0) & (np.square(flat) @ self._member == 1.0))

    def _why(self, values: Floats, outside: NDArray[np.bool_]) -> str:
        if not np.isfinite(values).all():
            return f"not finite at {self._names[int((~np.isfinite(values)).argmax())]}"
        if outside.any():
            return f"outside its bounds at {self._names[int(outside.argmax())]}"
        odd = np.flatnonzero(~self._one_hot(values))
        column = int(odd[0]) if len(odd) else 0
        first = self._names[int(self._member[:, column].argmax())]
        return f"not exactly one category of {first.split('=')[0]}"
