"""What one example looks like, whatever it is: its shape, public bounds, and what may be changed in it."""

import hashlib
import re
from dataclasses import dataclass, fields, is_dataclass
from functools import cached_property
from math import prod
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fedsafe.errors import DataError


class InputSchema(Protocol):
    """The public description of inputs; :class:`fedsafe.data.Schema` is the one of tables."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example."""

    @property
    def vocabulary(self) -> int | None:
        """Number of tokens where inputs are tokens; None for float features."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the features, in flat order."""

    @property
    def low(self) -> NDArray[np.float32]:
        """Smallest encoded values, of shape ``shape``."""

    @property
    def high(self) -> NDArray[np.float32]:
        """Largest encoded values, of shape ``shape``."""

    @property
    def perturbable(self) -> NDArray[np.bool_]:
        """What a bounded perturbation may move, of shape ``shape``."""

    @property
    def immutable(self) -> NDArray[np.bool_]:
        """What a person cannot change, of shape ``shape``."""

    @property
    def one_hot(self) -> tuple[tuple[int, ...], ...]:
        """Groups of flat indices of which exactly one is 1."""


def public_facts(schema: InputSchema) -> str:
    """Everything public that decides what the inputs mean, as one text: equal schemas give equal texts.

    The bounds of a raw column are among it, though they encode to the same range whatever they are. A schema's
    ``note`` is not: nothing is computed from it.
    """
    arrays = [schema.low, schema.high, schema.perturbable, schema.immutable]
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()
    own, values = "", cast("Any", schema)  # a protocol does not say that it may be a dataclass
    if is_dataclass(values):
        kept = [field.name for field in fields(values) if field.repr and field.name != "note"]
        own = ", ".join(f"{name}={getattr(values, name)!r}" for name in kept)
        own = re.sub(r" at 0x[0-9a-f]+", "", own)  # an address differs from process to process
    shape, groups = tuple(map(int, schema.shape)), schema.one_hot
    return f"{type(schema).__name__}({own}) {shape} {schema.vocabulary} {groups} {digest}"


@dataclass(frozen=True, kw_only=True)
class ArraySchema:
    """Float features of one public range: images, signals, or vectors that somebody else computed.

    Args:
        shape: Of one example, e.g. ``(1, 28, 28)`` for grey images (channels first).
        lowest: Smallest encoded value.
        highest: Largest encoded value.
        names: Names of the features in flat order; by default their position.

    Raises:
        DataError: If the shape is empty, the range is not one, or the names do not fit.
    """

    shape: tuple[int, ...]
    lowest: float
    highest: float
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise DataError(f"An example of shape {self.shape} has no features.")
        if not (np.isfinite(self.lowest) and np.isfinite(self.highest) and self.lowest < self.highest):
            raise DataError(f"The range [{self.lowest}, {self.highest}] is empty or not finite.")
        if self.names and len(self.names) != prod(self.shape):
            raise DataError(f"{len(self.names)} names for {prod(self.shape)} features.")

    @property
    def vocabulary(self) -> None:
        """No tokens."""
        return

    @cached_property
    def feature_names(self) -> tuple[str, ...]:
        """The names given, or ``"0,3,7"`` for the feature at that position."""
        return self.names or tuple(",".join(map(str, at)) for at in np.ndindex(*self.shape))

    @property
    def low(self) -> NDArray[np.float32]:
        """Smallest encoded values."""
        return np.full(self.shape, self.lowest, np.float32)

    @property
    def high(self) -> NDArray[np.float32]:
        """Largest encoded values."""
        return np.full(self.shape, self.highest, np.float32)

    @property
    def perturbable(self) -> NDArray[np.bool_]:
        """Everything."""
        return np.ones(self.shape, np.bool_)

    @property
    def immutable(self) -> NDArray[np.bool_]:
        """Nothing."""
        return np.zeros(self.shape, np.bool_)

    @property
    def one_hot(self) -> tuple[tuple[int, ...], ...]:
        """No groups."""
        return ()


@dataclass(frozen=True, kw_only=True)
class TokenSchema:
    """Sequences of tokens of one length.

    Args:
        tokens: The public vocabulary; a token's number is its position.
        length: Tokens in one example.

    Raises:
        DataError: If there are fewer than two tokens, one comes twice, or the length is not positive.
    """

    tokens: tuple[str, ...]
    length: int

    def __post_init__(self) -> None:
        if len(self.tokens) < 2 or len(set(self.tokens)) != len(self.tokens) or self.length < 1:
            raise DataError(
                f"A vocabulary needs two or more different tokens and a length from 1: got {len(self.tokens)} tokens, "
                f"length {self.length}."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """One number for each position."""
        return (self.length,)

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        return len(self.tokens)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Positions, counted back from the newest."""
        return tuple(f"{self.length - position} back" for position in range(self.length))

    @property
    def low(self) -> NDArray[np.float32]:
        """The first token."""
        return np.zeros(self.shape, np.float32)

    @property
    def high(self) -> NDArray[np.float32]:
        """The last token."""
        return np.full(self.shape, len(self.tokens) - 1, np.float32)

    @property
    def perturbable(self) -> NDArray[np.bool_]:
        """Nothing: between two tokens there is none."""
        return np.zeros(self.shape, np.bool_)

    @property
    def immutable(self) -> NDArray[np.bool_]:
        """Nothing."""
        return np.zeros(self.shape, np.bool_)

    @property
    def one_hot(self) -> tuple[tuple[int, ...], ...]:
        """No groups."""
        return ()
