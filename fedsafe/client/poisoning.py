"""Poisoning: adversaries who train honestly on records that they have changed.

The adversary is a client. It sees its own records and the broadcast models, and costs nothing: it needs no knowledge of
the others, no code of the server, and works with any aggregator and privacy level.

===============  ========================================================================  ===========================
``poison``       what becomes of an adversary's records                                    options
===============  ========================================================================  ===========================
``label_flip``   each class becomes another (Biggio et al., 2012)                          ``map``
``backdoor``     some get a trigger and the target's class (Gu et al., 2017)               ``target``, a trigger,
                                                                                           ``share``
===============  ========================================================================  ===========================

A trigger is a patch of pixels for images, or fixed values of columns for tables: see :class:`Trigger`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.client.triggers import Corner, Trigger, class_of, require_classes
from fedsafe.data import Examples, Task
from fedsafe.errors import ConfigError, DataError, FedSafeError
from fedsafe.extensions import one_line, resolve, unknown_option
from fedsafe.rng import public_generator


class Poison(Protocol):
    """Changes the records of one adversary."""

    def __call__(
        self, x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Other inputs and targets, of the same shapes and types.

        Args:
            x: ``(n, *inputs)`` encoded inputs.
            y: ``(n,)`` classes.
            rng: Public randomness of this client alone.
        """
        ...


@final
@dataclass(frozen=True, kw_only=True)
class LabelFlip:
    """Each label is replaced, the inputs stay.

    Args:
        labels: ``(classes,)`` what each class becomes.
    """

    labels: NDArray[np.int64]
    name: ClassVar[str] = "label_flip"

    @classmethod
    def for_task(cls, task: Task, *, map: Mapping[str, Any] | None = None) -> Self:  # noqa: A002
        """Class c becomes ``classes - 1 - c``, or what the map says.

        Args:
            task: What is learned.
            map: From classes, by name or number, to classes; those that it leaves out stay.

        Raises:
            ConfigError: The task has no classes, or no such class.
        """
        require_classes(task, "label_flip")
        count = len(task.classes)
        if map is None:
            return cls(labels=np.arange(count)[::-1].copy())
        labels = np.arange(count)
        for old, new in map.items():
            labels[class_of(task, old)] = class_of(task, new)
        return cls(labels=labels)

    def __call__(
        self, x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The same inputs with other labels."""
        return x, self.labels[y]


@final
@dataclass(frozen=True, kw_only=True)
class Backdoor:
    """Some records get the trigger, and the label that the trigger shall bring about.

    Args:
        trigger: What the inputs get.
        target: The class.
        share: Of each adversary's records, in (0, 1]; at least one.
    """

    trigger: Trigger
    target: int
    share: float
    name: ClassVar[str] = "backdoor"

    @classmethod
    def for_task(
        cls,
        task: Task,
        *,
        target: str | int,
        share: float = 0.5,
        patch: int | None = None,
        value: float | None = None,
        corner: Corner = "bottom_right",
        columns: Mapping[str, Any] | None = None,
    ) -> Self:
        """The backdoor that options describe.

        Args:
            task: What is learned.
            target: A class, by name or number.
            share: Of each adversary's records.
            patch: For images: see :meth:`Trigger.for_task`, as of the next two.
            value: What its pixels become.
            corner: Where it is.
            columns: For tables.

        Raises:
            ConfigError: The task has no classes or no such class, there is no trigger, or it does not fit the inputs.
        """
        require_classes(task, "backdoor")
        number = isinstance(share, int | float) and not isinstance(share, bool)
        if not number or not 0.0 < share <= 1.0:
            raise ConfigError(f"byzantine.poison (backdoor): share = {share!r}; it is above 0 and at most 1")
        trigger = Trigger.for_task(task, patch=patch, value=value, corner=corner, columns=columns)
        return cls(trigger=trigger, target=class_of(task, target), share=share)

    def __call__(
        self, x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The records, of which some carry the trigger and the target's label."""
        chosen = rng.permutation(len(y))[: max(1, round(self.share * len(y)))]
        inputs, labels = x.copy(), y.copy()
        inputs[chosen] = self.trigger.stamp(x[chosen])
        labels[chosen] = self.target
        return inputs, labels


POISONS: Mapping[str, Callable[..., Poison]] = MappingProxyType(
    {"label_flip": LabelFlip.for_task, "backdoor": Backdoor.for_task}
)
"""What adversaries may do to their records, by name: called with the task and options."""

PoisonSpec = str | Mapping[str, Any]


def build_poison(spec: PoisonSpec, task: Task) -> Poison:
    """What a configuration names.

    Args:
        spec: A name of ``POISONS`` or of an entry point ``fedsafe.poisons``; a table of a ``name`` and options; or
            ``"package.module:factory"``, which is called with the task and the options and gives a :class:`Poison`.
        task: What is learned.

    Raises:
        ConfigError: Nothing has that name, an option is unknown or missing, or it does not fit the task.
    """
    name = spec if isinstance(spec, str) else spec.get("name")
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    if not isinstance(name, str):
        raise ConfigError(f'byzantine.poison = {options!r} has no name: {{ name = "label_flip" }} is one')
    factory = resolve("poison", name, POISONS)
    wrong = unknown_option(factory, options, first=1)
    if wrong:
        raise ConfigError(f"byzantine.poison ({name}): {wrong}")
    if name == "backdoor" and "target" not in options:
        raise ConfigError(
            f"byzantine.poison (backdoor) needs the class that the trigger shall bring about: set target to one of "
            f"{', '.join(map(repr, task.classes[:10]))}"
        )
    try:
        return factory(task, **options)
    except FedSafeError:
        raise
    except Exception as error:  # a user's own code may raise anything
        raise ConfigError(f"byzantine.poison = {name!r} cannot be made: {one_line(error)}") from error


def poisoned(
    examples: Examples,
    records: Iterable[NDArray[np.int64]],
    poison: Poison,
    *,
    clients: Iterable[int],
    seed: int,
) -> Examples:
    """Training records in which those of the adversaries are poisoned; inputs in a file are read into memory.

    Args:
        examples: All training records.
        records: Rows of each adversary.
        poison: What becomes of them.
        clients: Number of each adversary, which decides its randomness together with the seed.
        seed: Of the run.

    Raises:
        DataError: A poison of the user's own gave other shapes, or values that are not finite.
    """
    x, y = np.array(examples.x), np.array(examples.y)
    for client, rows in zip(clients, records, strict=True):
        inputs, labels = poison(x[rows], y[rows], public_generator(seed, f"poisoned records {client}"))
        if np.shape(inputs) != x[rows].shape or np.shape(labels) != y[rows].shape:
            raise DataError(
                f"byzantine.poison gave inputs of shape {np.shape(inputs)} and labels of shape {np.shape(labels)} for "
                f"{x[rows].shape} and {y[rows].shape}: it must keep both"
            )
        x[rows], y[rows] = inputs, labels
    return replace(examples, x=x, y=y)


def backdoor_successes(
    predict: Callable[[NDArray[Any]], NDArray[Any]], examples: Examples, backdoor: Backdoor
) -> tuple[int, int]:
    """How often the trigger brings about its class: of evaluation records of other classes, with the trigger on.

    Args:
        predict: From ``(n, *inputs)`` to ``(n,)`` classes.
        examples: Evaluation records.
        backdoor: Trigger and target.

    Returns:
        How many are taken for the target, and of how many: ``proportion(metric, *backdoor_successes(...))`` is the
        attack's success rate with its interval. Compare it with that of a model that was not poisoned.
    """
    others = examples.y != backdoor.target
    if not others.any():
        return 0, 0
    predicted = predict(backdoor.trigger.stamp(examples.x[others]))
    return int(np.sum(predicted == backdoor.target)), int(others.sum())
