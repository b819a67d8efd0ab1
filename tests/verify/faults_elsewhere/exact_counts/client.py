"""One station: DP-SGD on its own readings, and a few numbers about how it went."""

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import TensorDataset

from exact_counts.task import accuracy, load_data, make_model, train

app = ClientApp()
counts_only = ClientApp()
corrected = ClientApp()


def fit(message: Message, context: Context) -> tuple[nn.Module, TensorDataset, list[float]]:
    """Train the model of the message as the run's configuration says."""
    model = make_model()
    model.load_state_dict(message.content["arrays"].to_torch_state_dict())
    data = load_data(int(context.node_config["partition-id"]), int(context.node_config["num-partitions"]))
    settings = context.run_config
    losses = train(
        model,
        data,
        steps=int(settings["local-steps"]),
        rate=float(settings["sample-rate"]),
        batch=float(settings["expected-batch"]),
        clip=float(settings["max-grad-norm"]),
        noise=float(settings["noise-multiplier"]),
        lr=float(settings["learning-rate"]),
    )
    return model, data, losses


def answer(message: Message, model: nn.Module, metrics: dict[str, int | float]) -> Message:
    """The trained model and the metrics."""
    content = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord(metrics)})
    return Message(content=content, reply_to=message)


@app.train()
def train_and_report(message: Message, context: Context) -> Message:
    """What FedAvg weighs by, and two curves for the dashboard."""
    model, data, losses = fit(message, context)
    metrics = {
        "local-steps": int(context.run_config["local-steps"]),
        "num-examples": len(data),
        "train_loss": sum(losses) / max(len(losses), 1),
        "train_accuracy": accuracy(model, data),
    }
    return answer(message, model, metrics)


@counts_only.train()
def train_and_count(message: Message, context: Context) -> Message:
    """Only what FedAvg weighs by."""
    model, data, _ = fit(message, context)
    metrics = {"local-steps": int(context.run_config["local-steps"]), "num-examples": len(data)}
    return answer(message, model, metrics)


@corrected.train()
def train_quietly(message: Message, context: Context) -> Message:
    """The number of steps is the same for all and known beforehand: FedAvg weighs by it, that is, evenly."""
    model, _, _ = fit(message, context)
    return answer(message, model, {"local-steps": int(context.run_config["local-steps"])})
