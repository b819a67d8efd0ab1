"""A run's simulated adversaries: who they are, what they do, and what is said of it.

Who is one is public: it is the simulation's own choice, from the seed, and tells nothing of anybody's records.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsafe.aggregation import Aggregator, folds_rows
from fedsafe.aggregation.attacks import Attacked, attack_name, build_attack, require_rows
from fedsafe.client.poisoning import build_poison, poisoned
from fedsafe.data import Federated
from fedsafe.errors import ConfigError
from fedsafe.rng import public_generator
from fedsafe.runs.config import Config


def adversaries_of(config: Config, clients: int) -> NDArray[np.int64]:
    """Sorted numbers of the clients that are adversaries; a larger share has those of a smaller one, and more.

    Args:
        config: Of the run.
        clients: How many train.

    Raises:
        ConfigError: No honest client would be left.
    """
    count = 0 if config.byzantine is None else config.byzantine.count(clients)
    order = public_generator(config.seed, "adversaries").permutation(clients)
    return np.sort(order[:count]).astype(np.int64)


def with_poisoned_records(config: Config, federated: Federated) -> Federated:
    """The federation in which adversaries hold poisoned training records; the same one where none are poisoned.

    What clients keep for their own validation, and what the model is judged on, stays as it is.

    Raises:
        ConfigError: The section contradicts itself, the rule or the task.
        DataError: A poison of the user's own breaks the records.
    """
    section = config.byzantine
    _check(config, federated.clients)
    if section is None or section.poison is None:
        return federated
    poison = build_poison(section.poison, federated.task)
    adversaries = adversaries_of(config, federated.clients)
    if not len(adversaries):
        return federated
    train = poisoned(
        federated.task.train,
        (federated.records[int(client)] for client in adversaries),
        poison,
        clients=adversaries.tolist(),
        seed=config.seed,
    )
    return replace(federated, task=replace(federated.task, train=train))


def under_attack(config: Config, aggregator: Aggregator, clients: int) -> Aggregator:
    """The rule whose adversaries send what the attack makes; the same one where there is no attack.

    Raises:
        ConfigError: The attack needs rows, and the rule has none.
    """
    section = config.byzantine
    if section is None or section.attack is None:
        return aggregator
    return Attacked(
        aggregator,
        build_attack(section.attack),
        label=attack_name(section.attack),
        adversaries=adversaries_of(config, clients),
        seed=config.seed,
    )


def _check(config: Config, clients: int) -> None:
    """Refuse what could not be simulated, before anything slow."""
    spec, section = config.server.aggregator, config.byzantine
    asked = spec.get("adversaries") if isinstance(spec, dict) else None
    if isinstance(asked, int) and 2 * asked >= clients:
        raise ConfigError(
            f"server.aggregator: adversaries = {asked} of {clients} clients; no rule withstands a half: lower it"
        )
    if section is None:
        return
    section.count(clients)
    if config.engine.name == "flower":
        raise ConfigError(
            "byzantine simulates adversaries, and Flower's nodes are clients of their own: leave the section out, or "
            "run with fedsafe run"
        )
    if section.attack is not None:
        build_attack(section.attack)
        require_rows(*folds_rows(config.server.aggregator), attack_name(section.attack))
        if attack_name(section.attack) == "model_replacement" and section.poison is None:
            raise ConfigError(
                "byzantine.attack = 'model_replacement' magnifies what poisoned records taught: set byzantine.poison, "
                "such as a backdoor, too"
            )


def describe_adversaries(config: Config, clients: int) -> Mapping[str, Any]:
    """For the record: what the adversaries do, how many and who they are; empty where there are none."""
    section, adversaries = config.byzantine, adversaries_of(config, clients)
    if section is None or not len(adversaries):
        return {}
    return {
        "attack": section.attack,
        "poison": section.poison,
        "adversaries": len(adversaries),
        "clients": adversaries.tolist(),
    }


def simulated(config: Config, clients: int) -> tuple[str, ...]:
    """What the claims of a run with adversaries rest on besides; nothing where there are none."""
    count = len(adversaries_of(config, clients))
    if not count:
        return ()
    kept = "the bound is for the records that each client trained on"
    if config.byzantine is not None and config.byzantine.poison is not None:
        kept += ", which for an adversary are its poisoned ones"
    return (f"{count} of the {clients} clients are simulated adversaries; {kept}",)
