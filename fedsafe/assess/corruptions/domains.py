"""A second domain: records of the same schema from somewhere else."""

from collections.abc import Mapping
from typing import Any

from fedsafe.assess.base import Subject
from fedsafe.data import Examples, Task, load_task
from fedsafe.data.inputs import public_facts
from fedsafe.errors import DataError
from fedsafe.extensions import call

Domain = tuple[str, Examples, str | None]
"""What the records are, the records, and what judging on them lets out of private data."""

_PRIVATE = "figures on these records, without noise and charged to no budget"


def load_domain(subject: Subject, spec: str | Mapping[str, Any]) -> Domain:
    """The records of a second domain.

    Args:
        subject: Whose schema and classes they must have.
        spec: The import path of a function without arguments that returns `Examples` or a `Task`; or what names a task,
            see `fedsafe.data.load_task`. Of a task the evaluation records count.

    Raises:
        FedSafeError: There is no such domain, or its records are none for this model.
    """
    named = spec if isinstance(spec, str) else str(spec.get("name", spec.get("path", "a table")))
    if isinstance(spec, str) and ":" in spec:
        found: Any = call(spec, "domain")
    else:
        found = load_task(spec)
    if isinstance(found, Examples):
        # Nobody declared them public.
        _check(subject, named, found)
        return named, found, _PRIVATE
    if not isinstance(found, Task):
        raise DataError(f"the domain {named!r} returned {type(found).__name__}, not Examples or a Task")
    if found.kind != subject.task.kind or len(found.classes) != len(subject.task.classes):
        raise DataError(
            f"the domain {named!r} is {found.kind} with {len(found.classes)} classes, the model's task "
            f"{subject.task.kind} with {len(subject.task.classes)}"
        )
    if found.schema.shape == subject.task.schema.shape and public_facts(found.schema) != public_facts(
        subject.task.schema
    ):
        raise DataError(
            f"the schema of the domain {named!r} is another one: encode its records with this one"
        )
    _check(subject, named, found.evaluation)
    return (
        f"{named}: {found.evaluation_name}",
        found.evaluation,
        None if found.evaluation_public else _PRIVATE,
    )


def _check(subject: Subject, named: str, examples: Examples) -> None:
    wanted = subject.task.schema.shape
    if examples.x.shape[1:] != wanted:
        raise DataError(
            f"the domain {named!r} has inputs of shape {examples.x.shape[1:]}, the model {wanted}"
        )
    if examples.y.dtype != subject.evaluation.y.dtype:
        raise DataError(f"the domain {named!r} has targets of type {examples.y.dtype}")
    classes = len(subject.task.classes)
    if classes and len(examples) and not (examples.y.min() >= 0 and examples.y.max() < classes):
        raise DataError(f"the domain {named!r} has labels outside 0 to {classes - 1}")
