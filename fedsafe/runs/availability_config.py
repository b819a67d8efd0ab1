"""The section ``federation.availability``: who is there, who drops out, who is slow."""

from typing import Any, Literal

from pydantic import model_validator

from fedsafe.errors import ConfigError
from fedsafe.runs.sections import Decay, NotNegative, Positive, Section, Share, own_keys

# Each model has keys and defaults of its own; None has to be given or may be left out.
_SCHEDULES: dict[str, dict[str, Any]] = {
    "always": {},
    "diurnal": {"low": 0.1, "high": 0.9, "period": 86400.0, "spread": 1.0},
    "trace": {"path": None, "period": None},
}
_SPEEDS: dict[str, dict[str, Any]] = {
    "equal": {},
    "lognormal": {"sigma": 0.5},
    "pareto": {"alpha": 2.0},
}


class SpeedConfig(Section):
    """How many times as long as at normal speed each client takes, drawn once.

    ``lognormal`` has median 1 and the deviation ``sigma`` of its logarithm; ``pareto`` is at least 1, with shape
    ``alpha``.
    """

    name: Literal["equal", "lognormal", "pareto"] = "equal"
    sigma: Positive | None = None
    alpha: Positive | None = None

    @model_validator(mode="before")
    @classmethod
    def _keys_of_the_named(cls, values: Any) -> Any:
        return own_keys("federation.availability.speed", _SPEEDS, "equal", values)


class AvailabilityConfig(Section):
    """Who is there when asked, and who answers in time; times are virtual seconds.

    ``diurnal`` clients are there with a probability between ``low`` and ``high`` that follows the time of day, each
    with a phase of its own; those of a ``trace`` in the intervals of a CSV file (client, start, end). Whoever is there
    drops out with the probability ``dropout``. A client takes ``network_seconds``, and ``seconds_per_record`` for each
    record that it expects to use, times its own ``speed``; an answer after ``deadline`` does not count.

    With the ``public`` clock, rounds begin at times fixed before the run: each has its deadline, or the time of the
    slowest client. With the ``realised`` one, a round begins as soon as the server has waited for the one before, which
    tells about its cohort: a client-level target cannot be kept with it if who is there depends on the time.
    """

    name: Literal["always", "diurnal", "trace"] = "always"
    low: Share | None = None
    high: Share | None = None
    spread: Share | None = None
    period: Positive | None = None
    path: str | None = None
    dropout: Decay = 0.0
    speed: SpeedConfig = SpeedConfig()
    seconds_per_record: NotNegative = 0.01
    network_seconds: NotNegative = 5.0
    deadline: Positive | None = None
    clock: Literal["public", "realised"] = "public"

    @model_validator(mode="before")
    @classmethod
    def _keys_of_the_named(cls, values: Any) -> Any:
        found = own_keys("federation.availability", _SCHEDULES, "always", values)
        if isinstance(found, dict) and found.get("name") == "trace" and found.get("path") is None:
            raise ConfigError(
                "federation.availability.name = 'trace' needs a file: set federation.availability.path to a CSV file "
                "with the columns client, start and end"
            )
        return found
