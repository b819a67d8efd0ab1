"""Which detectors a monitor uses: chosen by validation, since none is best on every model.

The free energy of a small network can rank strangers below chance where distances find all of them. Detectors are
therefore compared on synthetic strangers (`fedsafe.serve.detectors.synthetic`) against held-out inliers, by the areas
under the curve of the worst family and of all on average, half each; one more is added while that helps. The families
have a part in it, so figures on inputs of the same families flatter; the records on which a monitor is measured and
calibrated have none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsafe.assess.performance.ranking import auc
from fedsafe.serve.conformal import Array, Surprise
from fedsafe.serve.detectors import Detector, Seen

_MOST = 3
_WORTH = 0.002
"""What one more detector must add."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and why.

    Attributes:
        detectors: The chosen ones, the best alone first.
        scales: Their surprises.
        areas: Detector to family to area under the curve, of every candidate and of those chosen together.
    """

    detectors: tuple[Detector, ...]
    scales: tuple[Surprise, ...]
    areas: Mapping[str, Mapping[str, float]]


def choose(
    detectors: Sequence[Detector], inliers: Seen, strangers: Mapping[str, Seen], rng: np.random.Generator
) -> Choice:
    """The best detectors together.

    Args:
        detectors: Candidates, fitted on other records.
        inliers: Held out.
        strangers: Families by name.
        rng: Halves the inliers: what scales a score must not also be ranked by it.
    """
    half = rng.permutation(len(inliers)) < len(inliers) // 2
    scales, ordinary, found = [], [], []
    for detector in detectors:
        scores = detector.score(inliers)
        scales.append(Surprise.of(scores))
        scale = Surprise.of(scores[half])
        ordinary.append(scale(scores[~half]))
        found.append({name: scale(detector.score(seen)) for name, seen in strangers.items()})
    areas = {detector.name: _areas(ordinary[at], found[at]) for at, detector in enumerate(detectors)}

    def together(chosen: Sequence[int]) -> dict[str, float]:
        usual = np.max([ordinary[at] for at in chosen], axis=0)
        return _areas(usual, {name: np.max([found[at][name] for at in chosen], axis=0) for name in strangers})

    chosen: list[int] = []
    reached = -1.0
    while len(chosen) < min(_MOST, len(detectors)):
        left = [at for at in range(len(detectors)) if at not in chosen]
        worth = {at: _worth(together([*chosen, at])) for at in left}
        at = max(left, key=lambda one: worth[one])
        if worth[at] < reached + (_WORTH if chosen else 0.0):
            break
        chosen.append(at)
        reached = worth[at]
    areas["together"] = together(chosen)
    return Choice(
        detectors=tuple(detectors[at] for at in chosen),
        scales=tuple(scales[at] for at in chosen),
        areas=areas,
    )


def _worth(areas: Mapping[str, float]) -> float:
    values = list(areas.values())
    return (min(values) + sum(values) / len(values)) / 2.0


def _areas(ordinary: Array, strangers: Mapping[str, Array]) -> dict[str, float]:
    return {name: auc(scores, ordinary)[0] for name, scores in strangers.items()}
