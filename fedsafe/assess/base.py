"""What is judged (`Subject`), and who judges (`Assessor`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from fedsafe.data import Examples, Task
from fedsafe.errors import ConfigError, DataError, ModelError
from fedsafe.findings import Finding, Provenance

Tier = Literal["cheap", "full"]

# Rows in one forward pass: large enough for the matrix product, small enough for any memory.
_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and what judging it needs; it owns the input bounds, so no attack can get them wrong.

    Attributes:
        model: Module in evaluation mode, from ``(n, features)`` to logits ``(n, outputs)``; a binary task has
            ONE logit.
        task: The task, with the public schema.
        evaluation: Labelled examples to judge on.
        evaluation_name: What they are, for example "UCI Adult test split (public)".
        released: What judging on them lets out of private data; None where they are public. Filled in for a
            task that does not declare its evaluation records public.
        shards: Indices into `evaluation`, one array for each client, cut by the rule that cut the clients'
            private records; None where there is no such rule.
        claims: The run's privacy claims, each as a mapping.
        round: The round whose model this is, from 1; 0 outside a run.

    Raises:
        ConfigError: The model is in training mode.
        DataError: The evaluation set is empty, or does not fit the task's schema or classes.
    """

    model: nn.Module
    task: Task
    evaluation: Examples
    evaluation_name: str
    released: str | None = None
    shards: tuple[NDArray[np.int64], ...] | None = None
    claims: tuple[Mapping[str, Any], ...] = ()
    round: int = 0

    def __post_init__(self) -> None:
        if self.model.training:
            raise ConfigError("the subject's model is in training mode; call model.eval() before judging it")
        if (
            self.released is None
            and self.evaluation is self.task.evaluation
            and not self.task.evaluation_public
        ):
            object.__setattr__(
                self, "released", "figures on these records, without noise and charged to no budget"
            )
        x, y = self.evaluation.x, self.evaluation.y
        if len(y) == 0:
            raise DataError(
                f"the evaluation set {self.evaluation_name!r} is empty; there is nothing to judge on"
            )
        if x.shape[1] != len(self.task.schema.feature_names):
            wanted = len(self.task.schema.feature_names)
            raise DataError(
                f"the evaluation records have {x.shape[1]} features, the schema {wanted}; encode them with it"
            )
        if y.min() < 0 or y.max() >= len(self.task.classes):
            raise DataError(f"labels run from {y.min()} to {y.max()}, the classes are {self.task.classes}")

    @property
    def provenance(self) -> Provenance:
        """Which data a finding touched and what it let out, as fields of a `Finding`."""
        return {"data": self.evaluation_name, "released": self.released}

    @property
    def binary(self) -> bool:
        """Whether the task has a positive class, class 1, and one logit."""
        return self.task.outputs == 1

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """A copy of the array on the model's device."""
        parameter = next(self.model.parameters(), None)
        return torch.tensor(array, device=None if parameter is None else parameter.device)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(n, outputs)`` of one batch, differentiable.

        Raises:
            ModelError: The model returns another shape.
        """
        logits = self.model(x)
        expected = (len(x), self.task.outputs)
        if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
            found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(f"the model returned {found} where logits of shape {expected} were expected")
        return logits

    def logits(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Logits ``(n, outputs)``, computed in batches and without gradients.

        Raises:
            ModelError: A logit is not finite, or the shape is wrong: nothing can be said of such a model.
        """
        with torch.no_grad():
            parts = [
                self.forward(self.tensor(x[start : start + _ROWS])).double().cpu().numpy()
                for start in range(0, len(x), _ROWS)
            ]
        logits = np.concatenate(parts) if parts else np.empty((0, self.task.outputs))
        broken = int(np.sum(~np.isfinite(logits).all(axis=1)))
        if broken:
            raise ModelError(f"the model's output is not finite for {broken} of {len(logits)} examples")
        return logits

    def probabilities(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Probabilities ``(n, classes)``; see `logits` for errors."""
        logits = self.logits(x)
        if self.binary:
            return np.asarray(np.concatenate([special.expit(-logits), special.expit(logits)], axis=1))
        return np.asarray(special.softmax(logits, axis=1))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.int64]:
        """Predicted classes ``(n,)``; see `logits` for errors."""
        return decide(self.logits(x))

    def input_bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest value of every feature ``(features,)``, public and in encoded units."""
        return self.task.schema.low, self.task.schema.high

    def perturbable(self) -> NDArray[np.bool_]:
        """Which features ``(features,)`` an attack may move: numeric ones that a person can change."""
        return self.task.schema.perturbable & ~self.task.schema.immutable

    def sample(self, size: int, rng: np.random.Generator) -> Examples:
        """At most `size` evaluation examples, drawn without replacement and kept in order."""
        count = len(self.evaluation)
        if size >= count:
            return self.evaluation
        return self.evaluation.take(np.sort(rng.choice(count, size=size, replace=False)))


def decide(logits: NDArray[np.float64]) -> NDArray[np.int64]:
    """Classes ``(n,)`` from logits ``(n, outputs)``: a single logit is positive above 0."""
    if logits.shape[1] == 1:
        return np.asarray(logits[:, 0] > 0, dtype=np.int64)
    return np.asarray(logits.argmax(axis=1), dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What an assessor will spend, known before anything is spent.

    Attributes:
        description: What will be done, in one sentence.
        examples: Evaluation examples that it reads.
        forward: Examples that pass forward through the model, repetitions counted.
        backward: Examples that pass backward, repetitions counted.
    """

    description: str
    examples: int = 0
    forward: int = 0
    backward: int = 0


@runtime_checkable
class Assessor(Protocol):
    """Measures one property of a subject. It changes neither the model nor any global state."""

    @property
    def name(self) -> str:
        """Short name; it selects the assessor's own random numbers."""

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """What a call would spend."""

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures.

        Args:
            subject: What is judged.
            rng: The only source of randomness.
            tier: "cheap" every few rounds, "full" before a release.

        Returns:
            Findings with registered metrics; what could not be measured is a finding that says so.
        """
