"""Which group each client of a simulation is in, for the aggregators that weigh groups.

The column is the task's: one of its groups, or one that says who holds a record. A client is in the one group that all
of its records are in; that is public, as how many clients are in each group is, and the claims say so.
"""

import numpy as np

from fedsafe.aggregation import Membership, needs_groups
from fedsafe.data import Federated
from fedsafe.errors import ConfigError
from fedsafe.runs.config import Config

# More groups than these are counted in a claim, and not listed.
_LISTED = 12


def membership_of(config: Config, federated: Federated) -> Membership | None:
    """The clients' groups; None for an aggregator that does not ask.

    Raises:
        ConfigError: There is no such column, a client's records are in different groups, all clients are in one group,
            or clients are nodes of a federation.
    """
    asked = needs_groups(config.server.aggregator)
    if asked is None:
        return None
    rule, column, smallest = asked
    if config.engine.name == "flower":
        raise ConfigError(
            f"server.aggregator = {rule!r} weighs groups of clients, and which group a node is in is not part of what "
            "nodes announce: simulate it, or use noisy_mean"
        )
    train = federated.task.train
    texts = {**train.holders, **train.groups}
    if column not in texts:
        known = (
            f"its columns are {', '.join(sorted(texts))}" if texts else "it has neither groups nor holders"
        )
        raise ConfigError(
            f"server.aggregator ({rule}): column = {column!r}, which the task {federated.task.name!r} does not have: "
            f"{known}"
        )
    _, codes = np.unique(texts[column], return_inverse=True)
    ordered = codes[federated.records.together]
    bounds = federated.records.bounds - federated.records.bounds[0]
    lowest, highest = (f.reduceat(ordered, bounds[:-1]) for f in (np.minimum, np.maximum))
    mixed = np.flatnonzero(lowest != highest)
    values = texts[column][federated.records.together[bounds[:-1]]]
    if len(mixed):
        client = int(mixed[0])
        one, other = np.unique(texts[column][federated.records[client]])[:2].tolist()
        called = f"client {client}" if federated.names is None else f"client {federated.names[client]!r}"
        raise ConfigError(
            f"server.aggregator ({rule}): {called} has records with {column} = {one!r} and {other!r}, and a "
            f"client is in one group ({len(mixed)} of {len(values)} clients are in several): use a column that is the "
            "same for all records of a client, or the partition natural by it"
        )
    return Membership.from_values(values.tolist(), smallest=smallest)


def grouped(config: Config, groups: Membership | None) -> tuple[str, ...]:
    """What the claims of a run that weighs groups rest on besides; nothing where it does not."""
    asked = needs_groups(config.server.aggregator)
    if asked is None or groups is None:
        return ()
    sizes = zip(groups.names, groups.sizes.tolist(), strict=True)
    listed = ", ".join(f"{name} {size}" for name, size in sizes)
    said = listed if len(groups.names) <= _LISTED else f"{len(groups.names)} groups"
    public = f"which group a client is in ({asked[1]}) is public and does not change"
    return (f"{public}, as is how many are registered in each ({said})",)
