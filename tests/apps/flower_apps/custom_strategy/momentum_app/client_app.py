"""A client with two mods: one for the whole app, one for one function."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable


def clip(msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Bound the norm of what leaves the client."""
    before = msg.content["arrays"].to_numpy_ndarrays()
    reply = call_next(msg, context)
    steps = [new - old for new, old in zip(reply.content["arrays"].to_numpy_ndarrays(), before, strict=True)]
    norm = float(np.sqrt(sum((step**2).sum() for step in steps)))
    factor = min(1.0, context.run_config["max-norm"] / max(norm, 1e-12))
    reply.content["arrays"] = ArrayRecord(
        [old + factor * step for old, step in zip(before, steps, strict=True)]
    )
    reply.content["metrics"]["norm"] = norm
    return reply


def count(msg: Message, context: Context, call_next: ClientAppCallable) -> Message:
    """Say which parts the message had."""
    names = sorted(msg.content)
    reply = call_next(msg, context)
    reply.content["metrics"]["parts"] = len(names)
    return reply


app = ClientApp()


@app.train("scaled", mods=[count, clip])
def train(msg: Message, context: Context) -> Message:
    partition = context.node_config["partition-id"]
    scale = msg.content["config"]["scale"]
    arrays = [array + scale * (partition + 1.0) for array in msg.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": partition + 1, "scale": scale})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content=content, reply_to=msg)
