"""Accuracy under corruptions, noise and shift: each alone, their mean, and the mean against a named baseline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Cost, Subject, Tier
from fedsafe.assess.corruptions import tables
from fedsafe.assess.corruptions.baseline import find_baseline
from fedsafe.assess.corruptions.domains import load_domain
from fedsafe.assess.corruptions.figures import Wrong, mean_error, relative_error, single, tilted, wrong
from fedsafe.assess.corruptions.suites import BY_SEVERITY, CORRUPTIONS, MNIST_C, are_images, corrupt
from fedsafe.data import Examples, Schema
from fedsafe.errors import ConfigError, FedSafeError
from fedsafe.extensions import one_line, resolve, unknown_option
from fedsafe.findings import Finding, Provenance, Scalar, not_measured, picture

_MEAN, _RELATIVE = "corruptions.mean_error", "corruptions.relative_error"

Worse = Callable[[NDArray[Any], np.random.Generator], NDArray[np.float32]]

_SEVERITIES = (1, 2, 3, 4, 5)
_MIDDLE = 3
_GRID = 4


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much a tier measures.

    Attributes:
        examples: Examples to corrupt, at most.
        severities: Whether noise and blur are measured at every severity, and not at one.
        baseline: Whether errors are compared with the baseline's.
        pictures: Whether one example is shown under every corruption, if records may be shown.
    """

    examples: int
    severities: bool
    baseline: bool
    pictures: bool


_CHEAP = Effort(examples=80, severities=False, baseline=False, pictures=False)
_FULL = Effort(examples=1000, severities=True, baseline=True, pictures=True)


@dataclass(frozen=True, kw_only=True)
class Corruptions:
    """Accuracy, or the absolute error of a regression, on inputs that are worse than those of the evaluation.

    Images: the fifteen corruptions of MNIST-C, and noise and blur by severity. Tables: noise and missing values by
    severity, and another mix of records by one feature at a time. Either: a second domain.

    Attributes:
        suite: Names or import paths of corruptions (see `fedsafe.assess.corruptions.suites.Corruption`) in place of
            those of MNIST-C; a name may end in a severity, such as "fog:3". For a table, of scaled features.
        baseline: What relative errors are relative to: "ridge", "previous" or an import path, see
            `fedsafe.assess.corruptions.baseline.find_baseline`; None for no relative errors.
        shift: A second domain, see `fedsafe.assess.corruptions.domains.load_domain`.
        cheap: Effort of the cheap tier, or a table of what differs from the default.
        full: Effort of the full tier, likewise.

    Raises:
        ConfigError: A corruption or a baseline cannot be found.
    """

    name: ClassVar[str] = "corruptions"
    suite: tuple[str, ...] | None = None
    baseline: str | None = "ridge"
    shift: str | Mapping[str, Any] | None = None
    cheap: Effort | Mapping[str, Any] = _CHEAP
    full: Effort | Mapping[str, Any] = _FULL

    def __post_init__(self) -> None:
        for entry in self.suite or ():
            resolve("corruption", _severity(entry)[0], CORRUPTIONS)
        for key in ("cheap", "full"):
            table = getattr(self, key)
            wrong = unknown_option(Effort, table) if isinstance(table, Mapping) else ""
            if wrong:
                raise ConfigError(f"corruptions.{key}: {wrong}")
        if self.baseline not in (None, "ridge", "previous"):
            resolve("baseline", self.baseline, {})

    def plan(self, subject: Subject, tier: Tier) -> Cost:
        """One pass for each corruption, for the model and for a baseline that is a module."""
        if _unfit(subject):
            return Cost(description=f"nothing: {_unfit(subject)}")
        effort = self._effort(tier)
        n = min(effort.examples, len(subject.evaluation))
        suite, more = self._suite(subject, effort)
        models = 2 if effort.baseline and self.baseline not in (None, "ridge") else 1
        # Another mix of records weighs what is predicted of all.
        clean = len(subject.evaluation) if _has_columns(subject) else n
        domain = effort.examples if self.shift is not None else 0
        return Cost(
            description=f"{len(suite) + len(more)} corruptions of {n} examples"
            + (", and a second domain" if domain else ""),
            examples=max(n, clean),
            forward=clean + models * (len(suite) + len(more)) * n + domain + effort.pictures * len(suite),
        )

    def __call__(self, subject: Subject, *, rng: np.random.Generator, tier: Tier) -> list[Finding]:
        """Measures; see `Assessor`."""
        reason = _unfit(subject)
        if reason:
            context: Provenance = subject.provenance
            return [
                not_measured(metric, reason, status="not_applicable", **context)
                for metric in ("corruptions.accuracy", _MEAN)
            ]
        effort = self._effort(tier)
        rows = subject.shared_rows(effort.examples)
        everything = subject.evaluation if _has_columns(subject) else subject.evaluation.take(rows)
        clean = wrong(subject, everything)
        findings = self._corrupted(
            subject, rows, clean[rows] if _has_columns(subject) else clean, effort, rng
        )
        if _has_columns(subject):
            findings += [
                tilted(subject, clean, feature, direction, weights)
                for feature, direction, weights in tables.tilts(subject)
            ]
        if self.shift is not None:
            findings.append(self._shifted(subject, clean, effort))
        return findings

    def _effort(self, tier: Tier) -> Effort:
        chosen, default = (self.cheap, _CHEAP) if tier == "cheap" else (self.full, _FULL)
        return chosen if isinstance(chosen, Effort) else replace(default, **chosen)

    def _suite(self, subject: Subject, effort: Effort) -> tuple[dict[tuple[str, int], Worse], ...]:
        """What is averaged, and what is measured besides, by name and severity."""
        severities = _SEVERITIES if effort.severities else (_MIDDLE,)
        if self.suite is not None:
            chosen = [_severity(entry) for entry in self.suite]
            return {key: _image(subject, *key) for key in chosen}, {}
        if are_images(subject):
            more = [(name, severity) for name in BY_SEVERITY for severity in severities]
            return (
                {key: _image(subject, *key) for key in MNIST_C.items()},
                {key: _image(subject, *key) for key in more if effort.severities},
            )
        kinds: dict[str, Any] = {"noise": tables.noise} if subject.perturbable().any() else {}
        if isinstance(subject.task.schema, Schema):
            kinds["missing"] = tables.missing
        suite = {(name, _MIDDLE): _table(subject, make, _MIDDLE) for name, make in kinds.items()}
        every = {(n, s): _table(subject, make, s) for n, make in kinds.items() for s in severities}
        return suite, {key: made for key, made in every.items() if key not in suite}

    def _corrupted(
        self,
        subject: Subject,
        rows: NDArray[np.int64],
        clean: Wrong,
        effort: Effort,
        rng: np.random.Generator,
    ) -> list[Finding]:
        examples = subject.evaluation.take(rows)
        suite, more = self._suite(subject, effort)
        named = "its own" if self.suite is not None else "mnist-c" if are_images(subject) else "table"
        against = self._baseline(subject, rows) if effort.baseline and suite else None
        findings: list[Finding] = []
        errors: dict[tuple[str, int], Wrong] = {}
        theirs: dict[tuple[str, int], Wrong] = {}
        for key, worse in {**suite, **more}.items():
            where: dict[str, Scalar] = {"corruption": key[0], "severity": key[1]}
            try:
                changed = replace(examples, x=worse(examples.x, rng))
            except (FedSafeError, TypeError, ValueError) as error:
                reason = f"corruption {key[0]!r} failed: {one_line(error)}"
                metric = _single_metric(subject)
                findings.append(not_measured(metric, reason, where=where, **subject.provenance))
                continue
            found = wrong(subject, changed)
            findings.append(single(subject, found, where, clean))
            if key in suite:
                errors[key] = found
                if against is not None and not isinstance(against, str):
                    theirs[key] = wrong(subject, changed, against[1](changed))
        if len(errors) == len(suite) > 0 and subject.task.kind != "regression":
            pictures = self._pictures(subject, examples, suite, rng) if effort.pictures else []
            findings.append(mean_error(subject, errors, named, clean, pictures))
        if against is not None and len(errors) == len(suite):
            scope: dict[str, Scalar] = {"suite": named, "baseline": self.baseline or ""}
            if isinstance(against, str):
                missing = not_measured(
                    _RELATIVE, against, status="insufficient", where=scope, **subject.provenance
                )
                findings.append(missing)
            else:
                findings.append(relative_error(subject, errors, theirs, scope, against[0], rng))
        return findings

    def _baseline(self, subject: Subject, rows: NDArray[np.int64]) -> Any:
        if self.baseline is None:
            return None
        try:
            return find_baseline(subject, self.baseline, rows)
        except FedSafeError as error:
            return one_line(error)

    def _shifted(self, subject: Subject, clean: Wrong, effort: Effort) -> Finding:
        named = self.shift if isinstance(self.shift, str) else str((self.shift or {}).get("name", "a table"))
        where: dict[str, Scalar] = {"corruption": "shift", "domain": named}
        metric = _single_metric(subject)
        try:
            data, examples, released = load_domain(subject, self.shift or "")
        except FedSafeError as error:
            return not_measured(metric, one_line(error), where=where, **subject.provenance)
        step = max(1, -(-len(examples) // effort.examples))
        elsewhere = examples.take(np.arange(0, len(examples), step))
        released = released if released is not None else subject.released
        found = single(subject, wrong(subject, elsewhere), where, clean)
        return replace(found, data=f"{data}, beside {subject.evaluation_name}", released=released)

    def _pictures(
        self,
        subject: Subject,
        examples: Examples,
        suite: Mapping[tuple[str, int], Worse],
        rng: np.random.Generator,
    ) -> list[list[dict[str, Any]]]:
        """One example as it is and under every corruption, in rows."""
        if not (subject.shows_records and are_images(subject) and len(suite) < 24 and len(examples)):
            return []
        if subject.task.schema.shape[1] * subject.task.schema.shape[2] > 64 * 64:
            return []
        low, high = subject.input_bounds()
        first, classes = examples.x[:1], subject.task.classes
        shown = [("as it is", first), *((name, worse(first, rng)) for (name, _), worse in suite.items())]
        read = subject.predict(np.concatenate([x for _, x in shown]))
        drawn = [
            picture(
                title.replace("_", " "),
                x[0],
                low=float(low.min()),
                high=float(high.max()),
                note=f"read as {classes[label]}; it is {classes[int(examples.y[0])]}",
            )
            for (title, x), label in zip(shown, read, strict=True)
        ]
        return [drawn[start : start + _GRID] for start in range(0, len(drawn), _GRID)]


def _unfit(subject: Subject) -> str:
    """Why there is nothing to corrupt; "" where there is."""
    if subject.task.schema.vocabulary is not None:
        return "the inputs are tokens: noise and blur have no meaning for them"
    return ""


def _has_columns(subject: Subject) -> bool:
    return len(subject.task.schema.shape) == 1


def _single_metric(subject: Subject) -> str:
    return "corruptions.absolute_error" if subject.task.kind == "regression" else "corruptions.accuracy"


def _severity(entry: str) -> tuple[str, int]:
    """A name and its severity: that of the suite, or 3, unless a number follows the last colon."""
    name, colon, last = entry.rpartition(":")
    if colon and last in {"1", "2", "3", "4", "5"}:
        return name, int(last)
    return entry, MNIST_C.get(entry, _MIDDLE)


def _image(subject: Subject, name: str, severity: int) -> Worse:
    return lambda x, rng: corrupt(subject, x, name, severity, rng)


def _table(subject: Subject, make: Any, severity: int) -> Worse:
    return lambda x, rng: np.asarray(make(subject, x, severity, rng), dtype=np.float32)
