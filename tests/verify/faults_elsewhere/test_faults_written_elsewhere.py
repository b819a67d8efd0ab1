"""The planted faults are there, and the corrected versions are without them: measured by hand, message by message."""

import importlib
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent
SHAPES = {"weight": (20, 10), "bias": (20,)}
SIZE = sum(int(np.prod(shape)) for shape in SHAPES.values())


def claim(name: str) -> dict[str, Any]:
    return tomllib.loads((HERE / name / "claim.toml").read_text())


def app(name: str, module: str) -> ModuleType:
    return importlib.import_module(f"{name}.{module}")


@pytest.fixture(autouse=True)
def a_process_that_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message needs to know who sends it."""
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Nodes:
    def __init__(self, count: int) -> None:
        self.count = count

    def get_node_ids(self) -> list[int]:
        return list(range(1, self.count + 1))


def record(vector: np.ndarray) -> ArrayRecord:
    parts = np.split(
        vector.astype(np.float32), np.cumsum([np.prod(s) for s in SHAPES.values()])[:-1].astype(int)
    )
    return ArrayRecord({k: Array(p.reshape(s)) for (k, s), p in zip(SHAPES.items(), parts, strict=True)})


def vector(arrays: ArrayRecord) -> np.ndarray:
    return np.concatenate([a.ravel() for a in arrays.to_numpy_ndarrays()]).astype(np.float64)


def a_round(
    strategy: Any, nodes: int, update: np.ndarray, *, lost: int = 0, number: int = 1
) -> tuple[np.ndarray, int]:
    """What is released when every client sends ``update``, and the cohort; ``lost`` clients fail."""
    sent = list(strategy.configure_train(number, record(np.zeros(SIZE)), ConfigRecord(), Nodes(nodes)))
    content = RecordDict(
        {"arrays": record(update), "metrics": MetricRecord({"num-examples": 7, "train_loss": 0.5})}
    )
    replies = [
        Message(Error(code=0, reason="gone"), reply_to=m) if i < lost else Message(content, reply_to=m)
        for i, m in enumerate(sent)
    ]
    arrays, _ = strategy.aggregate_train(number, replies)
    return vector(arrays), len(sent)


def train(client: Any, folder: str, number: int = 1, node: int = 0) -> Message:
    declared = claim(folder)
    model, function = declared["model"].split(":")
    torch.manual_seed(0)
    net = getattr(importlib.import_module(model), function)()
    config = ConfigRecord({"server-round": number, **declared.get("config", {})})
    content = RecordDict({"arrays": ArrayRecord(net.state_dict()), "config": config})
    context = Context(
        run_id=1,
        node_id=1,
        node_config={"partition-id": node, "num-partitions": 5},
        state=RecordDict(),
        run_config=declared.get("run_config", {}),
    )
    return client(Message(content, dst_node_id=1, message_type="train"), context)


@pytest.mark.parametrize(("version", "share"), [("faulty", 0.5), ("corrected", 1.0)])
def test_half_noise(version: str, share: float) -> None:
    declared = claim("half_noise")
    rounds = [
        a_round(getattr(app("half_noise", "server"), version)(), 100, np.zeros(SIZE))[0] for _ in range(30)
    ]
    divisor = declared["rate"] * declared["population"]
    std = np.std(rounds) * divisor / declared["clip"]
    assert std == pytest.approx(share * declared["noise"], rel=0.05)


@pytest.mark.parametrize("version", ["faulty", "corrected"])
def test_realised_divisor(version: str) -> None:
    declared = claim("realised_divisor")
    update = np.full(SIZE, 3.0)
    length = np.sqrt(SIZE)
    for lost in (0, 10, 20):
        rounds = [
            a_round(getattr(app("realised_divisor", "server"), version)(), 80, update, lost=lost)
            for _ in range(30)
        ]
        assert {cohort for _, cohort in rounds} == {declared["size"]}
        divisor = 20 if version == "corrected" else max(20 - lost, 1)
        mean = np.mean([r.sum() / length for r, _ in rounds])
        noise = np.std([r - r.mean() for r, _ in rounds])
        assert mean == pytest.approx((20 - lost) * declared["clip"] / divisor, abs=5 / divisor / np.sqrt(30))
        assert noise == pytest.approx(declared["noise"] * declared["clip"] / divisor, rel=0.05)


@pytest.mark.parametrize("version", ["faulty", "corrected"])
def test_stream_reused(version: str) -> None:
    restart = getattr(app("stream_reused", "server"), version)
    update = np.zeros(SIZE)
    update[3] = 2.0
    before = restart()
    first, _ = a_round(before, 24, update)
    second, _ = a_round(before, 24, update, number=2)
    resumed, _ = a_round(restart(), 24, -update, number=3)
    signal = 24 * update * 0.5 / 24
    same = np.allclose(first - signal, resumed + signal, atol=1e-6)
    assert same == (version == "faulty")
    assert not np.allclose(first, second, atol=1e-3)
    assert np.std(first - signal) == pytest.approx(0.5 * 4 * 2 / 24, rel=0.25)


@pytest.mark.parametrize(
    ("version", "undeclared"),
    [
        ("app", {"num-examples", "train_loss", "train_accuracy"}),
        ("counts_only", {"num-examples"}),
        ("corrected", set()),
    ],
)
def test_exact_counts(version: str, undeclared: set[str]) -> None:
    reply = train(getattr(app("exact_counts", "client"), version), "exact_counts")
    metrics = reply.content["metrics"]
    assert set(metrics) - set(claim("exact_counts")["metrics"]) == undeclared
    if undeclared:
        assert metrics["num-examples"] == 200


@pytest.mark.parametrize("name", ["exact_counts", "no_clip"])
def test_corrected_clients_bound_every_record(name: str) -> None:
    torch.manual_seed(0)
    module, folder = app(name, "task"), claim(name)
    net = getattr(module, folder["model"].split(":")[1])()
    width = next(net.parameters()).shape[1]
    x, y = torch.randn(12, width), torch.arange(12) % 3

    def total(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if name == "no_clip":
            app(name, "client").clipped_per_example(net, x, y, 1.0)
            gradients = [p.grad for p in net.parameters()]
        else:
            gradients = list(module.clipped_sum(net, x, y, folder["clip"]).values())
        return torch.cat([g.flatten() for g in gradients])

    for bad in (1.0, 50.0, 1e6, 1e30, float("inf"), float("nan")):
        worse = x.clone()
        worse[0] = bad
        moved = (total(worse, y) - total(x[1:], y[1:])).norm()
        assert moved <= folder["clip"] * (1 + 1e-5)
    slow = []
    for i in range(12):  # the slow way
        loss = torch.nn.functional.cross_entropy(net(x[i : i + 1]), y[i : i + 1])
        g = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
        slow.append(g * min(1.0, folder["clip"] / g.norm()))
    assert torch.allclose(total(x, y), torch.stack(slow).sum(0), atol=1e-5)
    assert total(x[:0], y[:0]).norm() == 0


def test_no_clip_lets_one_record_move_the_batch() -> None:
    torch.manual_seed(0)
    module = app("no_clip", "client")
    net, x, y = module.Net(), torch.randn(20, 16), torch.arange(20) % 3

    def total(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        net.zero_grad()
        module.clipped_gradients(net, x, y, 20.0)
        return 20.0 * torch.cat([p.grad.flatten() for p in net.parameters()])

    x[0] *= 1000.0
    y[0] = (net(x[:1]).argmax() + 1) % 3  # far on the wrong side
    assert (total(x, y) - total(x[1:], y[1:])).norm() > 5 * claim("no_clip")["clip"]


@pytest.mark.parametrize("version", ["app", "corrected"])
@pytest.mark.parametrize("name", ["exact_counts", "no_clip"])
def test_clients_add_the_claimed_noise_afresh(
    name: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, client = claim(name), app(name, "client")
    key, rate = declared["client"]["learning_rate_key"], declared["learning_rate"]
    assert {**declared.get("run_config", {}), **declared.get("config", {})}[key] == rate
    width = 24 if name == "exact_counts" else 16
    # Records of zeros have no gradient in the first layer's weights: what moves these is noise.
    count = declared["population"]
    silent = TensorDataset(torch.zeros(count, width), torch.zeros(count, dtype=torch.long))
    loader = DataLoader(silent)
    monkeypatch.setattr(
        client, "load_data", lambda *_: silent if name == "exact_counts" else (loader, loader)
    )
    replies = [train(getattr(client, version), name) for _ in range(20)]
    weights = torch.stack([next(iter(r.content["arrays"].to_torch_state_dict().values())) for r in replies])
    divisor = declared["rate"] * count
    expected = rate * declared["noise"] * declared["clip"] / divisor * declared["steps"] ** 0.5
    assert weights.std(0).square().mean().sqrt().item() == pytest.approx(expected, rel=0.06)
    assert len(torch.unique(weights, dim=0)) == 20


def test_no_clip_clients_answer() -> None:
    for version in ("app", "corrected"):
        reply = train(getattr(app("no_clip", "client"), version), "no_clip")
        arrays = reply.content["arrays"].to_torch_state_dict()
        assert all(tensor.isfinite().all() for tensor in arrays.values())
        assert set(arrays) == {"fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"}
        assert dict(reply.content["metrics"]) == {"num-examples": 400}


@pytest.mark.parametrize("name", ["half_noise", "realised_divisor", "stream_reused"])
def test_corrected_strategies_bound_every_update(name: str) -> None:
    declared = claim(name)
    nodes = declared["population"]
    strategy = app(name, "server").corrected()
    for value in (0.0, 1e30, 3e38, np.inf, np.nan):
        released, cohort = a_round(strategy, nodes, np.full(SIZE, value))
        expected = declared.get("size") or declared.get("rate", 1.0) * nodes
        scale = declared.get("learning_rate", 1.0) * declared["clip"] / expected
        heard = cohort if 0 < value < np.inf else 0
        noise = released.sum() / np.sqrt(SIZE) / scale - heard
        assert abs(noise) < 6 * declared["noise"]
    arrays, metrics = strategy.aggregate_train(2, [])
    assert metrics is None
    assert np.std(vector(arrays)) == pytest.approx(declared["noise"] * scale, rel=0.3)
