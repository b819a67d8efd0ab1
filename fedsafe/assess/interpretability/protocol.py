"""What an explainer is, and what every explainer of ours needs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from fedsafe.errors import ModelError


class NoExplanation(ModelError):
    """A model has no explanation of this kind, for no fault of anybody: such as gradients where outputs move in steps.

    An explainer that raises it makes findings that are "not applicable", with its text as their reason.
    """


class Explainer(Protocol):
    """Attributes an output to features. A user's own is a function with these arguments."""

    def __call__(
        self,
        forward: Callable[[Tensor], Tensor],
        x: Tensor,
        baseline: Tensor,
        target: Tensor,
        *,
        steps: int,
        batch: int,
        rng: np.random.Generator,
    ) -> Tensor:
        """Explains examples.

        Args:
            forward: Differentiable map from ``(n, *inputs)`` to ``(n, outputs)``.
            x: ``(n, *inputs)`` examples.
            baseline: ``(1, *inputs)`` where they are compared with.
            target: ``(n,)`` the output of each that is explained.
            steps: Effort, such as the nodes of an integral.
            batch: Examples in one forward pass, at most.
            rng: The only source of randomness.

        An explainer with a further parameter ``columns`` is given ``(*inputs,)`` the index of the column, or of the
        patch of an image, that each feature belongs to: what a reader takes for one thing.

        Returns:
            ``(n, *inputs)`` change of the output for a unit change of each feature. Times the distance from the
            baseline it is the feature's attribution, and these should add up to the output's change.

        Raises:
            NoExplanation: The model has none of this kind.
        """


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """Lets third-party code draw from the global generators of torch and numpy, both seeded, and restores them."""
    kept = np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(rng.integers(2**63)))
            np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
            yield
    finally:
        np.random.set_state(kept)  # noqa: NPY002
