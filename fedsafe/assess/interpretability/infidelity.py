"""How well an attribution predicts what noise on the inputs does to the output (Yeh et al., 2019)."""

from collections.abc import Callable

import numpy as np
import torch
from captum.metrics import infidelity
from numpy.typing import NDArray
from torch import Tensor

from fedsafe.assess.base import Subject
from fedsafe.assess.interpretability.means import mean_of, norms, ratio_of_means
from fedsafe.findings import Finding, Scope, not_measured

Array = NDArray[np.float64]

PLAIN, NORMALISED = "interpretability.infidelity", "interpretability.infidelity_normalised"


class NoiseTest:
    """The same noise for every attribution of some examples, so that they are compared on the same draws.

    The model is asked once; further attributions cost no pass. The plain figure depends on the attribution's scale: the
    normalised one takes each at its best scale, as the authors do.

    Args:
        subject: Whose model it is.
        x: ``(n, *inputs)``.
        target: ``(n,)`` the output of each that is explained.
        scale: Standard deviation of the Gaussian noise, in encoded units.
        draws: Of noise, for each example.
        rng: Source of the noise.
    """

    def __init__(
        self,
        subject: Subject,
        x: Tensor,
        target: Tensor,
        *,
        scale: float,
        draws: int,
        rng: np.random.Generator,
    ) -> None:
        self._x, self._target, self._draws, self.scale = x, target, draws, scale
        self._rows = min(max(subject.rows_at_once, len(x)), len(x) * draws)
        self._seed = int(rng.integers(2**63))
        with torch.no_grad():
            largest = float(subject.forward(x).abs().max())
        # In units of the largest output: the square of a large one has no float32.
        self._unit = largest if largest > 0 else 1.0
        self._outputs = _Replayed(lambda inputs: subject.forward(inputs) / self._unit)
        self.of_zero = self.score(torch.zeros_like(x), normalise=False)

    def score(self, local: Tensor, *, normalise: bool) -> Array:
        """``(n,)`` mean squared errors of slopes ``(n, *inputs)`` as a forecast of the output's change."""
        self._outputs.rewind()
        values = infidelity(
            self._outputs,
            _noise(self.scale, self._seed),
            self._x,
            local / self._unit,
            target=self._target,
            n_perturb_samples=self._draws,
            max_examples_per_batch=self._rows,
            normalize=normalise,
        )
        return np.asarray(np.maximum(values.double().cpu().numpy(), 0.0)) * self._unit**2

    def findings(
        self, local: Tensor, random: Tensor, rng: np.random.Generator, context: Scope
    ) -> list[Finding]:
        """Infidelity in both scalings.

        Args:
            local: ``(n, *inputs)`` slopes.
            random: Those of a random attribution.
            rng: Source of the resampling.
            context: Of the findings.
        """
        detail = {"noise": "gaussian", "scale": self.scale, "draws": self._draws}
        plain = mean_of(
            PLAIN,
            self.score(local, normalise=False),
            rng,
            anchors={
                "random_attribution": float(self.score(random, normalise=False).mean()),
                "zero_attribution": float(self.of_zero.mean()),
            },
            detail=detail,
            **context,
        )
        if not self.of_zero.any():
            reason = "the output does not change under noise"
            return [plain, not_measured(NORMALISED, reason, status="not_applicable", **context)]
        control = self.score(random, normalise=True)
        normalised = ratio_of_means(
            NORMALISED,
            self.score(local, normalise=True),
            self.of_zero,
            rng,
            anchors={
                "random_attribution": float(control.sum() / self.of_zero.sum()),
                "zero_attribution": 1.0,
            },
            detail=detail,
            **context,
        )
        return [plain, normalised]


def random_like(local: Tensor, rng: np.random.Generator) -> Tensor:
    """Gaussian slopes with the norm of each example's own: what an explanation must beat."""
    drawn = torch.tensor(rng.standard_normal(local.shape), device=local.device)
    # In double precision: the square of a large slope has no float32.
    return (drawn * (norms(local.double()) / norms(drawn))).to(local.dtype)


def _noise(scale: float, seed: int) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        drawn = scale * torch.randn(inputs.shape, generator=generator)
        drawn = drawn.to(inputs.device)
        return drawn, inputs - drawn

    return perturb


class _Replayed:
    """A model that is asked the same series of batches again and again, and evaluates each once."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._forward = forward
        self._seen: list[Tensor] = []
        self._next = 0

    def rewind(self) -> None:
        self._next = 0

    def __call__(self, x: Tensor) -> Tensor:
        if self._next == len(self._seen):
            self._seen.append(self._forward(x))
        self._next += 1
        return self._seen[self._next - 1]
