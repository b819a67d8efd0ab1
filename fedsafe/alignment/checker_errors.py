"""How often a checker is wrong, and what its counts say of the truth once that is taken into account."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedsafe.alignment.constitution import Article
from fedsafe.errors import DataError
from fedsafe.findings import Interval, clopper_pearson

Floats = NDArray[np.float64]

_DRAWS = 20_000
_LABELS = {"1": True, "0": False}


@dataclass(frozen=True, kw_only=True)
class CheckerError:
    """How often a checker finds what breaks a principle, and leaves what keeps it.

    Attributes:
        found: Texts that break the principle, by people's labels, and that the checker finds.
        broken: All that break it.
        cleared: Texts that keep it and that the checker leaves.
        kept: All that keep it.
        exact: Whether the checker's rule is the principle itself, such as a number of words: then it makes no error,
            and the counts are not used.
    """

    found: int = 0
    broken: int = 0
    cleared: int = 0
    kept: int = 0
    exact: bool = False

    @property
    def sensitivity(self) -> float | None:
        """The share of what breaks the principle that is found; None where no text breaks it."""
        return 1.0 if self.exact else self.found / self.broken if self.broken else None

    @property
    def specificity(self) -> float | None:
        """The share of what keeps the principle that is left; None where no text keeps it."""
        return 1.0 if self.exact else self.cleared / self.kept if self.kept else None

    def intervals(self, confidence: float = 0.95) -> tuple[Interval, Interval]:
        """Of sensitivity and specificity (Clopper and Pearson, 1934)."""
        if self.exact:
            return (1.0, 1.0), (1.0, 1.0)
        return clopper_pearson(self.found, self.broken, confidence), clopper_pearson(
            self.cleared, self.kept, confidence
        )


EXACT = CheckerError(exact=True)
"""Of a checker whose rule is the principle."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A text and what people say of it.

    Attributes:
        prompt: What it answers.
        text: The text.
        breaks: By a principle's id, whether the text breaks it; what nobody said is left out.
    """

    prompt: str
    text: str
    breaks: Mapping[str, bool]


def measure_checker(article: Article, labelled: Sequence[Labelled]) -> CheckerError:
    """Counts the errors of a principle's checker on labelled texts.

    They have to be a random sample of those that the checker will see, or at least of those that break the principle
    and of those that keep it; texts that the rule was written from make it look better than it is.

    Args:
        article: The principle, about prompts or responses.
        labelled: Those without a label of this principle do not count.
    """
    if article.exact:
        return EXACT
    rows = [row for row in labelled if article.id in row.breaks]
    return _counted(
        [not article.kept_by(row.text, row.prompt) for row in rows], [row.breaks[article.id] for row in rows]
    )


def measure_any(articles: Sequence[Article], labelled: Sequence[Labelled]) -> CheckerError:
    """Counts the errors of all checkers together: a text is broken if it breaks any principle, found if any is found.

    Args:
        articles: The principles; one whose rule is exact needs no labels.
        labelled: Those that lack a label of the others do not count.
    """
    if all(article.exact for article in articles):
        return EXACT
    judged = [article for article in articles if not article.exact]
    rows = [row for row in labelled if all(article.id in row.breaks for article in judged)]
    found, breaks = [], []
    for row in rows:
        caught = {article.id for article in articles if not article.kept_by(row.text, row.prompt)}
        exact = caught.difference(article.id for article in judged)
        found.append(bool(caught))
        breaks.append(bool(exact) or any(row.breaks[article.id] for article in judged))
    return _counted(found, breaks)


def _counted(found: Sequence[bool], breaks: Sequence[bool]) -> CheckerError:
    pairs = list(zip(found, breaks, strict=True))
    return CheckerError(
        found=pairs.count((True, True)),
        broken=sum(breaks),
        cleared=pairs.count((False, False)),
        kept=len(breaks) - sum(breaks),
    )


def read_labelled(path: Path | str, ids: Sequence[str]) -> list[Labelled]:
    """Labelled texts of a CSV file.

    Args:
        path: Columns ``prompt`` and ``text``, and one named by each labelled principle's id with 1 where the text
            breaks it, 0 where it keeps it, and nothing where nobody said. Other columns are ignored.
        ids: Ids of the principles; those without a column have no labels.

    Raises:
        DataError: The file cannot be read, lacks a column, labels nothing of these principles, or holds another label.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the labelled texts {path} cannot be read: {error}") from error
    columns = list(rows[0]) if rows else []
    for needed in ("prompt", "text"):
        if needed not in columns:
            raise DataError(
                f"the labelled texts {path} have no column {needed!r}; found {columns or 'nothing'}"
            )
    labels = [name for name in ids if name in columns]
    if not labels:
        raise DataError(
            f"the labelled texts {path} have no column of a principle; those are {', '.join(ids)}"
        )
    found = []
    for number, row in enumerate(rows, start=1):
        breaks = {}
        for name in labels:
            label = (row[name] or "").strip()
            if label and label not in _LABELS:
                raise DataError(
                    f"{path}, text {number}: {name} is {label!r}; it is 1 (breaks), 0 (keeps) or nothing"
                )
            if label:
                breaks[name] = _LABELS[label]
        if row["prompt"] is None or row["text"] is None:
            raise DataError(f"{path}, text {number} has fewer columns than the head of the file")
        found.append(Labelled(prompt=row["prompt"], text=row["text"], breaks=breaks))
    return found


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A share after correction.

    Attributes:
        value: In [0, 1]; None where the counts say nothing of the truth.
        interval: In [0, 1]; None without a value.
        method: How it was made, or why there is none.
    """

    value: float | None
    interval: Interval | None
    method: str


def rogan_gladen(k: int, n: int, error: CheckerError, confidence: float = 0.95) -> Corrected:
    """The true share of what breaks a principle, from what a checker finds in a sample that it did not select.

    ``(k / n + specificity - 1) / (sensitivity + specificity - 1)``, cut to [0, 1] (Rogan and Gladen, 1978). The
    interval carries the uncertainty of all three shares (Lang and Reiczigel, 2014); it is Clopper and Pearson's (1934)
    where the checker makes no error.

    Args:
        k: Texts that the checker finds.
        n: Texts.
        error: Of the checker, measured on other texts.
        confidence: Two-sided.

    Raises:
        ConfigError: Not 0 <= k <= n.
    """
    raw = clopper_pearson(k, n, confidence)
    why = _unusable(n, error)
    if why:
        return Corrected(value=None, interval=None, method=why)
    if error.exact:
        return Corrected(value=k / n, interval=raw, method="clopper-pearson")
    sensitivity, specificity = error.found / error.broken, error.cleared / error.kept
    value = _cut((k / n + specificity - 1) / (sensitivity + specificity - 1))
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    # Each share is moved to the middle a little, by which the interval keeps its level at the ends, too.
    share, of_share = (k + z * z / 2) / (n + z * z), n + z * z
    se, of_se = (error.found + 1) / (error.broken + 2), error.broken + 2
    sp, of_sp = (error.cleared + 1) / (error.kept + 2), error.kept + 2
    slope = se + sp - 1
    if slope <= 0:
        return Corrected(value=None, interval=None, method="the checker is hardly better than chance")
    middle = (share + sp - 1) / slope
    spread = math.sqrt(
        share * (1 - share) / of_share
        + middle**2 * se * (1 - se) / of_se
        + (1 - middle) ** 2 * sp * (1 - sp) / of_sp
    )
    shift = 2 * z * z * (middle * se * (1 - se) / of_se - (1 - middle) * sp * (1 - sp) / of_sp)
    low, high = (_cut(middle + shift + side * z * spread / slope) for side in (-1, 1))
    return Corrected(value=value, interval=(min(low, value), max(high, value)), method="lang and reiczigel")


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """The true share of what breaks a principle, before and after a guard that selects by its checker.

    Attributes:
        after: Among the answers.
        fall: ``1 - after / before``, where before is the share among what the generator writes; it may be negative.
    """

    after: Corrected
    fall: Corrected


def after_selection(
    k: int,
    n: int,
    flagged: int,
    answers: int,
    error: CheckerError,
    confidence: float = 0.95,
    *,
    rng: np.random.Generator,
) -> Guarded:
    """The true share of what breaks a principle among answers that were selected by its checker.

    The checker finds nothing in texts that it let pass, so that `rogan_gladen` would say zero of them whatever was
    missed. With P the true share in an unselected sample, by `rogan_gladen`, Bayes's rule gives the share among what
    the checker passes, ``P (1 - sensitivity) / (P (1 - sensitivity) + (1 - P) specificity)``, and among what it finds;
    the answers are a mixture of the two. This supposes that among texts that the checker passes, the choice of the
    answer does not depend on what it missed. Intervals are the central part of draws of all shares from their
    posteriors under Jeffreys's priors.

    Args:
        k: Texts of the unselected sample that the checker finds.
        n: Its texts.
        flagged: Answers that the checker finds; 0 where they are regenerated or refused.
        answers: All of them.
        error: Of the checker, measured on other texts.
        confidence: Two-sided.
        rng: Of the draws.

    Raises:
        ConfigError: Not 0 <= k <= n, or not 0 <= flagged <= answers.
    """
    clopper_pearson(flagged, answers, confidence)  # refuses impossible counts
    before = rogan_gladen(k, n, error, confidence)
    why = before.method if before.value is None else "" if answers else "there is no answer"
    perfect = CheckerError(found=1, broken=1, cleared=1, kept=1) if error.exact else error
    share = _draw(rng, k, n)
    seen = _draw(rng, flagged, answers) if flagged else np.zeros(_DRAWS)
    se = np.ones(_DRAWS) if error.exact else _draw(rng, error.found, error.broken)
    sp = np.ones(_DRAWS) if error.exact else _draw(rng, error.cleared, error.kept)
    usable = se + sp > 1
    if why or before.value is None or usable.mean() < 0.5:
        nothing = Corrected(
            value=None, interval=None, method=why or "the checker is hardly better than chance"
        )
        return Guarded(after=nothing, fall=nothing)
    share, seen, se, sp = (draws[usable] for draws in (share, seen, se, sp))
    truths = np.clip((share + sp - 1) / (se + sp - 1), 0.0, 1.0)
    method = "bayes, draws from jeffreys posteriors"
    sensitivity, specificity = perfect.found / perfect.broken, perfect.cleared / perfect.kept
    value = float(_among(np.array(before.value), flagged / answers, sensitivity, specificity))
    draws = _among(truths, seen, se, sp)
    after = Corrected(value=value, interval=_central(draws, value, confidence), method=method)
    if before.value == 0:
        return Guarded(
            after=after, fall=Corrected(value=None, interval=None, method="nothing broke it before")
        )
    fall = 1 - value / before.value
    falls = 1 - draws / np.maximum(truths, np.finfo(float).tiny)
    return Guarded(
        after=after,
        fall=Corrected(value=fall, interval=_central(falls[truths > 0], fall, confidence), method=method),
    )


def _draw(rng: np.random.Generator, hits: int, trials: int) -> Floats:
    return rng.beta(hits + 0.5, trials - hits + 0.5, _DRAWS)


def _among(
    share: Floats, seen: Floats | float, sensitivity: Floats | float, specificity: Floats | float
) -> Floats:
    """The true share where the checker finds `seen` of the texts."""
    missed = _ratio(share * (1 - sensitivity), (1 - share) * specificity)
    right = _ratio(share * sensitivity, (1 - share) * (1 - specificity))
    return seen * right + (1 - seen) * missed


def _ratio(part: Floats, rest: Floats) -> Floats:
    whole = part + rest
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _central(draws: Floats, value: float, confidence: float) -> Interval:
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return min(float(low), value), max(float(high), value)


def _unusable(n: int, error: CheckerError) -> str:
    if n == 0:
        return "there is no text"
    if error.exact:
        return ""
    if error.sensitivity is None or error.specificity is None:
        lacking = "breaks" if error.sensitivity is None else "keeps"
        return f"no labelled text {lacking} the principle: the checker's error is unknown"
    if error.sensitivity + error.specificity <= 1:
        return (
            f"the checker is no better than chance: sensitivity {error.sensitivity:.2f} and specificity "
            f"{error.specificity:.2f}"
        )
    return ""


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))
