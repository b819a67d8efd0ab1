"""Attacks that need no look at the others: a reversed, a random or a magnified update."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from fedsafe.aggregation.attacks.base import OWN_ALONE, Rows, require_strength


@final
@dataclass(frozen=True, kw_only=True)
class SignFlip:
    """Each adversary sends its own update times ``-scale``.

    Args:
        scale: Above 0; the default 4 is that of Li et al. (2019), whose clients send models and not updates; 1 only
            reverses. Minus the honest mean, which others call sign flipping, is inner product manipulation of scale 1.
    """

    scale: float = 4.0
    name: ClassVar[str] = "sign_flip"
    sees: ClassVar[str] = OWN_ALONE

    def __post_init__(self) -> None:
        """Refuse a scale that reverses nothing."""
        require_strength(self.name, "scale", self.scale)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """``-scale`` times the own rows."""
        return -self.scale * own


@final
@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Each adversary sends normal noise around zero (Blanchard et al., 2017).

    Args:
        deviation: Standard deviation of each value, above 0. The authors' 200 is for raw gradients; 1 is large beside
            the updates of most models.
    """

    deviation: float = 1.0
    name: ClassVar[str] = "gaussian"
    sees: ClassVar[str] = "nothing"

    def __post_init__(self) -> None:
        """Refuse a deviation that is none."""
        require_strength(self.name, "deviation", self.deviation)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """Independent normal values."""
        return rng.normal(0.0, self.deviation, own.shape)


@final
@dataclass(frozen=True, kw_only=True)
class ModelReplacement:
    """Each adversary magnifies its own update, so that an average becomes theirs (Bagdasaryan et al., 2020).

    Meant for updates that were trained on poisoned records: a backdoor then takes one round.

    Args:
        boost: Factor, above 0; by default n / f of n replies of which f are adversaries', with which the mean of all is
            that of the adversaries plus what the honest clients add.
    """

    boost: float | None = None
    name: ClassVar[str] = "model_replacement"
    sees: ClassVar[str] = f"{OWN_ALONE}, and how many took part"

    def __post_init__(self) -> None:
        """Refuse a factor that magnifies nothing."""
        if self.boost is not None:
            require_strength(self.name, "boost", self.boost)

    def __call__(self, honest: Rows, adversaries: int, own: Rows, rng: np.random.Generator) -> Rows:
        """The own rows, magnified."""
        boost = (len(honest) + adversaries) / adversaries if self.boost is None else self.boost
        return boost * own
