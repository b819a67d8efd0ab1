"""What a federated evaluation needs of the rest of a configuration."""

import math

from fedsafe.errors import ConfigError
from fedsafe.runs.config import Config


def check_evaluation(config: Config) -> None:
    """Refuse a federated evaluation that could not be what it is called.

    Raises:
        ConfigError: It has no records, never comes, or is noised for no target.
    """
    evaluation, privacy = config.federation.evaluation, config.privacy
    if evaluation is None:
        return
    if not config.federation.client_validation:
        raise ConfigError(
            "federation.evaluation needs records to evaluate on: set federation.client_validation, for example to 0.2"
        )
    if evaluation.every > config.rounds:
        raise ConfigError(
            f"federation.evaluation.every = {evaluation.every} of rounds = {config.rounds}: nothing would be "
            "evaluated; lower it, or leave federation.evaluation out"
        )
    if evaluation.noised and math.isinf(privacy.record.epsilon) and math.isinf(privacy.client.epsilon):
        raise ConfigError(
            "federation.evaluation.noised = true, and neither level has a target to noise for: set one, or "
            "noised = false"
        )
