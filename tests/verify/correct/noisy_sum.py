"""A small correct noisy average in plain Flower: Poisson cohorts, one clip, noise, a public divisor."""

import secrets

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy

POPULATION, RATE, CLIP, NOISE = 100, 0.2, 1.0, 1.0


class NoisySum(Strategy):
    def __init__(self):
        self.rng = np.random.default_rng(secrets.randbits(128))
        self.sent = {}

    def summary(self):
        pass

    def configure_train(self, server_round, arrays, config, grid):
        self.sent = {name: array.numpy() for name, array in arrays.items()}
        config["server-round"] = server_round
        content = RecordDict({"arrays": arrays, "config": config})
        chosen = [node for node in grid.get_node_ids() if self.rng.random() < RATE]
        return [Message(content, dst_node_id=node, message_type="train") for node in chosen]

    def aggregate_train(self, server_round, replies):
        total = {name: np.zeros(value.shape) for name, value in self.sent.items()}
        for reply in replies:
            if reply.has_error():
                continue
            arrays = reply.content["arrays"]
            update = {n: arrays[n].numpy().astype(np.float64) - self.sent[n] for n in self.sent}
            if not all(np.isfinite(value).all() for value in update.values()):
                continue
            norm = np.sqrt(sum(np.sum(value**2) for value in update.values()))
            for name, value in update.items():
                total[name] += value * min(1.0, CLIP / max(norm, 1e-12))
        new = {}
        for name, value in total.items():
            noised = value + self.rng.normal(0.0, NOISE * CLIP, value.shape)
            new[name] = Array((self.sent[name] + noised / (RATE * POPULATION)).astype(np.float32))
        return ArrayRecord(new), None

    def configure_evaluate(self, server_round, arrays, config, grid):
        return []

    def aggregate_evaluate(self, server_round, replies):
        return None
