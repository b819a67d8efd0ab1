"""A model is built from its name, sizes and seed alone, without touching global state."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from fedsafe.data import Signature
from fedsafe.errors import ConfigError, ModelError
from fedsafe.models import build_model

FACTORIES = """
from torch import nn

def sized(features, outputs, width=4):
    return nn.Sequential(nn.Linear(features, width), nn.Linear(width, outputs))

def fixed():
    return nn.Linear(3, 1)

def anything(**options):
    model = nn.Linear(options["features"], options["outputs"])
    model.options = options
    return model

def demanding(features, outputs, depth):
    return nn.Linear(features, outputs)

class Net(nn.Module):
    def __init__(self, features, outputs):
        super().__init__()
        self.layer = nn.Linear(features, outputs)

    def forward(self, x):
        return self.layer(x)

def number(features, outputs):
    return 3

constant = 3
"""


@pytest.fixture(autouse=True)
def factories(tmp_path, monkeypatch):
    (tmp_path / "model_factories.py").write_text(FACTORIES)
    monkeypatch.syspath_prepend(tmp_path)


def build(spec, features=5, outputs=1, seed=0):
    kind = "binary" if outputs == 1 else "multiclass"
    signature = Signature(kind=kind, inputs=(features,), outputs=(outputs,), classes=max(2, outputs))
    return build_model(spec, signature=signature, seed=seed)


SPECS = [
    "logistic",
    "mlp",
    {"name": "logistic"},
    {"name": "mlp", "hidden": [7]},
    {"name": "mlp", "hidden": [7, 3], "activation": "tanh"},
    "model_factories:sized",
    {"name": "model_factories:sized", "width": 2},
    "model_factories:Net",
    "model_factories:anything",
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("outputs", [1, 4])
def test_every_model_maps_records_to_logits(spec, outputs):
    logits = build(spec, outputs=outputs)(torch.zeros(6, 5))
    assert logits.shape == (6, outputs)
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_seed_alone_decides_the_weights(spec):
    first = build(spec, seed=3).state_dict()
    torch.manual_seed(99)
    torch.rand(5)
    again, other = build(spec, seed=3).state_dict(), build(spec, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_global_generators_are_left_where_they_were(spec):
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    build(spec)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == random.getstate()
    np.testing.assert_array_equal(before[2], np.random.get_state()[1])  # noqa: NPY002


def test_global_generators_are_left_where_they_were_when_building_fails():
    before = torch.get_rng_state()
    with pytest.raises(ModelError):
        build("model_factories:number")
    assert torch.equal(before, torch.get_rng_state())


def test_an_mlp_has_the_layers_it_was_asked_for():
    model = build({"name": "mlp", "hidden": [7, 3], "activation": "tanh"}, outputs=2)
    kinds = [type(layer) for layer in model]
    assert kinds == [nn.Linear, nn.Tanh, nn.Linear, nn.Tanh, nn.Linear]
    shapes = [tuple(layer.weight.shape) for layer in model if isinstance(layer, nn.Linear)]
    assert shapes == [(7, 5), (3, 7), (2, 3)]


def test_logistic_is_one_linear_layer():
    model = build("logistic", outputs=3)
    assert isinstance(model, nn.Linear)
    assert sum(p.numel() for p in model.parameters()) == 5 * 3 + 3


def test_a_factory_gets_the_sizes_only_if_it_takes_them():
    assert build("model_factories:fixed").weight.shape == (1, 3)
    assert build({"name": "model_factories:anything", "x": 1}).options == {
        "features": 5,
        "inputs": (5,),
        "outputs": 1,
        "positions": None,
        "vocabulary": None,
        "x": 1,
    }


def test_a_module_is_copied_with_its_weights():
    module = nn.Linear(2, 1)
    copied = build(module)
    assert torch.equal(copied.weight, module.weight)
    with torch.no_grad():
        copied.weight.add_(1)
    assert not torch.equal(copied.weight, module.weight)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("logistc", "model 'logistc' is not known: did you mean 'logistic'.*import path"),
        ({"hidden": [3]}, "neither a name"),
        (3, "neither a name"),
        ({"name": "logistic", "hidden": [3]}, "'hidden' is unknown"),
        ({"name": "mlp", "hiden": [3]}, "'hiden' is unknown. Did you mean 'hidden'"),
        ({"name": "mlp", "hidden": []}, "list of widths"),
        ({"name": "mlp", "hidden": 64}, "list of widths"),
        ({"name": "mlp", "hidden": "64"}, "list of widths"),
        ({"name": "mlp", "hidden": [64, 0]}, "width 0"),
        ({"name": "mlp", "hidden": [True]}, "width True"),
        ({"name": "mlp", "activation": "rleu"}, "'rleu' is unknown. Did you mean 'relu'"),
        ({"name": "mlp", "features": 3}, "comes from the task"),
        ("no_such_module:net", "cannot be imported: No module named 'no_such_module'"),
        ("model_factories:absent", "cannot be imported: .*absent"),
        (":net", "cannot be imported"),
        ("model_factories:constant", "int, not something to call"),
        ("model_factories:demanding", "needs the key 'depth'"),
        ({"name": "model_factories:sized", "widht": 2}, "Did you mean 'width'"),
    ],
    ids=str,
)
def test_a_mistake_is_answered_with_a_remedy(spec, message):
    with pytest.raises(ConfigError, match=message):
        build(spec)


def test_a_factory_that_returns_something_else_is_refused():
    with pytest.raises(ModelError, match=r"returned int, not a torch\.nn\.Module"):
        build("model_factories:number")
