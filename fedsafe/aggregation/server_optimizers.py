"""The server's optimiser: how the averaged update moves the model.

Post-processing of the (noisy) update, which costs no privacy. No optimiser has state but plain arrays, one value for
each parameter, which the checkpoints carry.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Protocol, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.params import Vector

OptimizerState = Mapping[str, NDArray[np.float64]]


class ServerOptimizer(Protocol):
    """Moves the global model by an update.

    Guarantees:
        ``step`` changes none of its arguments; the same arguments give the same bits.
    """

    name: ClassVar[str]

    def initial(self, parameters: int) -> OptimizerState:
        """The state before round 1, each array ``(parameters,)``."""
        ...

    def step(
        self, parameters: Vector, state: OptimizerState, update: NDArray[np.float64]
    ) -> tuple[Vector, OptimizerState]:
        """New parameters ``(parameters,)`` and state."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Sgd:
    """SGD with momentum on the averaged update (FedAvgM: Hsu et al., 2019).

    Args:
        learning_rate: Factor on the averaged update.
        momentum: In [0, 1); 0 is plain averaging.
    """

    learning_rate: float
    momentum: float
    name: ClassVar[str] = "sgd"

    def initial(self, parameters: int) -> OptimizerState:
        """At rest."""
        return {"velocity": np.zeros(parameters)}

    def step(
        self, parameters: Vector, state: OptimizerState, update: NDArray[np.float64]
    ) -> tuple[Vector, OptimizerState]:
        """``v = momentum v + update``, ``x = x + lr v``."""
        velocity = self.momentum * state["velocity"] + update
        moved = parameters.astype(np.float64) + self.learning_rate * velocity
        return moved.astype(np.float32), {"velocity": velocity}


@dataclass(frozen=True, kw_only=True)
class _Adaptive:
    """What Adam and Yogi share (Reddi et al., 2021, algorithm 2).

    As in the paper, nothing is corrected for bias; the second moment starts at ``tau^2`` instead.
    """

    learning_rate: float
    beta1: float
    beta2: float
    tau: float

    def initial(self, parameters: int) -> OptimizerState:
        """No first moment, and a second one of ``tau^2``."""
        return {"first_moment": np.zeros(parameters), "second_moment": np.full(parameters, self.tau**2)}

    def _moved(
        self, parameters: Vector, first: NDArray[np.float64], second: NDArray[np.float64]
    ) -> tuple[Vector, OptimizerState]:
        moved = parameters.astype(np.float64) + self.learning_rate * first / (np.sqrt(second) + self.tau)
        return moved.astype(np.float32), {"first_moment": first, "second_moment": second}


@final
@dataclass(frozen=True, kw_only=True)
class Adam(_Adaptive):
    """FedAdam (Reddi et al., 2021, algorithm 2).

    Args:
        learning_rate: Factor on the normalised update.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        tau: Degree of adaptivity: added to the root of the second moment, above 0.
    """

    name: ClassVar[str] = "adam"

    def step(
        self, parameters: Vector, state: OptimizerState, update: NDArray[np.float64]
    ) -> tuple[Vector, OptimizerState]:
        """``m = b1 m + (1 - b1) d``, ``v = b2 v + (1 - b2) d^2``, ``x = x + lr m / (sqrt(v) + tau)``."""
        first = self.beta1 * state["first_moment"] + (1.0 - self.beta1) * update
        second = self.beta2 * state["second_moment"] + (1.0 - self.beta2) * update**2
        return self._moved(parameters, first, second)


@final
@dataclass(frozen=True, kw_only=True)
class Yogi(_Adaptive):
    """FedYogi (Reddi et al., 2021, algorithm 2): the second moment moves by a step of its own, not by its distance.

    Args:
        learning_rate: Factor on the normalised update.
        beta1: Decay of the first moment, in [0, 1).
        beta2: ``1 - beta2`` is the pace of the second moment, in [0, 1).
        tau: Degree of adaptivity: added to the root of the second moment, above 0.
    """

    name: ClassVar[str] = "yogi"

    def step(
        self, parameters: Vector, state: OptimizerState, update: NDArray[np.float64]
    ) -> tuple[Vector, OptimizerState]:
        """As Adam, but ``v = v - (1 - b2) d^2 sign(v - d^2)``."""
        first = self.beta1 * state["first_moment"] + (1.0 - self.beta1) * update
        square, second = update**2, state["second_moment"]
        second = second - (1.0 - self.beta2) * square * np.sign(second - square)
        return self._moved(parameters, first, second)


SERVER_OPTIMIZERS: Mapping[str, Callable[..., ServerOptimizer]] = MappingProxyType(
    {optimizer.name: optimizer for optimizer in (Sgd, Adam, Yogi)}
)
