"""A small decision tree that imitates the model, and how far it does: rules that a reader can check."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.interpretability.rules import read_rules
from fedsafe.assess.performance.numbers import moments, r_squared
from fedsafe.assess.resampling import interval_of
from fedsafe.data import Examples
from fedsafe.findings import Finding, estimate, not_measured, percentile, proportion, wilson

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

_FIDELITY, _KAPPA, _GAIN = "surrogate.fidelity", "surrogate.kappa", "surrogate.gain_over_majority"
_RULES = "surrogate.rules"
_FEWEST = 100  # examples, half of them to fit the tree
_RESAMPLES = 1000
_MOST_CLASSES = 100  # that a model decides for: every resample holds the square of them


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A tree of limited depth, fitted to the model's decisions on one half of the inputs and judged on the other.

    The same tree fitted to shuffled decisions must agree no better than chance (Craven and Shavlik, 1996, judge trees
    by fidelity; the shuffled tree is the check of the instrument): where it does, nothing is measured.

    Attributes:
        depth: Largest depth.
        leaf: Fewest examples in a leaf.
        cheap: Examples of the cheap tier, at most.
        full: Examples of the full tier, at most.
    """

    name: ClassVar[str] = "surrogate"
    depth: int = 4
    leaf: int = 10
    cheap: int = 4000
    full: int = 20_000

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One forward pass."""
        if _unfit(subject):
            return Cost(description=f"nothing: {_unfit(subject)}")
        n = min(len(subject.evaluation), self.cheap if tier == "cheap" else self.full)
        return Cost(description=f"a tree of depth {self.depth} on {n} examples", examples=n, forward=n)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        number = subject.task.kind == "regression"
        metrics = (
            ["surrogate.r2"] if number else [_FIDELITY, "surrogate.kappa", "surrogate.gain_over_majority"]
        )
        metrics.append(_RULES)
        reason, context = _unfit(subject), subject.provenance
        if reason:
            return [not_measured(m, reason, status="not_applicable", **context) for m in metrics]
        examples = subject.sample(self.cheap if tier == "cheap" else self.full, rng)
        n = len(examples)
        if n < _FEWEST:
            reason = f"{n} examples are too few to fit a tree on one half and judge it on the other"
            return [
                not_measured(m, reason, status="insufficient", n=n, unit="examples", **context)
                for m in metrics
            ]
        order = rng.permutation(n)
        halves = np.sort(order[: n // 2]), np.sort(order[n // 2 :])
        return (
            self._numbers(subject, examples, halves, rng)
            if number
            else self._decisions(subject, examples, halves, rng)
        )

    def _decisions(
        self,
        subject: Subject,
        examples: Examples,
        halves: tuple[NDArray[np.int64], NDArray[np.int64]],
        rng: np.random.Generator,
    ) -> list[Finding]:
        fit, held = halves
        x, decided, context = examples.x, subject.predict(examples.x), subject.provenance
        # A class that the model never decides for adds nothing: a vocabulary of classes needs no square of its size.
        known, codes = np.unique(decided, return_inverse=True)
        classes = len(known)
        if classes > _MOST_CLASSES:
            reason = f"the model decides for {classes} classes, too many for the rules of a small tree"
            metrics = (_FIDELITY, _KAPPA, _GAIN, _RULES)
            return [not_measured(m, reason, status="not_applicable", **context) for m in metrics]
        majority = int(np.bincount(codes[fit], minlength=classes).argmax())
        tree = self._fitted(DecisionTreeClassifier, x[fit], decided[fit])
        imitated = tree.predict(x[held])
        cells = _confusion(codes[held], np.searchsorted(known, imitated), classes)
        shuffled = rng.permutation(decided)
        control = self._fitted(DecisionTreeClassifier, x[fit], shuffled[fit])
        guessed = np.searchsorted(known, control.predict(x[held]))
        chance = _confusion(np.searchsorted(known, shuffled[held]), guessed, classes)
        n, agreed = int(cells.sum()), int(np.trace(cells))
        fidelity = proportion(
            _FIDELITY,
            agreed,
            n,
            unit="held-out examples",
            anchors={
                "majority_rule": float(cells[majority].sum() / n),
                "shuffled_decisions": float(np.trace(chance) / n),
            },
            detail={
                "accuracy_of_tree": float(np.mean(imitated == examples.y[held])),
                "accuracy_of_model": float(np.mean(decided[held] == examples.y[held])),
            },
            **context,
        )
        rules = self._rules(
            subject, tree, lambda value: subject.task.classes[int(tree.classes_[value.argmax()])]
        )
        if classes < 2:
            reason = "the model decides the same for every example: any rule agrees"
            missing = [not_measured(m, reason, status="not_applicable", **context) for m in (_KAPPA, _GAIN)]
            return [fidelity, *missing, rules]
        luck = float(_kappa(chance[None])[0])
        if luck > _luck(n):
            reason = (
                f"a tree on shuffled decisions has kappa {luck:.2f}: the instrument finds what is not there"
            )
            return [
                not_measured(m, reason, status="unreliable", n=n, unit="held-out examples", **context)
                for m in (_FIDELITY, _KAPPA, _GAIN, _RULES)
            ]
        drawn = rng.multinomial(n, cells.ravel() / n, size=_RESAMPLES).reshape(-1, classes, classes)

        def beyond(
            metric: str, figure: Callable[[Counts], Array], chance: float, anchors: dict[str, float]
        ) -> Finding:
            value, replicates = float(figure(cells[None])[0]), figure(drawn)
            if not np.isfinite(value):
                reason = "the model decides the same for every held-out example: any rule agrees"
                return not_measured(
                    metric, reason, status="insufficient", n=n, unit="held-out examples", **context
                )
            # Resamples of a perfect agreement are all perfect: Wilson's interval says what n can tell.
            ends = [(end - chance) / (1 - chance) for end in wilson(agreed, n)]
            low, high = percentile(replicates[np.isfinite(replicates)])
            return estimate(
                metric,
                value,
                interval=(max(-1.0, min(low, ends[0])), min(1.0, max(high, ends[1]))),
                method="bootstrap, no narrower than wilson of the agreement",
                n=n,
                unit="held-out examples",
                anchors=anchors,
                **context,
            )

        return [
            fidelity,
            beyond(_KAPPA, _kappa, _chance(cells), {"chance": 0.0, "shuffled_decisions": luck}),
            beyond(
                _GAIN,
                lambda counts: _gain(counts, majority),
                float(cells[majority].sum() / n),
                {"majority_rule": 0.0},
            ),
            rules,
        ]

    def _numbers(
        self,
        subject: Subject,
        examples: Examples,
        halves: tuple[NDArray[np.int64], NDArray[np.int64]],
        rng: np.random.Generator,
    ) -> list[Finding]:
        fit, held = halves
        x, answers, context = examples.x, subject.logits(examples.x)[:, 0], subject.provenance
        tree = self._fitted(DecisionTreeRegressor, x[fit], answers[fit])
        rules = self._rules(subject, tree, lambda value: _number(subject, float(value[0])))
        if np.ptp(answers) == 0:
            reason = "the model gives the same number for every example"
            return [not_measured("surrogate.r2", reason, status="not_applicable", **context), rules]
        shuffled = rng.permutation(answers)
        control = self._fitted(DecisionTreeRegressor, x[fit], shuffled[fit])
        luck = float(r_squared(moments(control.predict(x[held]), shuffled[held]).sum(axis=0)[None])[0])
        if luck > _luck(len(held)):
            reason = (
                f"a tree on shuffled answers has R squared {luck:.2f}: the instrument finds what is not there"
            )
            return [
                not_measured(m, reason, status="unreliable", n=len(held), unit="held-out examples", **context)
                for m in ("surrogate.r2", _RULES)
            ]
        sums = moments(tree.predict(x[held]), answers[held])
        return [
            estimate(
                "surrogate.r2",
                float(r_squared(sums.sum(axis=0)[None])[0]),
                interval=interval_of(r_squared, sums, rng, _RESAMPLES),
                method="bootstrap",
                n=len(held),
                unit="held-out examples",
                anchors={"predicting_the_mean": 0.0, "shuffled_answers": luck},
                **context,
            ),
            rules,
        ]

    def _fitted(self, kind: Any, x: Array, y: NDArray[Any]) -> Any:
        # The seed decides between equal splits only; there is no other randomness in a tree.
        return kind(max_depth=self.depth, min_samples_leaf=self.leaf, random_state=0).fit(x, y)

    def _rules(self, subject: Subject, tree: Any, outcome: Any) -> Finding:
        rules = read_rules(tree, subject.task.schema, outcome)
        return estimate(
            _RULES,
            float(len(rules)),
            bound="exact",
            detail={
                "rules": rules,
                "depth": int(tree.get_depth()),
                "mean_conditions": float(sum(rule["conditions"] * rule["share"] for rule in rules)),
            },
            **subject.provenance,
        )


def _luck(n: int) -> float:
    """What chance agreement on n examples may reach: three standard errors at most, and a little."""
    return float(0.05 + 3 / np.sqrt(n))


def _unfit(subject: Subject) -> str:
    """Why there is no tree; "" where there is."""
    if subject.task.schema.vocabulary is not None or subject.task.kind == "next_token":
        return "the inputs are tokens: rules need features with a meaning of their own"
    if len(subject.task.schema.shape) > 1:
        return "the inputs are no table: a rule on a single pixel or sample explains nothing"
    return ""


def _number(subject: Subject, encoded: float) -> str:
    target = subject.task.target
    if target is None:
        return f"{encoded:.4g}"
    return f"{float(target.decode(np.array([encoded]))[0]):.4g} {target.unit}".strip()


def _confusion(truth: NDArray[np.int64], guess: NDArray[np.int64], classes: int) -> Counts:
    """``(classes, classes)`` counts, the model's decision first."""
    return np.bincount(truth * classes + guess, minlength=classes**2).reshape(classes, classes)


def _kappa(cells: Counts) -> Array:
    """Cohen's kappa (1960) of ``(rows, classes, classes)`` counts; not a number where chance agrees always."""
    n = cells.sum(axis=(1, 2))
    agreed = np.trace(cells, axis1=1, axis2=2) / n
    chance = (cells.sum(axis=2) * cells.sum(axis=1)).sum(axis=1) / n.astype(np.float64) ** 2
    room = 1 - chance
    return np.asarray(np.divide(agreed - chance, room, out=np.full(len(cells), np.nan), where=room > 1e-12))


def _chance(cells: Counts) -> float:
    """The agreement of two that decide as often for each class, independently."""
    return float(cells.sum(axis=0) @ cells.sum(axis=1) / float(cells.sum()) ** 2)


def _gain(cells: Counts, majority: int) -> Array:
    """Share of the majority rule's disagreements that the tree mends (Goodman and Kruskal, 1954)."""
    n = cells.sum(axis=(1, 2))
    agreed, rule = np.trace(cells, axis1=1, axis2=2) / n, cells[:, majority].sum(axis=1) / n
    room = 1 - rule
    return np.asarray(np.divide(agreed - rule, room, out=np.full(len(cells), np.nan), where=room > 1e-12))
