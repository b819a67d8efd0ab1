"""Parameters that stay with the clients: what a configuration says of them, and a server that leaves them alone."""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation import ServerOptimizer
from fedsafe.aggregation.scaffold import Scaffold
from fedsafe.aggregation.server_optimizers import OptimizerState
from fedsafe.client import LocalParameters
from fedsafe.errors import ConfigError, ModelError
from fedsafe.params import Layout, Vector
from fedsafe.runs.config import Config


def local_parameters(config: Config, layout: Layout) -> LocalParameters | None:
    """Which parameters stay with the clients; None where none does.

    Raises:
        ConfigError: A name is none of the model's, nothing would be shared, or the run has a part that trains clients
            in another way.
    """
    if not config.client.local:
        return None
    spec = config.server.aggregator
    if (spec if isinstance(spec, str) else spec.get("name")) == Scaffold.name:
        raise ConfigError(
            f"server.aggregator = {Scaffold.name!r} corrects every parameter at every client, and client.local keeps "
            "some at the clients: use another rule, or leave client.local out"
        )
    if config.audit is not None:
        raise ConfigError(
            "audit trains clients without parameters of their own: leave audit or client.local out"
        )
    try:
        return LocalParameters(layout, tuple(config.client.local))
    except ModelError as error:
        raise ConfigError(f"client.local = {config.client.local}: {error}") from error


@final
@dataclass(frozen=True, kw_only=True)
class SharedOnly:
    """A server's optimiser that moves no local parameter: every broadcast model has their initial values.

    Updates are zero there, but noise of the client level is not; what it does not move is left out of a released sum,
    which is post-processing.

    Args:
        inside: The configured optimiser; an update of zero must leave a parameter where it is.
        local: ``(parameters,)``, True where a parameter stays with the clients.
    """

    inside: ServerOptimizer
    local: NDArray[np.bool_]
    name: ClassVar[str] = "shared_only"

    def initial(self, parameters: int) -> OptimizerState:
        """See `fedsafe.aggregation.ServerOptimizer`."""
        return self.inside.initial(parameters)

    def step(
        self, parameters: Vector, state: OptimizerState, update: NDArray[np.float64]
    ) -> tuple[Vector, OptimizerState]:
        """See `fedsafe.aggregation.ServerOptimizer`."""
        moved, state = self.inside.step(parameters, state, np.where(self.local, 0.0, update))
        return np.where(self.local, parameters, moved), state
