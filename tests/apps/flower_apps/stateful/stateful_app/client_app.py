"""A client that keeps its own arrays and counts its calls; one of them fails every second time."""

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(msg: Message, context: Context) -> Message:
    partition = context.node_config["partition-id"]
    calls = context.state.metric_records.get("calls", MetricRecord({"count": 0}))["count"] + 1
    context.state["calls"] = MetricRecord({"count": calls})
    if partition == msg.content["config"]["fails"] and msg.content["config"]["server-round"] % 2 == 0:
        raise RuntimeError(f"client {partition} fails in even rounds")
    own = context.state.array_records.get("own")
    mine = own.to_numpy_ndarrays()[0] if own is not None else np.zeros(5)
    mine = mine + partition + 1.0
    context.state["own"] = ArrayRecord([mine])
    arrays = [array + 0.1 * mine for array in msg.content["arrays"].to_numpy_ndarrays()]
    metrics = MetricRecord({"num-examples": 10 * (partition + 1), "calls": calls})
    content = RecordDict({"arrays": ArrayRecord(arrays), "metrics": metrics})
    return Message(content=content, reply_to=msg)


@app.evaluate()
def evaluate(msg: Message, context: Context) -> Message:
    calls = context.state["calls"]["count"]
    mean = float(msg.content["arrays"].to_numpy_ndarrays()[0].mean())
    metrics = MetricRecord({"num-examples": 1, "mean": mean, "calls": calls})
    return Message(content=RecordDict({"metrics": metrics}), reply_to=msg)
