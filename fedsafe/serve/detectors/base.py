"""What a detector is given, and what it gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import special

Array = NDArray[np.float64]
Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Seen:
    """Some inputs, and what the model makes of them.

    Attributes:
        inputs: ``(n, inputs)`` float32, flat.
        outputs: ``(n, outputs)`` of the model.
        features: ``(n, features)`` that its last linear layer reads.
        classes: Whether the outputs are of a classifier.
        again: Outputs ``(n, outputs)`` of other inputs ``(n, inputs)``, for detectors that ask the model again.
    """

    inputs: Floats
    outputs: Array
    features: Floats
    classes: bool
    again: Callable[[Floats], Array]

    def __len__(self) -> int:
        """Number of inputs."""
        return len(self.inputs)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """``(n,)`` predicted classes; 0 where nothing is classified."""
        if not self.classes:
            return np.zeros(len(self.inputs), np.int64)
        if self.outputs.shape[1] == 1:
            return (self.outputs[:, 0] > 0).astype(np.int64)
        return np.asarray(self.outputs.argmax(axis=1), np.int64)

    @cached_property
    def probabilities(self) -> Array:
        """``(n, classes)``; the outputs where nothing is classified."""
        return probabilities_of(self.outputs) if self.classes else self.outputs

    def space(self, name: str) -> Floats:
        """The ``(n, d)`` "inputs" or "features"."""
        return self.inputs if name == "inputs" else self.features


def probabilities_of(outputs: Array, temperature: float = 1.0) -> Array:
    """``(n, classes)`` of logits ``(n, outputs)``, one logit being that of class 1 against class 0."""
    logits = outputs if temperature == 1.0 else outputs / temperature
    if logits.shape[1] == 1:
        both = np.empty((len(logits), 2))
        both[:, 1] = special.expit(logits[:, 0])
        both[:, 0] = 1.0 - both[:, 1]
        return both
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


class Detector(Protocol):
    """Scores inputs. It is fitted on public inliers alone, and never asks who an input is from."""

    @property
    def name(self) -> str:
        """Its name, as in figures and files."""

    def score(self, seen: Seen) -> Array:
        """``(n,)`` scores; larger is stranger."""

    def state(self) -> tuple[Arrays, Mapping[str, Any]]:
        """Arrays and plain values, from which `fedsafe.serve.detectors.rebuild` makes it again."""
