"""The values that the rest of the platform trains and judges on: examples, their source, a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedsafe.data.schema import Schema
from fedsafe.errors import ConfigError, DataError
from fedsafe.rng import public_generator

Features = NDArray[np.float32]
Labels = NDArray[np.int64]
Groups = Mapping[str, NDArray[np.str_]]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Encoded records, their labels and the groups they belong to.

    Args:
        x: ``(n, features)`` float32, C-contiguous, in encoded units.
        y: ``(n,)`` int64 class indices.
        groups: Group column to ``(n,)`` group names, e.g. ``{"sex": ["Male", "Female", ...]}``.

    Raises:
        DataError: If lengths or shapes disagree, or a feature is not finite.
    """

    x: Features
    y: Labels
    groups: Groups = field(default_factory=dict)

    def __post_init__(self) -> None:
        x = np.ascontiguousarray(self.x, dtype=np.float32)
        y = np.ascontiguousarray(self.y, dtype=np.int64)
        groups = {name: np.asarray(values, dtype=np.str_) for name, values in self.groups.items()}
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise DataError(
                f"Examples need x of shape (n, features) and y of shape (n,): got {x.shape} and {y.shape}."
            )
        for name, values in groups.items():
            if values.shape != y.shape:
                raise DataError(f"Group {name!r} has shape {values.shape}, but there are {len(y)} records.")
        if not np.isfinite(x).all():
            raise DataError(
                "A feature is not finite. Give its column a public `fill` and bounds in the schema."
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "groups", groups)

    def __len__(self) -> int:
        """Number of records."""
        return len(self.y)

    def take(self, indices: Indices) -> Self:
        """The records at ``indices``, in that order."""
        groups = {name: values[indices] for name, values in self.groups.items()}
        return replace(self, x=self.x[indices], y=self.y[indices], groups=groups)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the records come from, for the run's record and card.

    Args:
        name: Title and authors.
        licence: Licence, or ``"not stated"``.
        url: Where a reader finds the data, a DOI if there is one.
        sha256: Checksum of the file that was read, in hexadecimal; empty if no file was read.
        note: What was dropped or changed, and why.
    """

    name: str
    licence: str = "not stated"
    url: str = ""
    sha256: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is learned: training records, evaluation records, and the public schema that encoded them.

    Args:
        name: Short name, e.g. ``"adult"``.
        kind: ``"binary"`` (one logit, positive = class 1) or ``"multiclass"`` (one logit per class).
        classes: Class names; the index is the label.
        schema: The public schema.
        train: Records that are spread over the clients.
        evaluation: Records that the model is judged on.
        evaluation_name: What the evaluation records are, and whether they are public.
        source: Where the records come from.
        evaluation_public: Whether the evaluation records are public. If not, every figure computed on them is
            a release about the people in them.

    Raises:
        DataError: If the parts do not fit together, or the training records hold one class only.
    """

    name: str
    kind: Literal["binary", "multiclass"]
    classes: tuple[str, ...]
    schema: Schema
    train: Examples
    evaluation: Examples
    evaluation_name: str
    source: Source
    evaluation_public: bool = False

    def __post_init__(self) -> None:
        if (self.kind == "binary") != (len(self.classes) == 2):
            raise DataError(f"Task {self.name!r} is {self.kind} but has {len(self.classes)} classes.")
        width = len(self.schema.feature_names)
        for part, examples in (("training", self.train), ("evaluation", self.evaluation)):
            if not len(examples):
                raise DataError(f"Task {self.name!r} has no {part} records.")
            if examples.x.shape[1] != width:
                raise DataError(
                    f"The {part} records have {examples.x.shape[1]} features, the schema {width}."
                )
            if examples.y.min() < 0 or examples.y.max() >= len(self.classes):
                raise DataError(f"A {part} label lies outside 0..{len(self.classes) - 1}.")
        if self.train.y.min() == self.train.y.max():
            only = self.classes[int(self.train.y[0])]
            raise DataError(
                f"Every training record of {self.name!r} has the label {only!r}: nothing can be learned."
            )

    @property
    def outputs(self) -> int:
        """Logits of a model for this task: 1 for binary, else the number of classes."""
        return 1 if self.kind == "binary" else len(self.classes)

    @property
    def features(self) -> int:
        """Width of an encoded record."""
        return len(self.schema.feature_names)

    def with_validation(self, fraction: float, seed: int) -> Self:
        """The same task, judged on a held-out part of its training records, which the training then lacks.

        For choosing settings without touching the evaluation records. The held-out part is private, as the
        training records are.

        Args:
            fraction: Part of the training records to hold out, in (0, 1).
            seed: Decides which.

        Raises:
            ConfigError: If ``fraction`` is outside (0, 1) or leaves either part empty.
        """
        held, kept = hold_out(len(self.train), fraction, seed)
        return replace(
            self,
            train=self.train.take(kept),
            evaluation=self.train.take(held),
            evaluation_name=f"{fraction:.0%} of the training records, held out with seed {seed} (private)",
            evaluation_public=False,
        )


def hold_out(n: int, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Sorted indices of a random held-out part of ``n`` records, and of the rest.

    Raises:
        ConfigError: If ``fraction`` is outside (0, 1) or leaves either part empty.
    """
    count = round(fraction * n) if 0.0 < fraction < 1.0 else 0
    if not 0 < count < n:
        raise ConfigError(
            f"Holding out {fraction!r} of {n} records leaves a part empty. Use a fraction such as 0.2."
        )
    order = public_generator(seed, "hold out").permutation(n)
    return np.sort(order[:count]), np.sort(order[count:])
