"""A small decision tree that imitates the model, and how far it does: rules that a reader can check."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.interpretability.agreement import (
    Counts,
    chance_agreement,
    confusion,
    gain,
    kappa,
    luck_allowed,
)
from fedsafe.assess.interpretability.rule_quality import (
    STABILITY,
    by_depth,
    judge_rules,
    perturbed,
    stability,
)
from fedsafe.assess.interpretability.rules import Rule, read_rules
from fedsafe.assess.performance.numbers import moments, r_squared
from fedsafe.assess.resampling import interval_of
from fedsafe.data import Examples
from fedsafe.findings import Finding, estimate, not_measured, percentile, proportion, wilson

Array = NDArray[np.float64]

_FIDELITY, _KAPPA, _GAIN = "surrogate.fidelity", "surrogate.kappa", "surrogate.gain_over_majority"
_RULES, _ACCURACY = "surrogate.rules", "surrogate.accuracy"
_THRESHOLDS_TELL = "thresholds are values between two records, and these records are private"
_NEARBY, _NEARBY_R2 = "surrogate.fidelity_perturbed", "surrogate.r2_perturbed"
_FEWEST = 100  # examples, half of them to fit the tree
_RESAMPLES = 1000
_DECISIONS = (_FIDELITY, _KAPPA, _GAIN, _ACCURACY, _NEARBY, _RULES)
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
        """One forward pass of the records, and one of records near a half of them."""
        if _unfit(subject):
            return Cost(description=f"nothing: {_unfit(subject)}")
        n = min(len(subject.evaluation), self.cheap if tier == "cheap" else self.full)
        words = f"a tree of depth {self.depth} on {n} examples"
        words += ", and others of other depths and of resampled examples" if tier == "full" else ""
        return Cost(description=words, examples=n, forward=2 * n)

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        number = subject.task.kind == "regression"
        metrics = ["surrogate.r2", _NEARBY_R2] if number else [_FIDELITY, _KAPPA, _GAIN, _ACCURACY, _NEARBY]
        metrics += [_RULES, *([STABILITY] if tier == "full" else [])]
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
            self._numbers(subject, examples, halves, rng, tier)
            if number
            else self._decisions(subject, examples, halves, rng, tier)
        )

    def _decisions(
        self,
        subject: Subject,
        examples: Examples,
        halves: tuple[NDArray[np.int64], NDArray[np.int64]],
        rng: np.random.Generator,
        tier: Tier,
    ) -> list[Finding]:
        fit, held = halves
        x, decided, context = examples.x, subject.predict(examples.x), subject.provenance
        # A class that the model never decides for adds nothing: a vocabulary of classes needs no square of its size.
        known, codes = np.unique(decided, return_inverse=True)
        classes = len(known)
        if classes > _MOST_CLASSES:
            reason = f"the model decides for {classes} classes, too many for the rules of a small tree"
            return [not_measured(m, reason, status="not_applicable", **context) for m in _DECISIONS]
        majority = int(np.bincount(codes[fit], minlength=classes).argmax())
        tree = self._fitted(DecisionTreeClassifier, x[fit], decided[fit])
        imitated = tree.predict(x[held])
        cells = confusion(codes[held], np.searchsorted(known, imitated), classes)
        shuffled = rng.permutation(decided)
        control = self._fitted(DecisionTreeClassifier, x[fit], shuffled[fit])
        guessed = np.searchsorted(known, control.predict(x[held]))
        chance = confusion(np.searchsorted(known, shuffled[held]), guessed, classes)
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
                **self._curve(DecisionTreeClassifier, x, decided, halves, tier, _agreement, "fidelity"),
            },
            **context,
        )
        right = proportion(
            _ACCURACY,
            int(np.sum(imitated == examples.y[held])),
            n,
            unit="held-out examples",
            anchors={
                "model": float(np.mean(decided[held] == examples.y[held])),
                "majority_rule": float(np.mean(examples.y[held] == known[majority])),
            },
            **context,
        )
        rules = self._rules(
            subject,
            tree,
            lambda value: subject.task.classes[int(tree.classes_[value.argmax()])],
            lambda found: judge_rules(found, x[held], decided[held], examples.y[held]),
        )
        if classes < 2:
            reason = "the model decides the same for every example: any rule agrees"
            missing = [not_measured(m, reason, status="not_applicable", **context) for m in (_KAPPA, _GAIN)]
            return [fidelity, *missing, right, rules]
        luck = float(kappa(chance[None])[0])
        if luck > luck_allowed(n):
            reason = (
                f"a tree on shuffled decisions has kappa {luck:.2f}: the instrument finds what is not there"
            )
            return [
                not_measured(m, reason, status="unreliable", n=n, unit="held-out examples", **context)
                for m in _DECISIONS
            ]
        more = self._nearby(subject, tree, x[held], rng)
        if tier == "full":
            more.append(
                stability(
                    lambda rows, given: self._fitted(DecisionTreeClassifier, rows, given),
                    x[fit],
                    decided[fit],
                    subject.task.schema,
                    rng,
                    context,
                )
            )
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
            beyond(_KAPPA, kappa, chance_agreement(cells), {"chance": 0.0, "shuffled_decisions": luck}),
            beyond(
                _GAIN,
                lambda counts: gain(counts, majority),
                float(cells[majority].sum() / n),
                {"majority_rule": 0.0},
            ),
            right,
            rules,
            *more,
        ]

    def _nearby(
        self, subject: Subject, tree: Any, x: NDArray[np.float32], rng: np.random.Generator
    ) -> list[Finding]:
        """Agreement on records near the held-out ones, where a rule that only fits the data is found out."""
        near = perturbed(x, subject.task.schema, rng)
        decided = subject.predict(near)
        most = float(np.bincount(decided).max() / len(decided))
        agreed = int(np.sum(tree.predict(near) == decided))
        return [
            proportion(
                _NEARBY,
                agreed,
                len(near),
                unit="perturbed examples",
                anchors={"majority_rule": most},
                detail={"reach": 0.1},
                **subject.provenance,
            )
        ]

    def _numbers(
        self,
        subject: Subject,
        examples: Examples,
        halves: tuple[NDArray[np.int64], NDArray[np.int64]],
        rng: np.random.Generator,
        tier: Tier,
    ) -> list[Finding]:
        fit, held = halves
        x, answers, context = examples.x, subject.logits(examples.x)[:, 0], subject.provenance
        tree = self._fitted(DecisionTreeRegressor, x[fit], answers[fit])
        rules = self._rules(subject, tree, lambda value: _number(subject, float(value[0])), list)
        if np.ptp(answers) == 0:
            reason = "the model gives the same number for every example"
            missing = [
                not_measured(m, reason, status="not_applicable", **context)
                for m in ("surrogate.r2", _NEARBY_R2)
            ]
            return [*missing, rules]
        shuffled = rng.permutation(answers)
        control = self._fitted(DecisionTreeRegressor, x[fit], shuffled[fit])
        luck = float(r_squared(moments(control.predict(x[held]), shuffled[held]).sum(axis=0)[None])[0])
        if luck > luck_allowed(len(held)):
            reason = (
                f"a tree on shuffled answers has R squared {luck:.2f}: the instrument finds what is not there"
            )
            return [
                not_measured(m, reason, status="unreliable", n=len(held), unit="held-out examples", **context)
                for m in ("surrogate.r2", _NEARBY_R2, _RULES)
            ]

        def explained(
            metric: str, rows: NDArray[np.float32], truth: Array, unit: str, **more: Any
        ) -> Finding:
            sums = moments(tree.predict(rows), truth)
            return estimate(
                metric,
                float(r_squared(sums.sum(axis=0)[None])[0]),
                interval=interval_of(r_squared, sums, rng, _RESAMPLES),
                method="bootstrap",
                n=len(rows),
                unit=unit,
                **more,
                **context,
            )

        found = [
            explained(
                "surrogate.r2",
                x[held],
                answers[held],
                "held-out examples",
                anchors={"predicting_the_mean": 0.0, "shuffled_answers": luck},
                detail=self._curve(DecisionTreeRegressor, x, answers, halves, tier, _explained, "r2"),
            ),
            rules,
        ]
        near = perturbed(x[held], subject.task.schema, rng)
        anchors, detail = {"predicting_the_mean": 0.0}, {"reach": 0.1}
        there = subject.logits(near)[:, 0]
        found.append(
            explained(_NEARBY_R2, near, there, "perturbed examples", anchors=anchors, detail=detail)
            if np.ptp(there) > 0
            else not_measured(
                _NEARBY_R2, "the model gives the same number everywhere", status="not_applicable", **context
            )
        )
        if tier == "full":
            kind = DecisionTreeRegressor
            found.append(
                stability(
                    lambda rows, given: self._fitted(kind, rows, given),
                    x[fit],
                    answers[fit],
                    subject.task.schema,
                    rng,
                    context,
                )
            )
        return found

    def _fitted(self, kind: Any, x: NDArray[Any], y: NDArray[Any], depth: int | None = None) -> Any:
        # The seed decides between equal splits only; there is no other randomness in a tree.
        depth = self.depth if depth is None else depth
        return kind(max_depth=depth, min_samples_leaf=self.leaf, random_state=0).fit(x, y)

    def _curve(
        self,
        kind: Any,
        x: NDArray[np.float32],
        answers: NDArray[Any],
        halves: tuple[NDArray[np.int64], NDArray[np.int64]],
        tier: Tier,
        score: Callable[[NDArray[Any], NDArray[Any]], float],
        figure: str,
    ) -> dict[str, Any]:
        """The depth-fidelity curve, in the full tier."""
        if tier != "full":
            return {}
        fit, held = halves
        curve = by_depth(
            lambda depth: self._fitted(kind, x[fit], answers[fit], depth),
            lambda tree: score(tree.predict(x[held]), answers[held]),
            figure,
        )
        return {"curve": curve}

    def _rules(
        self, subject: Subject, tree: Any, outcome: Any, judged: Callable[[list[Rule]], list[Rule]]
    ) -> Finding:
        rules = judged(read_rules(tree, subject.task.schema, outcome))
        # A threshold lies half-way between the values of two records: of private ones none is shown.
        shown: dict[str, Any] = (
            {"rules": rules} if subject.shows_records else {"rules_left_out": _THRESHOLDS_TELL}
        )
        return estimate(
            _RULES,
            float(len(rules)),
            bound="exact",
            detail={
                **shown,
                "depth": int(tree.get_depth()),
                "mean_conditions": float(sum(rule["conditions"] * rule["share"] for rule in rules)),
                "mean_length": float(np.mean([rule["conditions"] for rule in rules])),
            },
            **subject.provenance,
        )


def _agreement(answers: NDArray[Any], wanted: NDArray[Any]) -> float:
    return float(np.mean(answers == wanted))


def _explained(answers: Array, wanted: Array) -> float:
    return float(r_squared(moments(answers, wanted).sum(axis=0)[None])[0])


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
