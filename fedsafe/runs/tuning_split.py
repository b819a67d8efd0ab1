"""The records that a search is scored on, and those that the final figures come from: never the same.

A configuration names either as a task of its own, so that a cell says on which records it was judged, and ``fedsafe
run`` makes it again.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np

from fedsafe.data import Task, load_task
from fedsafe.data.dataset import hold_out
from fedsafe.errors import ConfigError

Part = Literal["kept", "tuning", "public"]

TUNING = 0.3
"""Share of the evaluation records that a search on private records is scored on."""

PUBLIC = 0.5
"""Share of public evaluation records that a search trains and scores on."""

SCORED = 0.25
"""Share of those that it is scored on."""

LEAST = 10
"""Fewer records than this choose by luck."""

# Public, and the same for everybody: which records a search sees is no secret, and no choice.
_SEED = 0
_PATH = "fedsafe.runs.tuning_split:load_part"


def part_of(task: Task, part: Part, fraction: float) -> Task:
    """A task with a part of its evaluation records.

    Args:
        task: The whole.
        part: ``"tuning"``: the same training records, judged on ``fraction`` of the evaluation records. ``"public"``:
            nothing but these, ``SCORED`` of which judge what is trained on the others. ``"kept"``: the same training
            records, judged on all other evaluation records.
        fraction: In (0, 1).

    Raises:
        ConfigError: There are too few evaluation records; or they are to be trained on, and are not declared public.
    """
    if part not in get_args(Part):
        raise ConfigError(f"task.part = {part!r}: use one of {', '.join(get_args(Part))}")
    if part == "public" and not task.evaluation_public:
        raise ConfigError(
            f"--tune-on public trains on the evaluation records of {task.name!r}, which are not declared public: use "
            "--tune-on held-out, whose cost is stated, or declare them public if they are"
        )
    if min(fraction, 1.0 - fraction) * len(task.evaluation) < LEAST:
        raise ConfigError(
            f"--tune keeps {fraction:.0%} of {len(task.evaluation)} evaluation records apart: too few to choose by; "
            "use a task with more of them"
        )
    tuning, kept = hold_out(len(task.evaluation), fraction, _SEED)
    privacy = "public" if task.evaluation_public else "private"
    if part == "kept":
        return task.judged_on(
            kept, f"{1.0 - fraction:.0%} of the evaluation records, on which nothing was tuned ({privacy})"
        )
    if part == "tuning":
        return task.judged_on(
            tuning, f"{fraction:.0%} of the evaluation records, kept apart for tuning ({privacy})"
        )
    scored, trained = hold_out(len(tuning), SCORED, _SEED)
    return replace(
        task,
        train=task.evaluation.take(np.sort(tuning[trained])),
        evaluation=task.evaluation.take(np.sort(tuning[scored])),
        evaluation_name=f"{SCORED:.0%} of the evaluation records that are kept apart for tuning (public)",
        preferences=None,
    )


def part_spec(task: str | Mapping[str, Any], part: Part, fraction: float) -> dict[str, Any]:
    """How a configuration names such a part."""
    return {"name": _PATH, "of": task, "part": part, "fraction": fraction}


def load_part(of: str | Mapping[str, Any], part: Part, fraction: float) -> Task:
    """The part that a configuration names: see :func:`part_spec`.

    Raises:
        FedSafeError: As :func:`part_of`, and `fedsafe.data.load_task`.
    """
    return part_of(_whole(json.dumps(of, sort_keys=True, default=str)), part, fraction)


@functools.lru_cache(maxsize=1)
def _whole(of: str) -> Task:
    """Its parts share arrays, so that runs on several of them share a trainer."""
    return load_task(json.loads(of))


def named_task(task: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """What a configuration's task is a part of; itself if it is whole."""
    whole: str | Mapping[str, Any] = task
    if not isinstance(task, str) and task.get("name") == _PATH:
        whole = task["of"]
    return whole


def check_evaluation(evaluation: str) -> None:
    """Refuse a configuration that is judged on other records than the task's own evaluation split.

    Raises:
        ConfigError: They come from the training records.
    """
    if evaluation != "test":
        raise ConfigError(
            f"--tune keeps a part of the task's evaluation records apart, and data.evaluation = {evaluation!r} judges "
            'on training records: leave it out, or set data.evaluation = "test"'
        )
