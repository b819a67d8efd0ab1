"""What is judged (`Subject`), and who judges (`Assessor`)."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from fedsafe.assess.arranging import arranged
from fedsafe.assess.clients import ClientRecords, Federation
from fedsafe.assess.principle import Principle
from fedsafe.assess.scores import decide, measure
from fedsafe.data import Examples, Task
from fedsafe.errors import ConfigError, DataError, ModelError
from fedsafe.findings import Evidence, Finding, Provenance, Scalar
from fedsafe.params import Vector
from fedsafe.rng import public_generator

Tier = Literal["cheap", "full"]
# What a finding counts: its metric, and where, in the order of the keys.
Share = tuple[str, tuple[tuple[str, Scalar], ...]]

# A forward pass takes as many rows as have so many inputs or outputs: large enough for the matrix product, small
# enough for any memory.
_VALUES = 1 << 20
_MOST_ROWS = 8192
# A pixel has many values between the layers: a third of the time goes where these no longer fit into a core's cache.
_PIXELS = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model and what judging it needs; it owns the input bounds, so no attack can get them wrong.

    Attributes:
        model: Module in evaluation mode, from ``(n, *inputs)`` to ``(n, *outputs)``, see `fedsafe.data.Signature`; a
            binary task has ONE logit.
        task: The task, with the public schema.
        evaluation: Labelled examples to judge on.
        evaluation_name: What they are, for example "UCI Adult test split (public)".
        released: What judging on them lets out of private data; None where they are public. Filled in for a
            task that does not declare its evaluation records public.
        shards: Indices into `evaluation`, one array for each client, cut by the rule that cut the clients'
            private records; None where there is no such rule.
        claims: The run's privacy claims, each as a mapping.
        round: The round whose model this is, from 1; 0 outside a run.
        training: What the model was trained on, by client; None where that is not known, as for a real server.
        validation: Records of clients who took part, which were not trained on; None where there are none.
        unseen: Records of clients who took no part; None where there are none.
        federation: How the clients train; None outside a simulation.
        previous: The last accepted model of the same run, in evaluation mode; None before one is accepted.
        earlier: What was found of that model, example by example, by `fedsafe.assess.comparing.share_of`; empty where
            that is not known any more.
        principles: Principles to hold the model to, besides those that come with the task.
        seed: Of the public randomness that assessors share, see `shared_rows`; `run_assessors` sets it.

    Raises:
        ConfigError: The model is in training mode.
        DataError: The evaluation set is empty, or does not fit the task's schema or classes.
    """

    model: nn.Module
    task: Task
    evaluation: Examples
    evaluation_name: str
    released: str | None = None
    shards: Sequence[NDArray[np.int64]] | None = None
    claims: tuple[Mapping[str, Any], ...] = ()
    round: int = 0
    training: ClientRecords | None = None
    validation: ClientRecords | None = None
    unseen: ClientRecords | None = None
    federation: Federation | None = None
    previous: nn.Module | None = None
    earlier: Mapping[Share, Evidence] = field(default_factory=dict)
    principles: tuple[Principle, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for model in (self.model, self.previous):
            if model is not None and model.training:
                raise ConfigError(
                    "the subject's model is in training mode; call model.eval() before judging it"
                )
        if (
            self.released is None
            and self.evaluation is self.task.evaluation
            and not self.task.evaluation_public
        ):
            object.__setattr__(
                self, "released", "figures on these records, without noise and charged to no budget"
            )
        if len(self.evaluation) == 0:
            raise DataError(
                f"the evaluation set {self.evaluation_name!r} is empty; there is nothing to judge on"
            )
        own = None if self.federation is None else self.federation.own
        parts = (self.training, self.validation, self.unseen, own)
        for examples in (self.evaluation, *(part.examples for part in parts if part is not None)):
            self._check(examples)
        if own is not None and self.training is not None and len(own) != len(self.training):
            raise DataError(f"{len(self.training)} clients train, and {len(own)} have records of their own")

    def _check(self, examples: Examples) -> None:
        found, wanted = examples.x.shape[1:], self.task.schema.shape
        if found != wanted:
            sizes = (
                f"{shape[0]} features" if len(shape) == 1 else f"shape {shape}" for shape in (found, wanted)
            )
            raise DataError("the records have {}, the schema {}; encode them with it".format(*sizes))
        y = examples.y
        if self.task.kind == "regression":
            if y.dtype != np.float32:
                raise DataError(f"the targets of a regression task are numbers, not {y.dtype}")
        elif y.dtype != np.int64 or y.shape[1:] != self.task.train.y.shape[1:]:
            raise DataError(f"the labels are {y.dtype} of shape {y.shape}; they do not fit the task")
        elif len(y) and (y.min() < 0 or y.max() >= len(self.task.classes)):
            raise DataError(f"labels run from {y.min()} to {y.max()}, the classes are {self.task.classes}")

    @property
    def provenance(self) -> Provenance:
        """Which data a finding touched and what it let out, as fields of a `Finding`."""
        return {"data": self.evaluation_name, "released": self.released}

    @property
    def binary(self) -> bool:
        """Whether the task has a positive class, class 1, and one logit."""
        return self.task.kind == "binary"

    @property
    def rows_at_once(self) -> int:
        """How many examples one forward pass takes."""
        signature = self.task.signature
        most = _PIXELS if len(signature.inputs) == 3 else _VALUES
        return max(1, min(_MOST_ROWS, most // max(prod(signature.inputs), prod(signature.outputs))))

    def tensor(self, array: NDArray[Any]) -> Tensor:
        """A copy of the array on the model's device."""
        parameter = next(self.model.parameters(), None)
        return torch.tensor(array, device=None if parameter is None else parameter.device)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs ``(n, *outputs)`` of one batch, differentiable.

        Raises:
            ModelError: The model returns another shape.
        """
        outputs = self.model(x)
        expected = (len(x), *self.task.signature.outputs)
        if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
            found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise ModelError(f"the model returned {found} where outputs of shape {expected} were expected")
        return outputs

    def collect(
        self, x: NDArray[Any], function: Callable[[NDArray[np.float64], slice], NDArray[Any]]
    ) -> NDArray[Any]:
        """What a function makes of the model's outputs, batch by batch and without gradients.

        Args:
            x: ``(n, *inputs)``.
            function: Maps outputs ``(rows, *outputs)``, and where these rows are in `x`, to ``(rows, ...)``.

        Raises:
            ModelError: An output is not finite, or the shape is wrong: nothing can be said of such a model.
        """
        parts, broken = [], 0
        order = arranged(self.model, self.forward, self.tensor(x[: self.rows_at_once]))
        for start in range(0, max(len(x), 1), self.rows_at_once):
            rows = slice(start, start + self.rows_at_once)
            with torch.no_grad():
                given = self.tensor(x[rows]).to(memory_format=order)
                outputs = self.forward(given).double().cpu().numpy()
            bad = int(np.sum(~np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))))
            broken += bad
            if not bad:
                parts.append(function(outputs, rows))
        if broken:
            raise ModelError(f"the model's output is not finite for {broken} of {len(x)} examples")
        return np.concatenate(parts)

    def logits(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Outputs ``(n, *outputs)``; see `collect` for errors."""
        return self.collect(x, lambda outputs, _: outputs)

    def per_record(self, examples: Examples) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``(n,)`` losses and ``(n,)`` bounded scores, see `measure`."""
        kind, y = self.task.kind, examples.y
        both = self.collect(
            examples.x, lambda outputs, rows: np.stack(measure(kind, outputs, y[rows]), axis=1)
        )
        return both[:, 0], both[:, 1]

    def probabilities(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities ``(n, classes)``, or ``(n, positions, tokens)``; see `collect` for errors.

        Raises:
            ConfigError: The task has no classes.
        """
        self._need_classes()
        logits = self.logits(x)
        if self.binary:
            return np.asarray(np.concatenate([special.expit(-logits), special.expit(logits)], axis=1))
        return np.asarray(special.softmax(logits, axis=-1))

    def predict(self, x: NDArray[Any]) -> NDArray[np.int64]:
        """Predicted classes ``(n,)``, or tokens ``(n, positions)``; see `collect` for errors.

        Raises:
            ConfigError: The task has no classes.
        """
        self._need_classes()
        return self.collect(x, lambda outputs, _: decide(outputs))

    def values(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Predicted numbers ``(n,)`` of a regression task in the target's own unit; see `collect` for errors.

        Raises:
            ConfigError: The task predicts classes.
        """
        if self.task.target is None:
            raise ConfigError(f"the task {self.task.name!r} predicts classes: use predict, not values")
        return self.task.target.decode(self.logits(x)[:, 0])

    def _need_classes(self) -> None:
        if self.task.kind == "regression":
            raise ConfigError(f"the task {self.task.name!r} predicts a number: use values")

    def input_bounds(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Lowest and highest value of every feature ``(*inputs,)``, public and in encoded units."""
        return self.task.schema.low, self.task.schema.high

    def perturbable(self) -> NDArray[np.bool_]:
        """Which features ``(*inputs,)`` an attack may move: numeric ones that a person can change."""
        return self.task.schema.perturbable & ~self.task.schema.immutable

    @classmethod
    def outside(cls, model: nn.Module, task: Task) -> Self:
        """A copy of a model outside any run, judged on the task's evaluation records.

        The task's training records are taken for those that the model was trained on.
        """
        everyone = ClientRecords(examples=task.train, rows=(np.arange(len(task.train)),))
        return cls(
            model=copy.deepcopy(model).eval(),
            task=task,
            evaluation=task.evaluation,
            evaluation_name=task.evaluation_name,
            training=everyone,
        )

    def with_parameters(self, parameters: Vector) -> Self:
        """The same subject with a copy of the model that has these trainable parameters ``(parameters,)``."""
        model = copy.deepcopy(self.model)
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        nn.utils.vector_to_parameters(self.tensor(parameters), trainable)
        return replace(self, model=model)

    @property
    def shows_records(self) -> bool:
        """Whether single evaluation records may be shown: only public ones are."""
        return self.released is None

    def shared_rows(self, size: int) -> NDArray[np.int64]:
        """Indices of at most `size` evaluation examples, the same for every assessor and in every round.

        A smaller sample is part of a larger one, so that what an attack breaks and what a certificate proves can be
        held to each other example by example, and so can the models of two rounds.
        """
        order = public_generator(self.seed, "assess shared rows").permutation(len(self.evaluation))
        return np.sort(order[:size]).astype(np.int64)

    def sample(self, size: int, rng: np.random.Generator) -> Examples:
        """At most `size` evaluation examples, drawn without replacement and kept in order."""
        count = len(self.evaluation)
        if size >= count:
            return self.evaluation
        return self.evaluation.take(np.sort(rng.choice(count, size=size, replace=False)))


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
