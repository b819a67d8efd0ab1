"""The section ``aggregation``: whether the server sees sums of updates alone."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fedsafe.errors import ConfigError
from fedsafe.runs.sections import Section

_ROWS = "it needs each client's update by itself, which secure aggregation hides"
_WEIGHTED = "it weighs updates by what the server would learn of each client, and a masked sum hides that"
_OWN_NOISE = "its noise is not made of shares that the clients of a round add together"
_REASONS: Mapping[str, str] = {
    "fedavg": "it adds up what is on no public grid, and masks are for whole numbers",
    "capped_mean": _OWN_NOISE,
    "adaptive_clip": _OWN_NOISE,
    "banded_mean": _OWN_NOISE,
    "chosen_noise": _OWN_NOISE,
    "grouped_mean": _OWN_NOISE,
    "local_gaussian": "each client's own noise hides its update already, and a masked sum would have all of it",
    "scaffold": _ROWS,
    "q_fedavg": _WEIGHTED,
    "agnostic": _WEIGHTED,
}


class AggregationConfig(Section):
    """What the server sees of a round.

    With ``secure`` it sees the noised sum of all updates and no update by itself: clients mask what they send, and each
    adds a share of the noise before (``docs/secure-aggregation.md``). A round survives that ``dropouts``, a share of
    its cohort, are lost on the way; how many may work with the server, and how many must stay, is said by
    ``server.aggregator``.
    """

    secure: bool = False
    dropouts: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25


def with_shared_noise(values: Any) -> Any:
    """Plain values of a whole configuration in which a secure noisy average has the clients' noise.

    Raises:
        ConfigError: The aggregator cannot be computed from masked sums.
    """
    if not isinstance(values, Mapping):
        return values
    section, server = values.get("aggregation"), values.get("server")
    secure = section.get("secure") if isinstance(section, Mapping) else getattr(section, "secure", False)
    if secure is not True:
        return values
    spec = server.get("aggregator") if isinstance(server, Mapping) else getattr(server, "aggregator", None)
    name = spec.get("name") if isinstance(spec, Mapping) else spec
    if name == "distributed_mean":
        return values
    if name is not None and name != "noisy_mean":
        reason = _REASONS.get(str(name), _ROWS)
        raise ConfigError(
            f"aggregation.secure = true, and server.aggregator = {name!r}: {reason}; use noisy_mean or "
            "distributed_mean, or leave secure out"
        )
    base = dict(server) if isinstance(server, Mapping) else {} if server is None else server.model_dump()
    return {**values, "server": {**base, "aggregator": "distributed_mean"}}
