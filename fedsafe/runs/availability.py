"""A run's clients as they are there: the model of its configuration, its clock, and what may be told of it."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fedsafe.data import Federated
from fedsafe.engine import Grid
from fedsafe.engine.availability import Availability
from fedsafe.engine.availability_grid import AvailabilityGrid
from fedsafe.engine.schedules import Always, Diurnal, Schedule
from fedsafe.engine.slowness import EqualSpeed, LognormalSpeed, ParetoSpeed, Slowness
from fedsafe.engine.traces import read_trace
from fedsafe.errors import ConfigError
from fedsafe.federation.messages import EVALUATE, TRAIN
from fedsafe.privacy.chain import Event
from fedsafe.runs.availability_config import AvailabilityConfig, SpeedConfig
from fedsafe.runs.config import Config

# As the ledger names what was reserved.
_KINDS = {"round": TRAIN, "evaluation": EVALUATE}
_SAMPLES = 96  # a day in quarters of an hour

INDEPENDENT = (
    "who is there, drops out or is late is independent of records, updates and cohorts; an absent client counts as "
    "zero and is charged like the others"
)
PUBLIC_TIMES = "rounds begin at times fixed before the run, so that no cohort decides who is there later"


def build_availability(config: Config, federated: Federated) -> Availability | None:
    """The model of a configuration; None where it has none.

    Work follows from the records that a client expects to use, whose number is public.

    Raises:
        ConfigError: The model contradicts itself, a privacy target, or the plan's rounds.
        DataError: A trace cannot be used.
    """
    section = config.federation.availability
    if section is None:
        return None
    each, steps = section.seconds_per_record, config.client.all_steps * config.client.rate
    clients = len(federated.records)
    work = {TRAIN: each * steps * federated.records.sizes, EVALUATE: each * federated.validation.sizes}
    found = Availability(
        clients=clients,
        seed=config.seed,
        work=work,
        schedule=_schedule(section, clients),
        slowness=_slowness(section.speed),
        dropout=section.dropout,
        network=section.network_seconds,
        deadline=section.deadline,
    )
    _check(config, section, found)
    return found


def _schedule(section: AvailabilityConfig, clients: int) -> Schedule:
    if section.name == "trace" and section.path is not None:
        return read_trace(section.path, clients, section.period)
    if None in (section.low, section.high, section.spread, section.period):
        return Always()
    low, high = float(section.low or 0.0), float(section.high or 0.0)
    if low > high:
        raise ConfigError(
            f"federation.availability: low = {low:g} is above high = {high:g}; exchange them, or lower it"
        )
    period, spread = float(section.period or 0.0), float(section.spread or 0.0)
    return Diurnal(low=low, high=high, period=period, spread=spread)


def _slowness(section: SpeedConfig) -> Slowness:
    if section.sigma is not None:
        return LognormalSpeed(section.sigma)
    return EqualSpeed() if section.alpha is None else ParetoSpeed(section.alpha)


def _check(config: Config, section: AvailabilityConfig, found: Availability) -> None:
    schedule, level = found.schedule, "federation.availability"
    if section.clock == "realised" and schedule.timed and math.isfinite(config.privacy.client.epsilon):
        raise ConfigError(
            f"{level}.clock = 'realised' with name = {section.name!r} and privacy.client.epsilon = "
            f"{config.privacy.client.epsilon:g}: how long a round takes tells who was in its cohort, and decides who "
            "is there next; set the clock to 'public', or the target to inf"
        )
    if schedule.timed and not found.allotted(TRAIN):
        raise ConfigError(
            f"{level}.name = {section.name!r} with rounds that take no time: set deadline, network_seconds or "
            "seconds_per_record"
        )
    times = _times(config, found, TRAIN)
    if section.name == "trace" and section.period is None and times[-1] >= schedule.span:
        raise ConfigError(
            f"{level}: the trace ends after {schedule.span:g} s, and the last of {config.rounds} rounds begins after "
            f"{times[-1]:g} s: lower rounds or deadline, or set period to begin again"
        )
    if found.missing(TRAIN, times) >= 1.0:
        raise ConfigError(
            f"{level}: nobody would ever answer in time; the fastest client takes {found.durations(TRAIN).min():g} s, "
            f"the deadline is {section.deadline or math.inf:g} s, and a client must be there as long as it works"
        )


def planned_times(config: Config, availability: Availability) -> Mapping[tuple[str, int], float]:
    """When the messages of each kind and round are sent under the public clock, in seconds from the start."""
    evaluation, now = config.federation.evaluation, 0.0
    times: dict[tuple[str, int], float] = {}
    for number in range(1, config.rounds + 1):
        times[TRAIN, number] = now
        now += availability.allotted(TRAIN)
        if evaluation is not None and number % evaluation.every == 0:
            times[EVALUATE, number] = now
            now += availability.allotted(EVALUATE)
    return times


def _times(config: Config, availability: Availability, kind: str) -> list[float]:
    """Times that a public expectation is over: the planned ones; a day or a whole trace where none are."""
    section = config.federation.availability
    if section is not None and section.clock == "realised":
        span = availability.schedule.span
        return [span * sample / _SAMPLES for sample in range(_SAMPLES)]
    return [seconds for (named, _), seconds in planned_times(config, availability).items() if named == kind]


def presence(config: Config, availability: Availability) -> Callable[[int], float]:
    """The share of clients asked to evaluate after a round that are expected to answer: from public numbers."""
    section = config.federation.availability
    planned = planned_times(config, availability)

    def expected(number: int) -> float:
        public = section is not None and section.clock == "public"
        times = [planned[EVALUATE, number]] if public else _times(config, availability, EVALUATE)
        return 1.0 - availability.missing(EVALUATE, times)

    return expected


def with_availability(
    grid: Grid, config: Config, availability: Availability, events: Iterable[Event], done: int
) -> AvailabilityGrid:
    """A grid whose clients are there as the model says, with the clock where ``done`` rounds have left it.

    Args:
        grid: Carries messages.
        config: Of the run.
        availability: Its model.
        events: Of the ledger: who was asked decides how long a round took under the realised clock.
        done: Rounds that are complete.
    """
    section = config.federation.availability
    if section is None or section.clock == "public":
        planned = planned_times(config, availability)
        return AvailabilityGrid(grid, availability, times=lambda kind, group: planned[kind, int(group)])
    now = 0.0
    for event in events:
        if event.kind in _KINDS and event.round <= done:
            kind, cohort = _KINDS[event.kind], event.body["cohort"]
            now += availability.ask(cohort, kind=kind, group=str(event.round), seconds=now).seconds
    return AvailabilityGrid(grid, availability, began=now)


def assumptions(availability: Availability | None) -> tuple[str, ...]:
    """What the claims rest on besides; nothing where every client always counts."""
    if availability is None or availability.certain:
        return ()
    return (INDEPENDENT, PUBLIC_TIMES) if availability.schedule.timed else (INDEPENDENT,)


def describe_availability(config: Config, availability: Availability) -> dict[str, Any]:
    """For the record: the model and what is expected of it, never who was there."""
    section = config.federation.availability
    if section is None:
        return {}
    described: dict[str, Any] = {
        "name": section.name,
        "dropout": section.dropout,
        "speed": section.speed.name,
        "deadline": section.deadline,
        "clock": section.clock,
        "expected_missing": availability.missing(TRAIN, _times(config, availability, TRAIN)),
        "longest_round_seconds": availability.allotted(TRAIN),
    }
    if section.clock == "public":
        (kind, _), last = list(planned_times(config, availability).items())[-1]
        described["planned_seconds"] = last + availability.allotted(kind)
    return described
