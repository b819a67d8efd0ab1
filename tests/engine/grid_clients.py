"""Client apps of the grid tests, in a module that Ray's workers can import."""

import os
import signal
import time
from pathlib import Path
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedsafe.engine import ClientApps


def make_apps() -> ClientApps:
    """An ordinary Flower app, without a batch entry point."""
    app = ClientApp()
    app.train()(train)
    app.evaluate()(evaluate)
    return ClientApps(one=app)


def train(message: Message, context: Context) -> Message:
    """Count this node's calls, move the model by its number, and fail or meddle where the message says so."""
    partition = cast("int", context.node_config["partition-id"])
    config = message.content.config_records.get("config", ConfigRecord())
    if config.get("fail") == partition:
        raise ValueError(f"client {partition} was told to fail")
    die_once(config, partition)
    gate = Path(cast("str", config.get("gate", "/")))
    while not gate.exists():
        time.sleep(0.01)
    state = context.state.metric_records.get("calls", MetricRecord({"count": 0}))
    state["count"] = cast("int", state["count"]) + 1
    context.state["calls"] = state
    arrays = message.content.array_records["arrays"]
    moved = [array + partition + 1.0 for array in arrays.to_numpy_ndarrays()]
    metrics = MetricRecord(
        {
            "num-examples": partition + 1,
            "count": state["count"],
            "partition": partition,
            "nodes": cast("int", context.node_config["num-partitions"]),
            "node": context.node_id,
            "seen": cast("int", config.get("meddled", 0)),
        }
    )
    if "meddled" in config:
        message.content["config"] = ConfigRecord({"meddled": 1})
        config["meddled"] = 1
    content = RecordDict({"arrays": ArrayRecord(moved), "metrics": metrics})
    return Message(content, reply_to=message)


def die_once(config: ConfigRecord, partition: int) -> None:
    """Kill this worker where the message says so; once, if it names a file that remembers it."""
    if config.get("kill") != partition:
        return
    mark = cast("str", config.get("mark", ""))
    if mark and Path(mark).exists():
        return
    if mark:
        Path(mark).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def evaluate(message: Message, context: Context) -> Message:
    """The mean of the model, as a metric."""
    arrays = message.content.array_records["arrays"].to_numpy_ndarrays()
    metrics = MetricRecord({"num-examples": 1, "mean": float(np.mean(arrays[0]))})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)
