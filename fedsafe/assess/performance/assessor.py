"""How well the model predicts, and how evenly over the clients."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.performance.classification import classification
from fedsafe.assess.performance.evenness import check_shares, evenness
from fedsafe.assess.performance.numbers import regression
from fedsafe.assess.performance.sequences import next_token
from fedsafe.assess.scores import measure
from fedsafe.findings import Finding


@dataclass(frozen=True, kw_only=True)
class Performance:
    """The figures that go with the kind of the task, and their worst tenth, spread and evenness over the clients.

    Attributes:
        worst: Shares of the clients whose mean is wanted besides that of the worst tenth.

    Raises:
        ConfigError: One of them is not in (0, 1).
    """

    name: ClassVar[str] = "performance"
    worst: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_shares(self.worst)

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass over the evaluation set, in either tier."""
        n = len(subject.evaluation)
        return Cost(description=f"scores and their intervals on {n} examples", examples=n, forward=n)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        examples, task, context = subject.evaluation, subject.task, subject.provenance
        resamples = 500 if tier == "cheap" else 2000
        name = "accuracy"
        if task.kind == "next_token":
            losses, scores = subject.per_record(examples)
            findings = next_token(
                losses, scores, examples, len(task.classes), resamples=resamples, rng=rng, context=context
            )
        else:
            logits = subject.logits(examples.x)
            scores = measure(task.kind, logits, examples.y)[1]
            if task.target is not None:
                name = "score"
                findings = regression(
                    logits[:, 0], examples, task.target, resamples=resamples, rng=rng, context=context
                )
            else:
                findings = classification(logits, examples.y, len(task.classes), rng, context)
        return findings + evenness(
            scores, subject.shards, name=name, worst=self.worst, rng=rng, context=context
        )
