"""A model's parameters as one vector, with the names and shapes that give it back."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each named tensor lies in the vector.

    Args:
        names: Parameter names, in the order of the vector.
        shapes: Their shapes.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of values of each tensor."""
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def total(self) -> int:
        """Length of the vector."""
        return sum(self.sizes)

    def join(self, tensors: Mapping[str, NDArray[np.float32]]) -> Vector:
        """``(total,)`` vector of the named tensors."""
        return np.concatenate([np.asarray(tensors[name], np.float32).ravel() for name in self.names])

    def split(self, vector: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """The named tensors, as views of the vector."""
        bounds = np.cumsum(self.sizes)[:-1]
        parts = np.split(vector, bounds)
        return {n: part.reshape(s) for n, part, s in zip(self.names, parts, self.shapes, strict=True)}


def fingerprint(vector: NDArray[np.float32]) -> str:
    """SHA-256 of the vector's bytes (little endian), in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(vector, dtype="<f4").tobytes()).hexdigest()


def input_digest(vector: NDArray[np.float32], plan_hash: str) -> bytes:
    """Digest of everything a client's release depends on besides its records: parameters and plan."""
    return hashlib.sha256(f"{plan_hash}:{fingerprint(vector)}".encode()).digest()
