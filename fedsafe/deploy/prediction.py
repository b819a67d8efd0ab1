"""What a run of a federation will cost, before it is started: epsilon, rounds, bytes and seconds.

Epsilon is the plan's, which each gate comes to by itself, so it is what they will charge at most. Bytes follow from the
model and the number of requests that Flower makes of a message. Seconds are a model, of machines that have nothing
else to do: a SuperNode asks for work every three seconds, a client trains as long as one did here in a warm-up, its
gate answers at the next whole second, as a policy has it first, and whoever is away, drops out or is slow is so by the
availability that simulations have (`fedsafe.engine.availability`).
"""

import math
import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from fedsafe.aggregation import Updates
from fedsafe.aggregation.secure import SecureParameters
from fedsafe.apps.settings import for_flower
from fedsafe.client import ClientJob
from fedsafe.data.deployed import read_agreed
from fedsafe.deploy.driving import resolved_experiment
from fedsafe.deploy.experiment import sums_of
from fedsafe.deploy.federation import Federation
from fedsafe.deploy.policy import TimingPolicy
from fedsafe.deploy.secure_prediction import EXCHANGES, stage_bytes
from fedsafe.engine.availability import Availability
from fedsafe.errors import ConfigError
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import EVALUATE, TRAIN
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import dumps
from fedsafe.rng import Stream, StreamId, new_key, public_generator
from fedsafe.runs.availability import build_availability
from fedsafe.runs.availability_config import AvailabilityConfig
from fedsafe.runs.compose import Parts, aggregator_of, calibrate, client_runtime, compose
from fedsafe.runs.config import Config, make_config
from fedsafe.store.files import replace_file

FORMAT: Final = "fedsafe.prediction/1"
FILE: Final = "prediction.json"
POLL_SECONDS: Final = 3.0
"""A SuperNode that found no message asks again after so long."""
REQUEST_BYTES: Final = 1200
"""Of one request and its answer without what they carry: HTTP, the node's key and signature, TLS; as measured."""
HANDSHAKE_BYTES: Final = 3500
"""Of a new connection, which a client that is silent for five seconds needs."""
_IDLE_SECONDS = 5.0
# A message, its content and one record; asking for it, confirming it, announcing the reply.
_PACKED, _AROUND = 3, 3
# Flower's grid looks for replies, the SuperNode for the gate's, the gate for work: on average, half of each together.
_LOOKS_SECONDS = 0.5
_NUMBER = 4


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of one round and client.

    Args:
        down: Of the model that it is sent, and what else a secure sum has for it.
        up: Of its replies, before they are compressed.
        overhead: Of requests, polling and handshakes, at most about so many.
    """

    down: int
    up: int
    overhead: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.down + self.up + self.overhead


@dataclass(frozen=True, kw_only=True)
class ClientPrediction:
    """What one client is to expect.

    Args:
        records: That it trains on.
        epsilon: After each round, if it takes part in all that it may: never more is spent.
        expected_rounds: In which it is asked and answers, under the availability.
        expected_epsilon: Of these.
        train_seconds: Of a round's training at this client.
    """

    records: int
    epsilon: tuple[float | None, ...]
    expected_rounds: int
    expected_epsilon: float | None
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a run of an experiment is to expect.

    Args:
        plan: Hash of the privacy plan.
        rounds: How many.
        parameters: Of the model.
        delta: At which epsilon holds, of the record level.
        clients: By name.
        client_level: Epsilon of the client level after each round, with noise that clients trust the server for.
        traffic: Of one round and client.
        seconds: Of each round.
        replies: Clients expected to answer in each round.
        asked: Clients asked in each round.
        assumed: The numbers that seconds and bytes rest on.
    """

    plan: str
    rounds: int
    parameters: int
    delta: float
    clients: Mapping[str, ClientPrediction]
    client_level: tuple[float | None, ...]
    traffic: Traffic
    seconds: tuple[float, ...]
    replies: tuple[int, ...]
    asked: tuple[int, ...]
    assumed: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """For ``prediction.json``."""
        return {
            "format": FORMAT,
            **asdict(self),
            "bytes_per_round_and_client": self.traffic.total,
            "total_seconds": sum(self.seconds),
            "total_bytes": self.traffic.total * sum(self.asked),
        }


def predict(
    federation: Federation,
    *,
    availability: Path | None = None,
    train_seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Prediction:
    """Predict the experiment of a federation's folder.

    Args:
        federation: Whose ``experiment.toml`` it is.
        availability: TOML file with the keys of ``federation.availability``; the experiment's own by default, or
            everybody always there and as fast.
        train_seconds: How long the client with the most records trains in a round; measured here by default.
        clock: Measures it.

    Raises:
        ConfigError: The experiment or the availability is not valid.
        CalibrationError: A target cannot be met.
    """
    config = for_flower(make_config(resolved_experiment(federation)))
    section = _section(config, availability)
    parts = compose(config)
    plan = calibrate(parts)
    names = parts.federated.names or read_agreed(config.task if isinstance(config.task, dict) else {}).names
    seconds = _work(parts, plan, train_seconds, clock)
    multiple = TimingPolicy().answer_multiple
    there = _availability(parts, section, np.maximum(1.0, np.ceil(seconds / multiple)) * multiple)
    secure = sums_of(parts, plan)
    # In the other exchanges of a round behind masks nobody trains.
    further = (EXCHANGES - 1) * (POLL_SECONDS + _LOOKS_SECONDS + multiple) if secure is not None else 0.0
    asked, answered, waits = _rounds(config, plan, there, further)
    curve = plan.spending()
    counts = np.sum(answered, axis=0) if answered else np.zeros(len(names), int)
    sizes, factors = parts.federated.records.sizes, there.slowness.factors(there.clients, there.seed)
    clients = {
        name: ClientPrediction(
            records=int(sizes[k]),
            epsilon=tuple(curve["record"]),
            expected_rounds=int(counts[k]),
            expected_epsilon=_after(curve["record"], int(counts[k])),
            train_seconds=float(seconds[k] * factors[k]),
        )
        for k, name in enumerate(names)
    }
    return Prediction(
        plan=plan.hash,
        rounds=plan.rounds,
        parameters=parts.layout.total,
        delta=plan.record.delta,
        clients=clients,
        client_level=tuple(curve["client"]),
        traffic=_traffic(parts, plan, secure, float(np.mean(waits)) if waits else 0.0),
        seconds=tuple(waits),
        replies=tuple(int(each.sum()) for each in answered),
        asked=tuple(len(each) for each in asked),
        assumed={
            "poll_seconds": POLL_SECONDS,
            "looks_seconds": _LOOKS_SECONDS,
            "answer_multiple": multiple,
            "request_bytes": REQUEST_BYTES,
            "handshake_bytes": HANDSHAKE_BYTES,
            "train_seconds_of": "given" if train_seconds is not None else "a warm-up on this machine",
            "availability": "always" if section is None else section.name,
        },
    )


def write_prediction(federation: Federation, prediction: Prediction, realised: Mapping[str, Any]) -> Path:
    """Write ``DIR/prediction.json``, with what the newest run did if there was one."""
    path = federation.folder / FILE
    replace_file(path, (dumps({**prediction.plain(), "realised": dict(realised)}) + "\n").encode())
    return path


def _section(config: Config, path: Path | None) -> AvailabilityConfig | None:
    if path is None:
        return config.federation.availability
    try:
        return AvailabilityConfig.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"--availability {path} cannot be read: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"--availability {path} is not valid TOML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(
            f"--availability {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; it takes the keys of "
            "federation.availability"
        ) from error


def _work(
    parts: Parts, plan: PrivacyPlan, given: float | None, clock: Callable[[], float]
) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """``(clients,)`` seconds that each trains in a round: that of the largest one, in proportion to the records."""
    sizes = np.asarray(parts.federated.records.sizes, np.float64)
    largest = int(sizes.argmax())
    if given is not None and not (math.isfinite(given) and given >= 0.0):
        raise ConfigError(f"--seconds-per-round {given:g}: give seconds, at least 0")
    seconds = (
        _warm_up(client_runtime(parts, plan, new_key()), largest, parts, clock) if given is None else given
    )
    return np.asarray(seconds * sizes / max(1.0, sizes[largest]), np.float64)


def _warm_up(runtime: ClientRuntime, client: int, parts: Parts, clock: Callable[[], float]) -> float:
    """Of placeholders, which have the shape of records and take as long; the second time, as a gate is warm too."""
    taken = 0.0
    for round in (1, 2):
        began = clock()
        streams = [
            Stream(runtime.key, StreamId(purpose=purpose, client=client, round=round, digest=b""))
            for purpose in ("batches", "record noise")
        ]
        job = ClientJob(
            client=client,
            records=parts.federated.records[client],
            batches=streams[0],
            noise=streams[1],
            round=round,
            correction=None,
        )
        runtime.trainer.train(parts.initial, [job])
        taken = clock() - began
    return taken


def _availability(parts: Parts, section: AvailabilityConfig | None, seconds: Any) -> Availability:
    """The model of a simulation, with the work and the waiting of a deployment."""
    config = parts.config
    waiting = POLL_SECONDS + _LOOKS_SECONDS
    clients = len(parts.federated.records)
    if section is None:
        return Availability(clients=clients, seed=config.seed, work={TRAIN: seconds}, network=waiting)
    federation = config.federation.model_copy(update={"availability": section})
    found = build_availability(config.model_copy(update={"federation": federation}), parts.federated)
    if found is None:  # there is a section
        raise ConfigError("there is no availability to predict with")
    network = section.network_seconds if "network_seconds" in section.model_fields_set else 0.0
    return replace(found, work={TRAIN: seconds}, network=waiting + network)


def _rounds(
    config: Config, plan: PrivacyPlan, there: Availability, further: float
) -> tuple[list[list[int]], list[Any], list[float]]:
    """Of each round: who is asked, ``(clients,)`` whether it answers in time, and how long the server waits.

    Cohorts are drawn from the seed, and are not those of a run, which nobody may know before.
    """
    draws = public_generator(config.seed, "prediction: cohorts")
    rate = config.federation.cohort.rate_of(plan.clients)
    asked, answered, waits, now = [], [], [], 0.0
    for number in range(1, plan.rounds + 1):
        cohort = [int(k) for k in np.flatnonzero(draws.random(plan.clients) < rate)]
        exchange = there.ask(cohort, kind=TRAIN, group=str(number), seconds=now)
        counted = np.zeros(plan.clients, bool)
        counted[cohort] = exchange.counted
        wait = exchange.seconds + (further if cohort else 0.0)
        if plan.evaluation is not None and plan.evaluation.due(number):
            everybody = range(plan.clients)
            wait += there.ask(everybody, kind=EVALUATE, group=str(number), seconds=now + wait).seconds
        asked.append(cohort)
        answered.append(counted)
        waits.append(float(wait))
        now += wait
    return asked, answered, waits


def _traffic(parts: Parts, plan: PrivacyPlan, secure: SecureParameters | None, seconds: float) -> Traffic:
    total = parts.layout.total
    if secure is not None:
        carried = stage_bytes(secure, plan.clients)
        # A stage is a record of its own beside the packed one.
        requests = EXCHANGES * (_AROUND + 2 * _PACKED + 1) + math.ceil(seconds / POLL_SECONDS)
        handshakes = EXCHANGES * HANDSHAKE_BYTES if seconds > EXCHANGES * _IDLE_SECONDS else 0
        overhead = requests * REQUEST_BYTES + handshakes
        return Traffic(down=_NUMBER * total + carried.down, up=carried.up, overhead=overhead)
    rule = aggregator_of(parts, plan)
    up = _NUMBER * total if getattr(rule, "folds_uploads", False) else _fold_bytes(rule, total)
    requests = _AROUND + 2 * _PACKED + math.ceil(seconds / POLL_SECONDS)
    overhead = requests * REQUEST_BYTES + (HANDSHAKE_BYTES if seconds > _IDLE_SECONDS else 0)
    return Traffic(down=_NUMBER * total, up=up, overhead=overhead)


def _fold_bytes(rule: Any, total: int) -> int:
    """Bytes of one client's fold."""
    updates = Updates(clients=np.zeros(1, np.int64), rows=np.zeros((1, total)), examples=np.ones(1))
    try:
        fold = rule.add(rule.zero(total), updates)
    except Exception:
        # A rule of the user's, or one that wants losses: as many bytes as the largest of ours has.
        return 16 * total
    return sum(int(array.nbytes) for array in fold.arrays.values())


def _after(curve: list[float | None], rounds: int) -> float | None:
    return 0.0 if rounds == 0 and curve and curve[0] is not None else curve[rounds - 1] if curve else None
