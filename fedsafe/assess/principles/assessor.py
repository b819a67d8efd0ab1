"""Behavioural tests: change one column and see whether the model keeps to a principle (Ribeiro et al., 2020)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.principle import SHIPPED, Principle
from fedsafe.assess.principles.behaviour import METRICS_OF, check_cases, check_principle
from fedsafe.data import Categorical, Schema
from fedsafe.errors import ConfigError
from fedsafe.findings import Finding, not_measured


@dataclass(frozen=True, kw_only=True)
class Principles:
    """Invariance, direction and given cases, on records that differ in one column only.

    Without any said, the decision must not depend on a categorical group column that is a feature (such as sex), and
    the principles that ship with the task hold. A column's features are encoded anew together, so that every changed
    record is the encoding of a possible one. Columns that depend on the changed one stay as they are: a model may
    still decide by those.

    Attributes:
        principles: Further principles, besides the subject's own.
        defaults: Whether those that come with the schema and the task hold.
        cheap: Examples of the cheap tier, at most.
        full: Examples of the full tier, at most.
    """

    name: ClassVar[str] = "principles"
    principles: tuple[Principle, ...] = ()
    defaults: bool = True
    cheap: int = 1000
    full: int = 10_000

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass for each value of a column."""
        if _unfit(subject):
            return Cost(description=f"nothing: {_unfit(subject)}")
        n = min(len(subject.evaluation), self.cheap if tier == "cheap" else self.full)
        asked = self._asked(subject)
        return Cost(
            description=f"{len(asked)} principles on {n} examples",
            examples=n,
            forward=n * (1 + 10 * len(asked)),
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = _unfit(subject)
        asked = self._asked(subject)
        schema = subject.task.schema
        if not reason and not asked:
            reason = "no principle is given, and no categorical group column is a feature"
        if reason or not isinstance(schema, Schema):
            return [
                not_measured(metric, reason, status="not_applicable", **subject.provenance)
                for metric in METRICS_OF.values()
            ]
        examples = subject.sample(self.cheap if tier == "cheap" else self.full, rng)
        cases = [principle for principle in asked if principle.kind == "case"]
        findings = [check_principle(subject, schema, p, examples) for p in asked if p.kind != "case"]
        return [*findings, check_cases(subject, schema, cases)] if cases else findings

    def _asked(self, subject: Subject) -> tuple[Principle, ...]:
        schema, found = subject.task.schema, (*self.principles, *subject.principles)
        if self.defaults and isinstance(schema, Schema):
            found = (*_default(schema), *_shipped(subject.task.name, schema), *found)
        names = [principle.id for principle in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"two principles are named {twice[0]!r}; their findings could not be told apart"
            )
        return found


def _default(schema: Schema) -> tuple[Principle, ...]:
    columns = [c.name for c in schema.columns if isinstance(c, Categorical) and c.group]
    return tuple(
        Principle(
            id=f"not by {name}",
            text=f"The decision must not depend on {name}, all else equal.",
            kind="invariance",
            column=name,
            tolerance=0.01,
        )
        for name in columns
    )


def _shipped(task: str, schema: Schema) -> tuple[Principle, ...]:
    """Those of the task whose columns the schema has: a user's own schema of the same data may lack them."""
    names = {column.name for column in schema.columns}
    shipped = SHIPPED.get(task, ())
    return tuple(p for p in shipped if (names <= set(p.record) if p.kind == "case" else p.column in names))


def _unfit(subject: Subject) -> str:
    """Why nothing can be changed; "" where it can."""
    if not isinstance(subject.task.schema, Schema):
        return "the inputs are no table: there is no column to change"
    if subject.task.kind == "next_token":
        return "a record has many outputs, one for each position and token"
    return ""
