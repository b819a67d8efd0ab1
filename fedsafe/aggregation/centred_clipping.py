"""Centred clipping: rows are clipped around the last aggregate, which the server remembers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation.base import Fold, State
from fedsafe.aggregation.distances import shortened
from fedsafe.aggregation.norm_bound import clipped_mean
from fedsafe.aggregation.options import require_number
from fedsafe.aggregation.robust import RobustRule
from fedsafe.errors import ConfigError, RecordError
from fedsafe.rng import Stream

_CENTRE = "centre"


@final
@dataclass(frozen=True, kw_only=True)
class CentredClipping(RobustRule):
    """``v <- v + mean of clip(row - v)``, from the last aggregate v on (Karimireddy et al., 2021).

    Args:
        clip: tau, how far from v a row may pull; by default the median distance of the round's rows from v.
        iterations: How often, at least 1; the authors find 1 enough.

    Bound: n rows of which f change, whatever they become, move the result by at most ``2 f clip iterations / n``, since
    the step is no expansion of v. The median distance is at most the largest honest one while f < n / 2.

    The result of a round is the centre of the next one; before the first it is zero.
    """

    clip: float | None = None
    iterations: int = 1
    name: ClassVar[str] = "centred_clipping"
    counts: ClassVar[bool] = False
    remembers: ClassVar[bool] = True
    _memory: State = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse a clip or a number of iterations that is none."""
        super().__post_init__()
        if self.clip is not None:
            require_number(self.name, "clip", self.clip, low=np.finfo(np.float64).tiny)
        if not isinstance(self.iterations, int) or isinstance(self.iterations, bool) or self.iterations < 1:
            raise ConfigError(
                f"server.aggregator (centred_clipping): iterations = {self.iterations!r}; it is a whole number of at "
                "least 1"
            )

    def estimate(self, rows: NDArray[np.float64], adversaries: int) -> NDArray[np.float64]:
        """The new centre."""
        rows = shortened(rows)
        centre: NDArray[np.float64] = self._memory.get(_CENTRE, np.zeros(rows.shape[1]))
        for _ in range(self.iterations):
            apart = rows - centre
            distances = np.linalg.norm(apart, axis=1)
            clip = float(np.median(distances)) if self.clip is None else self.clip
            centre = centre + clipped_mean(apart, distances, clip)
        return centre

    def advance(self, fold: Fold, noise: Stream | None = None) -> None:
        """The round's result is the next centre; a round without replies leaves the old one."""
        updates = self.ordered(fold)
        if len(updates.rows):
            self._memory[_CENTRE] = self.combine_drawing(updates, noise)

    def state(self) -> State:
        """``centre`` (parameters,), once there was a round."""
        return dict(self._memory)

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Take over a centre; the empty state is that before the first round.

        Raises:
            RecordError: It is something else.
        """
        if state and (set(state) != {_CENTRE} or state[_CENTRE].ndim != 1):
            raise RecordError(
                f"the state of the aggregator is not a centre of {self.name}: {', '.join(sorted(state))}"
            )
        self._memory.clear()
        self._memory.update({name: np.array(array, np.float64) for name, array in state.items()})
