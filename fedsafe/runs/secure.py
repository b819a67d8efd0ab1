"""Secure aggregation in a run: from the configuration to both sides of its sums."""

import hashlib
import math

from fedsafe.aggregation import Aggregator, DistributedMean, mechanics_of
from fedsafe.aggregation.secure import Graph, SecureParameters
from fedsafe.engine import ClientApps, Grid
from fedsafe.errors import ConfigError
from fedsafe.federation import ClientRuntime, SecureClients, SecureRounds, SimulatedKeys
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.config import Config
from fedsafe.runs.secure_config import AggregationConfig


def secure_parameters(config: AggregationConfig, aggregator: Aggregator, parameters: int) -> SecureParameters:
    """What all parties of the run's secure sums agree on.

    Args:
        config: The section.
        aggregator: Of the run.
        parameters: Values of the model.

    Raises:
        ConfigError: The aggregator's clients add no noise together, or no graph is safe for its numbers.
    """
    if not isinstance(aggregator, DistributedMean):
        raise ConfigError(
            f"aggregation.secure = true needs clients that add noise together, and {aggregator.name} has none: use "
            "distributed_mean"
        )
    return SecureParameters.of(aggregator.client, parameters, dropouts=config.dropouts)


def secure_graph(config: Config, clients: int) -> Graph | None:
    """Who masks with whom in a round of the expected size, which needs no data; None without masks.

    Args:
        config: Of the run.
        clients: How many there are.

    Raises:
        ConfigError: Planned dropouts leave fewer clients than must stay, or a sum could be of one honest client.
    """
    if not config.aggregation.secure:
        return None
    cohort = config.federation.cohort.rate_of(clients) * clients
    shares = mechanics_of(config.server.aggregator, cohort=cohort, parameters=1).shares
    if shares is None:
        return None
    parameters = SecureParameters(
        values=1,
        modulus=shares.modulus,
        minimum=shares.minimum,
        corrupt=shares.corrupt,
        dropouts=config.aggregation.dropouts,
    )
    return parameters.require_room(math.floor(cohort + 1e-9))


def simulated_clients(
    runtime: ClientRuntime, config: AggregationConfig, plan: PrivacyPlan, key: bytes
) -> ClientApps:
    """What a worker of a simulation runs: clients that mask what they send."""
    played = SecureClients(
        runtime=runtime,
        parameters=secure_parameters(config, runtime.aggregator, runtime.trainer.layout.total),
        key=_key(key),
        clients=plan.clients,
    )
    return ClientApps(one=played.answer, batch=played.answer_chunk)


def simulated_rounds(
    config: AggregationConfig, aggregator: Aggregator, plan: PrivacyPlan, key: bytes, parameters: int
) -> SecureRounds:
    """What the server of a simulation has."""
    return SecureRounds(
        parameters=secure_parameters(config, aggregator, parameters),
        pinned=SimulatedKeys(_key(key), plan.clients),
        own_states=False,
    )


def rounds_on_nodes(
    config: AggregationConfig, aggregator: Aggregator, grid: Grid, parameters: int
) -> SecureRounds:
    """What the server of a run on nodes has, each of which keeps its own keys and state.

    Args:
        config: The section.
        aggregator: Of the run.
        grid: Of nodes; it knows the clients' public keys, and the run's name to them.
        parameters: Values of the model.

    Raises:
        ConfigError: The grid knows no keys.
    """
    pinned, run = getattr(grid, "pinned", None), getattr(grid, "name_of_run", "")
    if not pinned or not run:
        raise ConfigError(
            "aggregation.secure = true, and the grid of nodes has no `pinned` keys of its clients or no `name_of_run`: "
            "start the run with `fedsafe deploy start`"
        )
    return SecureRounds(
        parameters=secure_parameters(config, aggregator, parameters), pinned=pinned, own_states=True, run=run
    )


def _key(key: bytes) -> bytes:
    """Of the clients' keys and masks: nothing of the noise follows from what a client keeps of it."""
    return hashlib.sha256(b"fedsafe keys of secure aggregation\0" + key).digest()
