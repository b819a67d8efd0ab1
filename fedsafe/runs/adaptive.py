"""What the adaptive regime cannot be configured together with."""

from fedsafe.aggregation import ChosenNoise
from fedsafe.errors import ConfigError
from fedsafe.runs.config import Config


def check_adaptive(config: Config) -> None:
    """Refuse a chosen noise beside what its filter does not count.

    That there is no target of the client level is refused with the other rules that add noise for one.

    Raises:
        ConfigError: It names what to leave out.
    """
    spec = config.server.aggregator
    if ChosenNoise.name != (spec if isinstance(spec, str) else spec.get("name")):
        return
    level, evaluation = config.privacy.client, config.federation.evaluation
    refused = {
        "privacy.client.noise, which fixes what is to be chosen": level.noise is not None,
        "privacy.client.max_clients_per_person above 1": level.max_clients_per_person > 1,
        'federation.cohort.name = "fixed"': config.federation.cohort.size is not None,
        "privacy.record.budgets": bool(config.privacy.record.budgets),
        "federation.evaluation with noised = true": evaluation is not None and evaluation.noised,
        "[audit], whose second training would choose other noise": config.audit is not None,
    }
    for setting, there in refused.items():
        if there:
            raise ConfigError(
                f"server.aggregator = {ChosenNoise.name!r} cannot be used with {setting}: its Rényi filter counts "
                "rounds of Poisson cohorts and one client per person; leave that out, or use noisy_mean"
            )
