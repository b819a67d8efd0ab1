"""DP-SGD clients in plain Flower and numpy, right but for one thing each. The model is logistic regression."""

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

COUNT, INPUTS, CLASSES = 120, 16, 3
Q, LOCAL_STEPS, BOUND, MULTIPLIER = 0.25, 4, 1.0, 1.0


def records_of(partition):
    generator = np.random.default_rng(partition)
    inputs = generator.normal(size=(COUNT, INPUTS)).astype(np.float32)
    return inputs, (inputs[:, 0] > 0).astype(np.int64)


def fresh_model():
    generator = np.random.default_rng(0)
    weights = generator.normal(0.0, 0.1, (CLASSES, INPUTS)).astype(np.float32)
    return ArrayRecord({"weight": Array(weights), "bias": Array(np.zeros(CLASSES, np.float32))})


def per_record(weight, bias, inputs, targets):
    """``(records, CLASSES, INPUTS + 1)`` gradients of the cross-entropy."""
    logits = inputs @ weight.T + bias
    logits = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(logits)
    residual = exponentials / exponentials.sum(axis=1, keepdims=True)
    residual[np.arange(len(targets)), targets] -= 1.0
    extended = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    return residual[:, :, None] * extended[:, None, :]


class Client:
    """Right as it stands."""

    def generator(self, partition, server_round):
        return np.random.default_rng()

    def batches(self, generator):
        return [np.flatnonzero(generator.random(COUNT) < Q) for _ in range(LOCAL_STEPS)]

    def sum_of(self, gradients):
        flat = gradients.reshape(len(gradients), -1)
        finite = np.isfinite(flat).all(axis=1)
        lengths = np.sqrt((np.where(finite[:, None], flat, 0.0) ** 2).sum(axis=1))
        scale = BOUND / np.maximum(lengths, BOUND)
        return (
            (np.where(finite[:, None], flat, 0.0) * scale[:, None]).sum(axis=0).reshape(CLASSES, INPUTS + 1)
        )

    def metrics(self, context, inputs):
        return {}

    def answer(self, message, context):
        partition = int(context.node_config["partition-id"])
        server_round = int(message.content["config"]["server-round"])
        inputs, targets = records_of(partition)
        weight = message.content["arrays"]["weight"].numpy().astype(np.float64)
        bias = message.content["arrays"]["bias"].numpy().astype(np.float64)
        generator = self.generator(partition, server_round)
        rate = float(context.run_config["lr"])
        for batch in self.batches(generator):
            with np.errstate(all="ignore"):
                total = self.sum_of(
                    per_record(weight, bias, inputs[batch].astype(np.float64), targets[batch])
                )
            total = total + MULTIPLIER * BOUND * generator.standard_normal(total.shape)
            weight = weight - rate * total[:, :-1] / (Q * COUNT)
            bias = bias - rate * total[:, -1] / (Q * COUNT)
        arrays = ArrayRecord(
            {"weight": Array(weight.astype(np.float32)), "bias": Array(bias.astype(np.float32))}
        )
        content = RecordDict({"arrays": arrays, "metrics": MetricRecord(self.metrics(context, inputs))})
        return Message(content, reply_to=message)


def app_of(client):
    app = ClientApp()
    app.train()(client.answer)
    return app


class OneStream(Client):
    """Every client and round draws from a generator of one seed."""

    def generator(self, partition, server_round):
        return np.random.default_rng(7)


class StreamOfTheRound(Client):
    """Rounds differ, clients do not."""

    def generator(self, partition, server_round):
        return np.random.default_rng(server_round)


class Shuffled(Client):
    """Cuts a shuffled order into batches, and calls that Poisson."""

    def batches(self, generator):
        return np.array_split(generator.permutation(COUNT), LOCAL_STEPS)


class FixedSize(Client):
    """As many records in each step, drawn anew. Right as it stands, for a claim of that."""

    def batches(self, generator):
        return [generator.choice(COUNT, int(Q * COUNT), replace=False) for _ in range(LOCAL_STEPS)]


class NanPasses(Client):
    def sum_of(self, gradients):
        flat = gradients.reshape(len(gradients), -1)
        lengths = np.sqrt((flat**2).sum(axis=1))
        scale = np.minimum(1.0, BOUND / np.maximum(lengths, 1e-12))
        return (flat * scale[:, None]).sum(axis=0).reshape(CLASSES, INPUTS + 1)


class ClipsWeightAndBiasApart(Client):
    def sum_of(self, gradients):
        total = np.zeros((CLASSES, INPUTS + 1))
        for part in (slice(0, INPUTS), slice(INPUTS, None)):
            flat = gradients[:, :, part].reshape(len(gradients), -1)
            lengths = np.sqrt((flat**2).sum(axis=1))
            scale = np.nan_to_num(BOUND / np.maximum(lengths, BOUND))
            summed = (np.nan_to_num(flat) * scale[:, None]).sum(axis=0)
            total[:, part] = summed.reshape(CLASSES, -1)
        return total


# Of 4 steps at rate 0.25, noise 1, delta 1e-5: after each of five rounds.
SPENT = (4.2068, 5.4586, 6.4481, 7.3053, 8.0788)


class Accountant(Client):
    """Remembers its rounds in the context. Right as it stands."""

    def metrics(self, context, inputs):
        kept = context.state.get("rounds", ConfigRecord({"count": 0}))
        kept["count"] += 1
        context.state["rounds"] = kept
        return {"epsilon": SPENT[min(kept["count"], len(SPENT)) - 1]}


class AccountantOfARound(Client):
    def metrics(self, context, inputs):
        return {"epsilon": SPENT[0]}


class AccountantOfAProcess(Client):
    """Remembers its rounds in the process, which ends with each message."""

    rounds = 0

    def metrics(self, context, inputs):
        self.rounds += 1
        return {"epsilon": SPENT[min(self.rounds, len(SPENT)) - 1]}


right = app_of(Client())
one_stream = app_of(OneStream())
stream_of_the_round = app_of(StreamOfTheRound())
shuffled = app_of(Shuffled())
fixed_size = app_of(FixedSize())
nan_passes = app_of(NanPasses())
clips_apart = app_of(ClipsWeightAndBiasApart())
accountant = app_of(Accountant())
accountant_of_a_round = app_of(AccountantOfARound())
accountant_of_a_process = app_of(AccountantOfAProcess())
