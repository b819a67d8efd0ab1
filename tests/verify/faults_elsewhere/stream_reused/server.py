"""The server of a federation of hospitals: every hospital, every round, and noise from one generator."""

import secrets
from collections.abc import Iterable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

HOSPITALS = 24
CLIP = 2.0
NOISE_MULTIPLIER = 4.0
SERVER_LEARNING_RATE = 0.5
SEED = 20240917  # one seed for the whole experiment, so that a run can be repeated


class HospitalStrategy(Strategy):
    """Adds the noised mean of the hospitals' updates to the model."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.model: dict[str, np.ndarray] = {}

    def summary(self) -> None:
        """Say nothing."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask all hospitals."""
        self.model = {name: array.numpy() for name, array in arrays.items()}
        content = RecordDict(
            {"arrays": arrays, "config": ConfigRecord({**config, "server-round": server_round})}
        )
        return [
            Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in grid.get_node_ids()
        ]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add up the clipped updates, and noise; a hospital that is away counts as zero."""
        total = {name: np.zeros(array.shape) for name, array in self.model.items()}
        for reply in replies:
            if reply.has_error():
                continue
            update = {
                name: array.numpy().astype(np.float64) for name, array in reply.content["arrays"].items()
            }
            norm = np.sqrt(sum(np.square(change).sum() for change in update.values()))
            if not np.isfinite(norm):
                continue
            for name in total:
                total[name] += update[name] * min(1.0, CLIP / max(norm, 1e-12))
        released = {}
        for name, before in self.model.items():
            noise = self.rng.normal(0.0, NOISE_MULTIPLIER * CLIP, before.shape)
            step = SERVER_LEARNING_RATE * (total[name] + noise) / HOSPITALS
            released[name] = Array((before + step).astype(before.dtype))
        return ArrayRecord(released), None

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Hospitals do not evaluate."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing to report."""
        return None


def faulty() -> HospitalStrategy:
    return HospitalStrategy(SEED)


def corrected() -> HospitalStrategy:
    return HospitalStrategy(secrets.randbits(128))
