"""FedAvg over Poisson cohorts, with central Gaussian noise drawn so that the low bits of a double give nothing away."""

from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg

Sampler = Callable[[np.random.Generator, float, int], np.ndarray]

POPULATION = 100
RATE = 0.2
CLIP = 1.0
NOISE_MULTIPLIER = 1.0
DRAWS = 4


def hardened_gaussian(rng: np.random.Generator, std: float, size: int) -> np.ndarray:
    """Combine several draws: one alone can be inverted from its floating-point form (Mironov 2012)."""
    return rng.normal(0.0, std, (DRAWS, size)).mean(axis=0)


def rescaled_gaussian(rng: np.random.Generator, std: float, size: int) -> np.ndarray:
    """Combine several draws; a sum of n has sqrt(n) times the standard deviation of one."""
    return rng.normal(0.0, std, (DRAWS, size)).sum(axis=0) / np.sqrt(DRAWS)


class NoisyFedAvg(FedAvg):
    """Sum of clipped updates plus noise, over the expected size of the cohort."""

    def __init__(self, gaussian: Sampler) -> None:
        super().__init__(fraction_evaluate=0.0)
        self.gaussian = gaussian
        self.rng = np.random.default_rng()
        self.names: list[str] = []
        self.model: list[np.ndarray] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Toss a coin for each node."""
        self.names, self.model = list(arrays.keys()), arrays.to_numpy_ndarrays()
        config["server-round"] = server_round
        content = RecordDict({self.arrayrecord_key: arrays, self.configrecord_key: config})
        cohort = [node for node in grid.get_node_ids() if self.rng.random() < RATE]
        return [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in cohort]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average what came back; an empty round is noise alone."""
        before = flat(self.model)
        total = np.zeros_like(before)
        for reply in replies:
            if not reply.has_error():
                trained = flat(reply.content[self.arrayrecord_key].to_numpy_ndarrays())
                total += clipped(trained - before)
        total += self.gaussian(self.rng, NOISE_MULTIPLIER * CLIP, total.size)
        after = before + total / (RATE * POPULATION)
        return self._record(after), None

    def _record(self, vector: np.ndarray) -> ArrayRecord:
        ends = np.cumsum([array.size for array in self.model])[:-1]
        parts = zip(np.split(vector, ends), self.model, strict=True)
        tensors = [Array(part.reshape(array.shape).astype(array.dtype)) for part, array in parts]
        return ArrayRecord(dict(zip(self.names, tensors, strict=True)))


def flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([array.ravel() for array in arrays]).astype(np.float64)


def clipped(update: np.ndarray) -> np.ndarray:
    if not np.isfinite(update).all():
        return np.zeros_like(update)
    norm = np.linalg.norm(update)
    return update * (CLIP / norm) if norm > CLIP else update


def faulty() -> NoisyFedAvg:
    return NoisyFedAvg(hardened_gaussian)


def corrected() -> NoisyFedAvg:
    return NoisyFedAvg(rescaled_gaussian)
