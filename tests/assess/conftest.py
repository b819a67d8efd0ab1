"""Small subjects whose true properties are known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fedsafe.assess import Subject
from fedsafe.data import Categorical, Examples, Label, Numeric, Schema, Source, Task

FEATURES = 6  # a0..a3 free in [-1, 1], sex one-hot and immutable


@pytest.fixture(scope="session")
def schema() -> Schema:
    return make_schema(2)


def make_schema(classes: int) -> Schema:
    return Schema(
        label=Label(column="y", classes=tuple(f"c{i}" for i in range(classes))),
        columns=(
            *(Numeric(name=f"a{i}", low=-5, high=5, encoded=(-1.0, 1.0)) for i in range(4)),
            Categorical(
                name="sex", categories=("Female", "Male"), unknown="Female", group=True, immutable=True
            ),
        ),
    )


@pytest.fixture(scope="session")
def linear() -> Callable[..., nn.Module]:
    """``linear(weight, bias)``: logits ``x @ weight.T + bias``."""

    def build(weight: Any, bias: Any) -> nn.Module:
        weight = torch.atleast_2d(torch.tensor(weight, dtype=torch.float32))
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        with torch.no_grad():
            layer.weight.copy_(weight)
            layer.bias.copy_(torch.tensor(bias, dtype=torch.float32))
        return layer.eval()

    return build


@pytest.fixture(scope="session")
def inputs() -> Callable[..., np.ndarray]:
    """``inputs(n, seed)``: random encoded records of the schema."""

    def draw(n: int, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        male = rng.integers(0, 2, n)
        return np.concatenate([rng.uniform(-1, 1, (n, 4)), np.eye(2)[male]], axis=1).astype(np.float32)

    return draw


@pytest.fixture(scope="session")
def judged() -> Callable[..., Subject]:
    """``judged(model, x, y, groups, classes=2, **fields)``: a subject made by hand."""

    def build(
        model: nn.Module, x: Any, y: Any, groups: Any = None, *, classes: int = 2, **fields: Any
    ) -> Subject:
        if groups is None:
            groups = {"sex": np.where(np.asarray(x)[:, -1] > 0.5, "Male", "Female")}
        examples = Examples(x=x, y=y, groups=groups)
        train = Examples(x=np.zeros((2, examples.x.shape[1])), y=np.arange(2))
        task = Task(
            name="made",
            kind="binary" if classes == 2 else "multiclass",
            classes=tuple(f"c{i}" for i in range(classes)),
            schema=make_schema(classes),
            train=train,
            evaluation=examples,
            evaluation_name="made by hand (public)",
            source=Source(name="made by hand"),
            evaluation_public=True,
        )
        values = {"evaluation": task.evaluation, "evaluation_name": task.evaluation_name, **fields}
        return Subject(model=model.eval(), task=task, **values)

    return build


@pytest.fixture(scope="session")
def perceptron() -> Callable[..., nn.Module]:
    """``perceptron(outputs, seed)``: a smooth random network."""

    def build(outputs: int = 1, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        net = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, outputs))
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(0.7 * torch.randn(parameter.shape, generator=generator))
        return net.eval()

    return build
