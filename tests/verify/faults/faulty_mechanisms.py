"""Capped weights, local, banded and distributed noise in plain Flower: right, and wrong in one thing each."""

import pickle
import tempfile
from pathlib import Path

import numpy as np
from faulty_averages import Average, values
from flwr.app import Array, ArrayRecord


class Few(Average):
    """Ten of forty: quick."""

    rate, expected = 0.25, 10.0


class Capped(Few):
    """Weights up to 1 from 50 examples on, over a fixed divisor. Right as it stands."""

    cap = 50

    def weigh(self, reply):
        return min(max(float(reply.content["metrics"]["num-examples"]), 0.0) / self.cap, 1.0)


class CapsNothing(Capped):
    def weigh(self, reply):
        return float(reply.content["metrics"]["num-examples"]) / self.cap


class CapsFromAbove(Capped):
    """Less than no examples weigh less than nothing."""

    def weigh(self, reply):
        return min(float(reply.content["metrics"]["num-examples"]) / self.cap, 1.0)


class DividesByTheWeights(Capped):
    def combine(self, deltas, weights):
        share = self.expected / max(sum(weights), 1e-9)
        return super().combine(deltas, [weight * share for weight in weights])


# Local noise: what a client uploads is made by a mod; the server adds up what it gets.


class AddsUp(Few):
    """No clip and no noise at the server. Right if the clients do both."""

    def clipped(self, delta):
        return delta

    def noised(self, sums):
        return sums


def upload(message, answer, noise=2.0, generator=None, clip=1.0):
    """The reply with its update clipped and noised."""
    if answer.has_error():
        return answer
    if len(answer.content.array_records) != 1:
        raise ValueError("one ArrayRecord, not more")
    generator = generator or np.random.default_rng()
    sent, got = message.content["arrays"], answer.content["arrays"]
    delta = {key: values(got[key]).astype(np.float64) - values(sent[key]) for key in sent}
    if not all(np.isfinite(part).all() for part in delta.values()):
        delta = {key: np.zeros_like(part) for key, part in delta.items()}
    length = np.sqrt(sum(float(np.sum(part**2)) for part in delta.values()))
    factor = min(1.0, clip / max(length, 1e-12))
    answer.content["arrays"] = ArrayRecord(
        {
            key: Array(
                (values(sent[key]) + part * factor + noise * generator.standard_normal(part.shape)).astype(
                    np.float32
                )
            )
            for key, part in delta.items()
        }
    )
    return answer


def local(message, context, following):
    """Noise 1 over twice the clip of 1."""
    return upload(message, following(message, context))


def noise_for_one_clip(message, context, following):
    return upload(message, following(message, context), noise=1.0)


def stream_of_the_round(message, context, following):
    model = values(message.content["arrays"]["hidden.bias"]).tobytes()
    return upload(message, following(message, context), generator=np.random.default_rng(list(model)))


def stream_of_the_client(message, context, following):
    generator = np.random.default_rng(int(context.node_config["partition-id"]))
    return upload(message, following(message, context), generator=generator)


def spares_one_clients_noise(message, context, following):
    noise = 1.0 if context.node_config["partition-id"] == 11 else 2.0
    return upload(message, following(message, context), noise=noise)


def spares_one_clients_clip(message, context, following):
    clip = 1e9 if context.node_config["partition-id"] == 11 else 1.0
    return upload(message, following(message, context), clip=clip)


def first_record_alone(message, context, following):
    answer = following(message, context)
    others = {key: record for key, record in answer.content.array_records.items() if key != "arrays"}
    for key in others:
        del answer.content[key]
    answer = upload(message, answer)
    for key, record in others.items():
        answer.content[key] = record
    return answer


class NoisesForThem(Few):
    """The server adds what the clients should have added."""

    noise = 2.0 * 10.0**0.5


# Banded noise. What a restart needs is in a file, as a checkpoint would be.

MEMORY = Path(tempfile.gettempdir()) / "faulty-banded-noise.pickle"


class Banded(Few):
    """C has the column (1, 0.5, 0.375); clients stay away for two rounds after theirs. Right as it stands."""

    column, apart = (1.0, 0.5, 0.375), 3
    # Of a client in rounds 1, 4, 7 and 10 of 12, whose columns do not meet.
    sensitivity = float(np.sqrt(4 * (1.0 + 0.25 + 0.375**2)))

    def __init__(self):
        super().__init__()
        self.round, self.earlier, self.met = 0, [], []

    def configure_train(self, server_round, arrays, config, grid):
        self.round = server_round
        if server_round == 1:
            self.earlier, self.met = [], []
        elif not self.earlier and not self.met:
            self.remember()
        return super().configure_train(server_round, arrays, config, grid)

    def remember(self):
        self.earlier, self.met = pickle.loads(MEMORY.read_bytes())

    def draw(self, nodes):
        recent = {node for cohort in self.met[: self.apart - 1] for node in cohort}
        drawn = [node for node in super().draw(nodes) if node not in recent]
        self.met = [drawn, *self.met]
        return drawn

    def fresh(self, shape):
        return self.generator.standard_normal(shape)

    def noised(self, sums):
        size = sum(part.size for part in sums.values())
        noise = self.fresh(size)
        for back, before in zip(self.column[1:], self.earlier, strict=False):
            noise = noise - back * before
        self.earlier = [noise, *self.earlier][: len(self.column) - 1]
        MEMORY.write_bytes(pickle.dumps((self.earlier, self.met)))
        return self.spread(sums, noise)

    def spread(self, sums, noise):
        cuts = np.cumsum([part.size for part in sums.values()])[:-1]
        scale = self.noise * self.sensitivity
        return {
            key: part + scale * piece.reshape(part.shape)
            for (key, part), piece in zip(sums.items(), np.split(noise, cuts), strict=True)
        }


class IndependentNoise(Banded):
    column = (1.0,)


class RepeatsItsNoise(Banded):
    """Round 3 draws what round 1 drew, and so on."""

    def fresh(self, shape):
        if self.round == 1:
            self.kept = {}
        if self.round > 2 and self.round - 2 in getattr(self, "kept", {}):
            return self.kept[self.round - 2]
        drawn = super().fresh(shape)
        self.kept = {**getattr(self, "kept", {}), self.round: drawn}
        return drawn


class ForgetsAfterARestart(Banded):
    def remember(self):
        self.earlier, self.met = [], pickle.loads(MEMORY.read_bytes())[1]


class ComesBackTooSoon(Banded):
    apart = 2


class NoiseForOneRound(Banded):
    """A sensitivity of one participation."""

    sensitivity = float(np.sqrt(1.0 + 0.25 + 0.375**2))


class QuietInRoundTwo(Banded):
    def spread(self, sums, noise):
        return super().spread(sums, noise / (2.0 if self.round == 2 else 1.0))


# Noise that clients add together, on whole numbers modulo a power of two.


class Together(Few):
    """Shares so large that the fewest survivors, 4, add noise 1 over the clip. Right as it stands."""

    minimum, unit, bits, noise = 4, 2.0**-14, 24, 1.0

    def share(self, node):
        return self.noise * self.bound / self.minimum**0.5

    def rounded(self, values):
        low = np.floor(values)
        return low + (self.generator.random(values.shape) < values - low)

    def sent(self, node, delta):
        flat = np.concatenate([part.ravel() for part in self.clipped(delta).values()]) / self.unit
        noise = self.generator.standard_normal(flat.shape) * self.share(node) / self.unit
        return self.rounded(flat) + np.rint(noise)

    def aggregate_train(self, server_round, replies):
        sums, survivors = 0.0, 0
        for reply in replies:
            if reply.has_error():
                continue
            got = reply.content["arrays"]
            delta = {key: values(got[key]) - part for key, part in self.weights.items()}
            if not self.accepts(delta):
                delta = {key: np.zeros_like(part) for key, part in delta.items()}
            sums, survivors = sums + self.sent(reply.metadata.src_node_id, delta), survivors + 1
        if survivors < self.minimum:
            return None, None
        whole = (sums + 2.0 ** (self.bits - 1)) % 2.0**self.bits - 2.0 ** (self.bits - 1)
        pieces = np.split(whole * self.unit, np.cumsum([part.size for part in self.weights.values()])[:-1])
        new = {
            key: part + piece.reshape(part.shape) / self.expected
            for (key, part), piece in zip(self.weights.items(), pieces, strict=True)
        }
        return ArrayRecord({key: Array(part.astype(np.float32)) for key, part in new.items()}), None


class OneShareIsMissing(Together):
    """One client of forty adds nothing."""

    def configure_train(self, server_round, arrays, config, grid):
        self.lazy = sorted(grid.get_node_ids())[11]
        return super().configure_train(server_round, arrays, config, grid)

    def share(self, node):
        return 0.0 if node == self.lazy else super().share(node)


class SharesOfTheCohort(Together):
    """Enough noise only where nobody drops out."""

    def share(self, node):
        return self.noise * self.bound / self.expected**0.5


class AlwaysReleases(Together):
    def aggregate_train(self, server_round, replies):
        share = self.share
        self.share = lambda node: share(node)
        self.minimum, kept = 0, self.minimum
        self.share = lambda node: self.noise * self.bound / kept**0.5
        try:
            return super().aggregate_train(server_round, replies)
        finally:
            self.minimum, self.share = kept, share


class WrapsAround(Together):
    """Two clips fit, with their noise, and the sum of a cohort does not."""

    bits = 17


class RoundsUp(Together):
    """On a coarse grid, away from zero: however short, an update becomes many units long."""

    unit = 0.1

    def rounded(self, values):
        return np.sign(values) * np.ceil(np.abs(values))


# Averages that are right nearly always.


class NoClipInRoundTwo(Few):
    def configure_train(self, server_round, arrays, config, grid):
        self.round = server_round
        return super().configure_train(server_round, arrays, config, grid)

    def clipped(self, delta):
        return delta if self.round == 2 else super().clipped(delta)


class HalfNoiseInRoundTwo(Few):
    def configure_train(self, server_round, arrays, config, grid):
        self.noise = 0.5 if server_round == 2 else 1.0
        return super().configure_train(server_round, arrays, config, grid)


class SparesOneClient(Few):
    """The eleventh client is not clipped."""

    def configure_train(self, server_round, arrays, config, grid):
        self.spared = sorted(grid.get_node_ids())[11]
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round, replies):
        self.order = [r.metadata.src_node_id for r in replies if not r.has_error()]
        return super().aggregate_train(server_round, replies)

    def combine(self, deltas, weights):
        sums = super().combine(deltas, weights)
        for node, delta in zip(self.order, deltas, strict=False):
            if node == self.spared:
                short = self.clipped(delta)
                sums = {key: part + delta[key] - short[key] for key, part in sums.items()}
        return sums


class NoNoiseForNobody(Few):
    """The model stays as it is where nobody replied."""

    def noised(self, sums):
        if not any(part.any() for part in sums.values()):
            return sums
        return super().noised(sums)


class ClipsEachArrayRecord(Few):
    """All that a client sends is added up, each of its records clipped alone."""

    def aggregate_train(self, server_round, replies):
        self.more = []
        for reply in replies:
            if not reply.has_error():
                records = [record for key, record in reply.content.array_records.items() if key != "arrays"]
                self.more += [
                    {key: values(record[key]) - part for key, part in self.weights.items()}
                    for record in records
                ]
        return super().aggregate_train(server_round, replies)

    def combine(self, deltas, weights):
        return super().combine([*deltas, *self.more], [*weights, *[1.0] * len(self.more)])


class LeavesOneValueAlone(Few):
    def noised(self, sums):
        noised = super().noised(sums)
        last = list(sums)[-1]
        noised[last].flat[-1] = sums[last].flat[-1]
        return noised


class QuietAfterARestart(Few):
    """Whoever is not there from the first round on has another setting."""

    def configure_train(self, server_round, arrays, config, grid):
        self.begun = getattr(self, "begun", server_round == 1)
        return super().configure_train(server_round, arrays, config, grid)

    def noised(self, sums):
        noise, self.noise = self.noise, self.noise * (1.0 if self.begun else 0.5)
        noised = super().noised(sums)
        self.noise = noise
        return noised
