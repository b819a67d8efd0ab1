"""What inversion attacks come to, as findings: likeness beside the mean record, records singled out, labels read."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.assess.base import Subject
from fedsafe.assess.privacy.likeness import identified, mean_squares, psnr, ssim, to_ranges
from fedsafe.assess.privacy.threat import CAVEAT, Threat, against_chance
from fedsafe.client import LocalTraining
from fedsafe.data import Examples
from fedsafe.findings import (
    Finding,
    Scope,
    estimate,
    find_metric,
    not_measured,
    proportion,
    t_interval,
    wilson,
)

Array = NDArray[np.float64]

_PSNR, _SSIM, _GAIN, _ROW, _FOUND, _LABEL = (
    f"inversion.{name}"
    for name in ("psnr", "ssim", "gain_over_mean", "row_error", "identified", "label_accuracy")
)
_SEES = "one client's update, and the model that it was made from"
ANALYTIC = Threat(
    attack="analytic",
    adversary="server",
    sees=_SEES,
    costs="one division",
    needs="a first layer that is linear, with a bias; of several records, the best candidate for each is counted",
)
MATCHING = Threat(
    attack="gradient matching",
    adversary="server",
    sees=_SEES,
    costs="hundreds of gradients of gradients for each record",
    needs="a model that can be differentiated twice; one local step; a label that is read from the update or known",
)
LABEL = Threat(
    attack="label inference",
    adversary="server",
    sees=_SEES,
    costs="one look at the last bias",
    needs="cross-entropy, a last layer with a bias, and one record in the batch",
)
NONE, OWN = "none", "of the run"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an update came about.

    Attributes:
        threat: The attack on it.
        noise: `NONE`, without clip and noise, or `OWN`, with the run's.
        records: In the batch.
        steps: Local steps on it.
    """

    threat: Threat
    noise: str
    records: int = 1
    steps: int = 1

    @property
    def where(self) -> dict[str, str | int]:
        """For a finding."""
        return {
            "attack": self.threat.attack,
            "noise": self.noise,
            "records": self.records,
            "steps": self.steps,
        }


class Yardstick:
    """True records, and what stands beside a rebuilt one: the mean, zeros and decoys, in parts of the features' ranges.

    Args:
        subject: With the public bounds.
        victims: The attacked records.
        public: Records that the adversary has: their mean is the guess without an update.
    """

    def __init__(self, subject: Subject, victims: Examples, public: Examples) -> None:
        self._bounds = subject.input_bounds()
        self.mean: Array = public.x.mean(axis=0, dtype=np.float64)
        self.true, self.decoys = self.ranges(victims.x), self.ranges(public.x)
        self.middle = self.ranges(self.mean[None])
        self.zero = self.ranges(np.zeros((1, *self.mean.shape)))
        self.images = len(subject.task.schema.shape) >= 2

    def nearest(self, candidates: Array, true: Array) -> Array:
        """``(n, *inputs)``: of candidates ``(candidates, *inputs)``, the nearest to each of ``(n, *inputs)``."""
        places = [int(mean_squares(candidates, np.broadcast_to(t, candidates.shape)).argmin()) for t in true]
        return candidates[places]

    def guesses(self, count: int, true: Array) -> Array:
        """``(n, *inputs)``: the nearest of so many guesses without an update, the mean and other records."""
        return self.nearest(np.concatenate([self.middle, self.decoys])[: max(1, count)], true)

    def ranges(self, x: NDArray[Any]) -> Array:
        """Records on the scale of the features' public ranges."""
        return to_ranges(x, *self._bounds)


def figures_of_rebuilt(
    yardstick: Yardstick,
    rebuilt: Array,
    setting: Setting,
    training: LocalTraining,
    context: Scope,
    pictures: Sequence[Any] = (),
    guesses: Array | None = None,
) -> Iterator[Finding]:
    """How near rebuilt records are to the first of the true ones.

    Args:
        yardstick: What to measure by.
        rebuilt: ``(n, *inputs)`` in parts of the range, n at least 2.
        setting: How they came about.
        training: How the clients trained.
        context: What was touched.
        pictures: Rows of pictures to show with the likeness.
        guesses: ``(n, *inputs)`` what the attack would have without updates; the mean record where None.
    """
    n, noised = len(rebuilt), setting.noise == OWN
    true = yardstick.true[:n]
    middle, zero = (np.repeat(one, n, axis=0) for one in (yardstick.middle, yardstick.zero))
    baseline = "mean_image" if yardstick.images else "mean_record"
    if guesses is not None:
        middle, baseline = guesses, "best_guess"
    further = {
        "clip": training.clip if noised else None,
        "noise_multiplier": training.noise if noised else 0.0,
        "baselines": "the mean of other records of the distribution, and a record of zeros"
        if guesses is None
        else "the nearest of the mean and of other records of the distribution, as many as there are candidates",
    }
    place = _placed(context, setting)
    name = setting.threat.attack
    gains = psnr(rebuilt, true) - psnr(middle, true)
    statement = against_chance(
        f"{name} attack comes {gains.mean():.1f} dB nearer to the record than the {baseline.replace('_', ' ')}",
        t_interval(gains),
        0.0,
    )
    detail = setting.threat.detail(statement, **further)
    yield _mean(_GAIN, gains, {baseline: 0.0}, detail, place)
    measures = ((_PSNR, psnr), (_SSIM, ssim)) if yardstick.images else ((_ROW, _row_error),)
    for metric, measure in measures:
        anchors = {
            baseline: float(measure(middle, true).mean()),
            "all_zero": float(measure(zero, true).mean()),
        }
        shown = {"pictures": list(pictures)} if pictures and metric == _PSNR else {}
        yield _mean(metric, measure(rebuilt, true), anchors, {**detail, **shown}, place)
    found, decoys = int(identified(rebuilt, true, yardstick.decoys).sum()), len(yardstick.decoys)
    statement = against_chance(
        f"{name} attack singles out {found} of {n} records among {decoys} decoys",
        wilson(found, n),
        1 / (decoys + 1),
    )
    yield proportion(
        _FOUND,
        found,
        n,
        unit="records",
        bound="lower",
        anchors={
            "chance": 1 / (decoys + 1),
            baseline: float(identified(middle, true, yardstick.decoys).mean()),
        },
        detail=setting.threat.detail(statement, **further),
        **place,
    )


def figure_of_labels(read: Sequence[int | None], labels: NDArray[Any], noise: str, context: Scope) -> Finding:
    """How many labels were read correctly.

    Args:
        read: The label read from each update; None where the model does not show it.
        labels: ``(n,)`` the true ones.
        noise: `NONE` or `OWN`.
        context: What was touched.
    """
    setting = Setting(threat=LABEL, noise=noise)
    if any(label is None for label in read):
        reason = "the model's last parameter is not the bias of its outputs"
        return nothing(_LABEL, reason, "not_applicable", setting, context)
    right = int(np.sum(np.array(read) == labels))
    chance = float(np.bincount(labels).max() / len(read))
    statement = against_chance(
        f"label is read correctly from {right} of {len(read)} updates", wilson(right, len(read)), chance
    )
    return proportion(
        _LABEL,
        right,
        len(read),
        unit="updates",
        bound="lower",
        anchors={"chance": chance},
        detail=LABEL.detail(statement),
        **_placed(context, setting),
    )


def likeness_metric(subject: Subject) -> str:
    """What tells the likeness of rebuilt records: of images, or of rows."""
    return _PSNR if len(subject.task.schema.shape) >= 2 else _ROW


def nothing(metric: str, reason: str, status: Any, setting: Setting, context: Scope) -> Finding:
    """A figure that is not there."""
    detail = setting.threat.detail(f"Nothing is said: {reason}. {CAVEAT}")
    return not_measured(metric, reason, status=status, detail=detail, **_placed(context, setting))


def _placed(context: Scope, setting: Setting) -> Scope:
    return {**context, "where": setting.where}


def _mean(metric: str, values: Array, anchors: dict[str, float], detail: Any, place: Scope) -> Finding:
    low, high = t_interval(values)
    about = find_metric(metric)
    low = low if about.low is None else max(low, about.low)
    high = high if about.high is None else min(high, about.high)
    return estimate(
        metric,
        float(values.mean()),
        interval=(low, high),
        method="student t over records",
        n=len(values),
        unit="records",
        # A stronger attack can only come nearer.
        bound="upper" if metric == _ROW else "lower",
        anchors=anchors,
        detail=detail,
        **place,
    )


def _row_error(rebuilt: Array, true: Array) -> Array:
    return np.asarray(np.sqrt(mean_squares(rebuilt, true)))
