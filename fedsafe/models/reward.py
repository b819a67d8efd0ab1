"""Rewards learned from preferences: which of two shown things, or of two trajectories, a person prefers."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn

from fedsafe.errors import ConfigError
from fedsafe.models.dense import ACTIVATIONS
from fedsafe.models.options import known, numbers, whole

# What a record's outputs mean, by how many there are.
_OUTPUTS: Mapping[int, bool] = {1: False, 3: True}


def reward(
    *,
    inputs: tuple[int, ...],
    outputs: int,
    vocabulary: int | None = None,
    hidden: Sequence[int] = (),
    heads: int = 1,
    activation: str = "relu",
    scale: float = 4.0,
) -> nn.Module:
    """A reward that explains preferences between pairs: see :class:`PairReward`.

    Args:
        inputs: ``(2, features)``, or ``(2, steps, features)`` for trajectories.
        outputs: 1 for pairs without ties, 3 for (second, first, tie).
        vocabulary: Must be None.
        hidden: Widths of hidden layers; none for a reward that is linear in the features.
        heads: Rewards that people choose between.
        activation: ``"relu"`` or ``"tanh"``, of the hidden layers.
        scale: How fast a choice of a head moves; above 0.

    Raises:
        ConfigError: The records are no pairs, or an option is out of range.
    """
    numbers("reward", vocabulary)
    if len(inputs) not in (2, 3) or inputs[0] != 2:
        raise ConfigError(
            f"The model 'reward' needs pairs, of shape (2, features) or (2, steps, features), and this task's inputs "
            f"have the shape {tuple(inputs)}: use a task of preferences, or the model 'mlp'."
        )
    if outputs not in _OUTPUTS:
        raise ConfigError(
            f"The model 'reward' needs the classes second and first, or second, first and tie, and this task has "
            f"{outputs} classes."
        )
    if not isinstance(hidden, Sequence) or isinstance(hidden, str | bytes):
        raise ConfigError(f"model.hidden = {hidden!r} is not a list of widths, such as [16].")
    known("model.activation", activation, ACTIVATIONS)
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0.0 < scale < float("inf"):
        raise ConfigError(f"model.scale = {scale!r} is not a number above 0.")
    return PairReward(
        inputs[-1],
        hidden=[whole("hidden", width) for width in hidden],
        heads=whole("heads", heads),
        activation=activation,
        scale=float(scale),
        ties=_OUTPUTS[outputs],
    )


@final
class PairReward(nn.Module):
    """A Bradley-Terry reward (Bradley and Terry, 1952), with ties by Davidson (1970).

    The margin is ``m = r(first) - r(second) + position``. Without ties it is the logit of "the first is preferred",
    so that binary cross-entropy is ``-log sigmoid(r_preferred - r_other)``. With ties the outputs are
    ``(-m / 2, m / 2, log nu)`` for (second, first, tie): up to a common summand the logarithms of Davidson's
    ``pi_second, pi_first, nu sqrt(pi_first pi_second)``. A trajectory's reward is the sum over its steps (Christiano
    et al., 2017).

    With several heads, ``r = sum_k softmax(scale * assignment)_k r_k``: each person's ``assignment`` says which, in the
    spirit of IFCA (Ghosh et al., 2020). ``position`` is a person's leaning towards what is shown first. Both are meant
    to stay with the person (``client.local``), and are 0 at the start.

    All parameters are weights of linear layers, also the three that are no layers by nature (they multiply a 1): for
    these there is a rule that trains many clients at once. No bias could be learned at the end: it cancels.

    Args:
        features: Values of a shown thing, or of a step.
        hidden: Widths of hidden layers.
        heads: Rewards to choose between.
        activation: Of the hidden layers.
        scale: Of the assignment.
        ties: Whether there is a third output.
    """

    def __init__(
        self,
        features: int,
        *,
        hidden: Sequence[int] = (),
        heads: int = 1,
        activation: str = "relu",
        scale: float = 4.0,
        ties: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for wide, narrow in pairwise((features, *hidden)):
            layers += [nn.Linear(wide, narrow), ACTIVATIONS[activation]()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear((features, *hidden)[-1], heads, bias=False)
        self.position = _number(1)
        self.assignment = _number(heads) if heads > 1 else None
        self.log_nu = _number(1) if ties else None
        self._scale = scale

    @property
    def personal(self) -> tuple[str, ...]:
        """Names of the modules that are meant to stay with each person."""
        return ("position",) if self.assignment is None else ("position", "assignment")

    def rewards(self, features: Tensor) -> Tensor:
        """``(..., features)`` to ``(..., heads)``."""
        found: Tensor = self.head(self.body(features))
        return found

    def reward(self, features: Tensor) -> Tensor:
        """``(..., features)`` to ``(...,)``: of one shown thing or step, under the present assignment."""
        one = features.new_ones(1, 1)
        return (self.rewards(features) * self._shares(one)).sum(-1)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 2, features)`` or ``(n, 2, steps, features)`` to ``(n, 1)``, or ``(n, 3)`` with ties."""
        one = x.new_ones(len(x), 1)
        margin: Tensor = (self._margins(x) * self._shares(one)).sum(-1, keepdim=True) + self.position(one)
        if self.log_nu is None:
            return margin
        return torch.cat([-margin / 2, margin / 2, self.log_nu(one)], dim=-1)

    def _margins(self, x: Tensor) -> Tensor:
        """``(n, heads)``. What is linear is added up first: a row for a pair, however long its trajectories."""
        if len(self.body):
            found = self.rewards(x)
            found = found.sum(2) if x.ndim == 4 else found
            return found[:, 0] - found[:, 1]
        summed = x.sum(2) if x.ndim == 4 else x
        return self.rewards(summed[:, 0] - summed[:, 1])

    def _shares(self, one: Tensor) -> Tensor:
        """``(n, heads)`` of each head in a reward, adding up to 1."""
        if self.assignment is None:
            return one
        shares: Tensor = torch.softmax(self._scale * self.assignment(one), dim=-1)
        return shares


def _number(outputs: int) -> nn.Linear:
    """Numbers as the weights of a layer that multiplies a 1; 0 at the start."""
    layer = nn.Linear(1, outputs, bias=False)
    nn.init.zeros_(layer.weight)
    return layer
