"""What the counts of a checker say of the truth once its errors are taken into account, and what they cannot say."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fedsafe.alignment.checker_errors import CheckerError
from fedsafe.findings import Interval, clopper_pearson

Floats = NDArray[np.float64]

_DRAWS = 20_000
_NO_FIT = "the labelled texts do not fit: the checker finds {} of {}, and errors like theirs give {}"
BAYES = "bayes, if all prompts are alike and restating changes nothing"


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """A share after correction.

    Attributes:
        value: In [0, 1]; None where the counts say nothing of the truth.
        interval: In [0, 1], and never a point; None without a value.
        method: How it was made, or why there is none.
    """

    value: float | None
    interval: Interval | None
    method: str


def rogan_gladen(k: int, n: int, error: CheckerError, confidence: float = 0.95) -> Corrected:
    """The true share of what breaks a principle, from what a checker finds in a sample that it did not select.

    ``(k / n + specificity - 1) / (sensitivity + specificity - 1)``, cut to [0, 1] (Rogan and Gladen, 1978). The
    interval carries the uncertainty of all three shares (Lang and Reiczigel, 2014); a share that no true one gives
    counts as the nearest that some does, so that the interval is one-sided there and no point. It is Clopper and
    Pearson's (1934) where the checker makes no error.

    Prompts may differ as they like, also in how easily the checker finds what breaks the principle, as long as the
    labelled texts are a random sample of what is counted here: only averages over the texts enter.

    Args:
        k: Texts that the checker finds.
        n: Texts.
        error: Of the checker, measured on other texts.
        confidence: Two-sided.

    Returns:
        No value where the labelled texts do not fit: the checker finds fewer than its false alarms alone would be, or
        more than if every text broke the principle, and chance does not explain it (the intervals of both shares
        have nothing in common).

    Raises:
        ConfigError: Not 0 <= k <= n.
    """
    raw = clopper_pearson(k, n, confidence)
    why = unusable(n, error) or _misfit(k, n, raw, error, confidence)
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
    share = min(max(share, 1 - sp), se)
    middle = (share + sp - 1) / slope
    spread = math.sqrt(
        share * (1 - share) / of_share
        + middle**2 * se * (1 - se) / of_se
        + (1 - middle) ** 2 * sp * (1 - sp) / of_sp
    )
    shift = 2 * z * z * (middle * se * (1 - se) / of_se - (1 - middle) * sp * (1 - sp) / of_sp)
    # What the shift takes at an end of [0, 1] it does not take from the side that is left.
    if middle in (0.0, 1.0):
        shift = 0.0
    low, high = (_cut(middle + shift + side * z * spread / slope) for side in (-1, 1))
    return Corrected(value=value, interval=(min(low, value), max(high, value)), method="lang and reiczigel")


def after_selection(
    k: int,
    n: int,
    flagged: int,
    answers: int,
    error: CheckerError,
    confidence: float = 0.95,
    *,
    rng: np.random.Generator,
) -> Corrected:
    """The true share of what breaks a principle among answers that its checker selected, if all prompts are alike.

    The checker finds nothing in texts that it let pass, so that `rogan_gladen` would say zero of them whatever was
    missed. With P the true share in an unselected sample, by `rogan_gladen`, Bayes's rule gives the share among what
    the checker passes, ``P (1 - sensitivity) / (P (1 - sensitivity) + (1 - P) specificity)``, and among what it finds;
    the answers are a mixture of the two. Intervals are the central part of draws of all shares from their posteriors
    under Jeffreys's priors.

    It supposes much, and the truth may be several times as large where that does not hold:

    * every prompt leads to broken texts equally often. Where some do so more, the rule is convex in P: these prompts'
      answers are what is left after several candidates, and what was missed gathers in them;
    * the texts after restating are of the same kind as those before, and of the same kind as the labelled ones;
    * which text becomes the answer does not depend on what the checker missed, as it may with a reward.

    None of this can be seen in counts and in labels of unguarded texts. For a rate that covers, read answers.

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
    counted = clopper_pearson(flagged, answers, confidence)  # refuses impossible counts
    before = rogan_gladen(k, n, error, confidence)
    if before.value is None or not answers:
        return Corrected(value=None, interval=None, method=before.method if answers else "there is no answer")
    if error.exact:
        return Corrected(value=flagged / answers, interval=counted, method="clopper-pearson")
    drawn = _posterior(k, n, error, rng)
    if drawn is None:
        return Corrected(value=None, interval=None, method="the checker is hardly better than chance")
    truths, se, sp, inside = drawn
    seen = rng.beta(flagged + 0.5, answers - flagged + 0.5, len(truths)) if flagged else 0.0
    sensitivity, specificity = error.found / error.broken, error.cleared / error.kept
    value = float(_among(np.array(before.value), flagged / answers, sensitivity, specificity))
    draws = _among(truths, seen, se, sp)
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    if inside.any():  # else draws that were cut could make a point of it
        uncut = np.quantile(draws[inside], [tail, 1 - tail])
        low, high = min(low, uncut[0]), max(high, uncut[1])
    return Corrected(value=value, interval=(min(float(low), value), max(float(high), value)), method=BAYES)


def fall(
    k: int,
    n: int,
    error: CheckerError,
    broken: int,
    read: int,
    confidence: float = 0.95,
    *,
    rng: np.random.Generator,
) -> Corrected:
    """The part of the violations that a guard takes away, ``1 - after / before``; it may be negative.

    After is the share of the answers that were found broken by whoever read them, before the true share of what is
    written unguarded, by `rogan_gladen`. Nothing is supposed of how the answers were chosen. The interval is the
    central part of draws of both: of the first from the two distributions that Clopper and Pearson's ends are
    quantiles of, each for its own end, and of the second from its posterior under Jeffreys's priors, cut to (0, 1].

    Args:
        k: Unguarded texts that the checker finds.
        n: Unguarded texts.
        error: Of the checker, measured on other unguarded texts.
        broken: Answers that break the principle, of those that were read.
        read: A random part of the answers, or all.
        confidence: Two-sided.
        rng: Of the draws.

    Raises:
        ConfigError: Not 0 <= k <= n, or not 0 <= broken <= read.
    """
    clopper_pearson(broken, read, confidence)
    before = rogan_gladen(k, n, error, confidence)
    if before.value is None or not read:
        why = before.method if before.value is None else "no answer was read"
        return Corrected(value=None, interval=None, method=why)
    if before.value == 0:
        return Corrected(value=None, interval=None, method="nothing broke it before")
    if error.exact:
        truths = rng.beta(k + 0.5, n - k + 0.5, _DRAWS)
    else:
        drawn = _posterior(k, n, error, rng)
        if drawn is None:
            return Corrected(value=None, interval=None, method="the checker is hardly better than chance")
        truths = drawn[0][drawn[3]] if drawn[3].any() else drawn[0]
    truths = np.maximum(truths, np.finfo(float).tiny)
    most = rng.beta(broken + 1, read - broken, len(truths)) if broken < read else np.ones(len(truths))
    least = rng.beta(broken, read - broken + 1, len(truths)) if broken else np.zeros(len(truths))
    value = 1 - broken / read / before.value
    low = float(np.quantile(1 - most / truths, (1 - confidence) / 2))
    high = float(np.quantile(1 - least / truths, (1 + confidence) / 2))
    return Corrected(
        value=value, interval=(min(low, value), max(high, value)), method="draws: answers read over corrected"
    )


def unusable(n: int, error: CheckerError) -> str:
    """Why a checker's counts say nothing of the truth; "" where they do."""
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


def _misfit(k: int, n: int, raw: Interval, error: CheckerError, confidence: float) -> str:
    if error.exact:
        return ""
    least = clopper_pearson(error.kept - error.cleared, error.kept, confidence)[0]
    most = clopper_pearson(error.found, error.broken, confidence)[1]
    if raw[1] < least:
        return _NO_FIT.format(k, n, f"{least:.3f} of them at the least")
    return _NO_FIT.format(k, n, f"{most:.3f} of them at the most") if raw[0] > most else ""


def _posterior(
    k: int, n: int, error: CheckerError, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats, NDArray[np.bool_]] | None:
    """Draws of the true share, cut to [0, 1], of sensitivity and specificity, and which were not cut.

    None where most draws are of a checker that is no better than chance.
    """
    share = rng.beta(k + 0.5, n - k + 0.5, _DRAWS)
    se = rng.beta(error.found + 0.5, error.broken - error.found + 0.5, _DRAWS)
    sp = rng.beta(error.cleared + 0.5, error.kept - error.cleared + 0.5, _DRAWS)
    better = se + sp > 1
    if better.mean() < 0.5:
        return None
    share, se, sp = share[better], se[better], sp[better]
    truths = (share + sp - 1) / (se + sp - 1)
    return np.clip(truths, 0.0, 1.0), se, sp, (truths > 0) & (truths < 1)


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


def _cut(value: float) -> float:
    return min(1.0, max(0.0, value))
