"""Noisy averages in plain Flower, right but for one thing each."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp.strategy import Strategy


@lru_cache(maxsize=64)
def loaded(data):
    found = np.load(BytesIO(data), allow_pickle=False)
    found.flags.writeable = False
    return found


def values(array):
    """``array.numpy()``; what many clients send alike is read once."""
    return loaded(array.data)


class Average(Strategy):
    """Poisson cohorts of 20 from 100, clip 1, noise 1, divided by 20. Right as it stands."""

    rate, expected, noise = 0.2, 20.0, 1.0

    def __init__(self):
        self.generator = np.random.default_rng()
        self.bound = 1.0
        self.weights = {}

    def summary(self):
        pass

    def draw(self, nodes):
        return [node for node in nodes if self.generator.random() < self.rate]

    def configure_train(self, server_round, arrays, config, grid):
        self.weights = {key: values(array).astype(np.float64) for key, array in arrays.items()}
        content = RecordDict({"arrays": arrays, "config": config})
        return [
            Message(content, dst_node_id=node, message_type="train")
            for node in self.draw(list(grid.get_node_ids()))
        ]

    def length(self, delta):
        return float(np.sqrt(sum(float(np.sum(part * part)) for part in delta.values())))

    def accepts(self, delta):
        return all(np.all(np.isfinite(part)) for part in delta.values())

    def clipped(self, delta):
        length = self.length(delta)
        return {
            key: part * (self.bound / length if length > self.bound else 1.0) for key, part in delta.items()
        }

    def weigh(self, reply):
        return 1.0

    def combine(self, deltas, weights):
        sums = {key: np.zeros_like(part) for key, part in self.weights.items()}
        for delta, weight in zip(deltas, weights, strict=True):
            for key, part in self.clipped(delta).items():
                sums[key] += weight * part
        return sums

    def noised(self, sums):
        return {
            key: part + self.noise * self.bound * self.generator.standard_normal(part.shape)
            for key, part in sums.items()
        }

    def after(self, deltas):
        """Called before noise is added, once the round's updates are known."""

    def aggregate_train(self, server_round, replies):
        deltas, weights = [], []
        for reply in replies:
            if reply.has_error():
                continue
            got = reply.content["arrays"]
            delta = {key: values(got[key]) - part for key, part in self.weights.items()}
            if self.accepts(delta):
                deltas.append(delta)
                weights.append(self.weigh(reply))
        sums = self.combine(deltas, weights)
        noised = self.noised(sums)
        self.after(deltas)
        new = {key: self.weights[key] + part / self.expected for key, part in noised.items()}
        return ArrayRecord({key: Array(part.astype(np.float32)) for key, part in new.items()}), None

    def configure_evaluate(self, server_round, arrays, config, grid):
        return []

    def aggregate_evaluate(self, server_round, replies):
        return None


class ClipsEachTensor(Average):
    def clipped(self, delta):
        parts = {}
        for key, part in delta.items():
            length = float(np.linalg.norm(part))
            parts[key] = part / max(1.0, length / self.bound)
        return parts


class WeighsByExamples(Average):
    def weigh(self, reply):
        return float(reply.content["metrics"]["num-examples"])

    def combine(self, deltas, weights):
        share = self.expected / max(sum(weights), 1.0)
        return super().combine(deltas, [weight * share for weight in weights])


class LetsNanPass(Average):
    def accepts(self, delta):
        return True

    def clipped(self, delta):
        factor = min(1.0, self.bound / max(self.length(delta), 1e-12))
        return {key: part * factor for key, part in delta.items()}


class SkipsEmptyCohorts(Average):
    def aggregate_train(self, server_round, replies):
        if not replies:
            return None, None
        return super().aggregate_train(server_round, replies)


class Adaptive(Average):
    """The clip follows the median update, with noise on the count. Right as it stands."""

    count_noise = 2.0

    def __init__(self):
        super().__init__()
        self.noise = (1.0 - (2 * self.count_noise) ** -2) ** -0.5

    def share_below(self, deltas):
        bits = sum((self.length(delta) <= self.bound) - 0.5 for delta in deltas)
        return (bits + self.count_noise * self.generator.standard_normal()) / self.expected + 0.5

    def after(self, deltas):
        self.bound *= float(np.exp(-0.2 * (self.share_below(deltas) - 0.5)))


class AdaptsTheWrongWay(Adaptive):
    def share_below(self, deltas):
        return 1.0 - super().share_below(deltas)


class NoiseOfTheNextClip(Adaptive):
    def noised(self, sums):
        used = self.bound
        # The bound moves before the noise is drawn.
        Adaptive.after(self, self.seen)
        moved, self.bound = self.bound, used
        noised = {
            key: part + self.noise * moved * self.generator.standard_normal(part.shape)
            for key, part in sums.items()
        }
        self.bound = moved
        return noised

    def combine(self, deltas, weights):
        self.seen = deltas
        return super().combine(deltas, weights)

    def after(self, deltas):
        pass


class NoiseOfTheFirstClip(Adaptive):
    def noised(self, sums):
        return {
            key: part + self.noise * self.generator.standard_normal(part.shape) for key, part in sums.items()
        }


class DrawsACohortOfOneSize(Average):
    """Twenty at a time: whoever is removed makes room for somebody else, which moves the sum by two clips."""

    def draw(self, nodes):
        return [int(node) for node in self.generator.choice(nodes, 20, replace=False)]


class SameCohortsAfterARestart(Average):
    def __init__(self):
        super().__init__()
        self.drawing = np.random.default_rng(17)

    def draw(self, nodes):
        return [node for node in nodes if self.drawing.random() < self.rate]


class ClipsTheSum(Average):
    """The average is clipped, not each update: one long update is most of it."""

    def combine(self, deltas, weights):
        mean = {
            key: sum((delta[key] for delta in deltas), np.zeros_like(part)) / self.expected
            for key, part in self.weights.items()
        }
        return {key: part * self.expected for key, part in self.clipped(mean).items()}
