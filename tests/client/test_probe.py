"""A model that mixes examples is refused before any record is touched; what has no rule goes to Opacus."""

import pytest
import torch
from torch import nn

from fedsafe.client import choose_trainer
from fedsafe.client.objectives import cross_entropy
from fedsafe.data import Signature
from fedsafe.errors import ModelError


def table(outputs=2, classes=2):
    """Six features, so many outputs."""
    return Signature(kind="multiclass", inputs=(6,), outputs=(outputs,), classes=classes)


def chosen(model, classes=2):
    """The trainer for a model, whatever number of outputs it has."""
    outputs = model.eval()(torch.zeros(4, 6)).shape[1]
    return choose_trainer(model, cross_entropy, table(outputs, classes))


class Centred(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(x - x.mean(0))


class SoftmaxOverBatch(Centred):
    def forward(self, x):
        return self.head(x).softmax(0)


class FunctionalBatchNorm(Centred):
    def forward(self, x):
        return self.head(nn.functional.batch_norm(x, None, None, training=True))


class MovingBuffer(Centred):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        self.seen += 1
        return self.head(x)


class Dropped(Centred):
    def forward(self, x):
        return self.head(nn.functional.dropout(x, 0.5, self.training))


class ZeroHead(nn.Module):
    """Mixes before a head that starts at zero: invisible at the initial weights."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        hidden = torch.relu(self.body(x))
        return self.head(hidden - hidden.mean(0))


class MixesLargeBatches(Centred):
    def forward(self, x):
        return self.head(x if len(x) < 16 else x - x.mean(0))


MIXING = {
    "zero head": (ZeroHead, "changing one example"),
    "large batches": (MixesLargeBatches, "changing one example"),
    "batch norm": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2)),
        "BatchNorm1d.*GroupNorm",
    ),
    "functional batch norm": (FunctionalBatchNorm, "changing one example"),
    "centred": (Centred, "changing one example"),
    "softmax over the batch": (SoftmaxOverBatch, "changing one example"),
    "moving buffer": (MovingBuffer, "buffer seen moves"),
    "dropout": (Dropped, "random numbers in forward"),
}


@pytest.mark.parametrize("name", MIXING)
def test_mixing_is_refused_with_the_remedy(name):
    make, message = MIXING[name]
    with pytest.raises(ModelError, match=message):
        chosen(make())


def test_a_contrastive_objective_is_refused():
    def contrastive(model, x, y):
        z = model(x)
        return nn.functional.cross_entropy(z @ z.T, torch.arange(len(x)), reduction="none")

    with pytest.raises(ModelError, match="changing one example"):
        choose_trainer(nn.Linear(6, 4), contrastive, table(4))


class ReadsTheWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 2)

    def forward(self, x):
        return nn.functional.linear(x, self.one.weight, self.one.bias)


class InPlace(nn.Module):
    """Changes what a layer has given, after the layer has taken note of it."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        hidden = self.one(self.one(x))
        hidden += 0.5 * x
        hidden *= 2.0
        return self.two(hidden)


class SecondDimension(nn.Module):
    """Shows its layers the batch as one example."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 2)

    def forward(self, x):
        return self.head(self.norm(x.unsqueeze(0)))[0]


class WeightUsedTwice(nn.Module):
    """Uses a weight in its layer and outside it."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 6)

    def forward(self, x):
        return nn.functional.linear(torch.relu(self.one(x)), self.one.weight)[:, :2]


@pytest.mark.parametrize("make", [SecondDimension, WeightUsedTwice])
def test_a_model_whose_single_gradients_cannot_be_told_apart_is_refused(make):
    with pytest.raises(ModelError, match=r"per example|one record|examples in a batch"):
        chosen(make())


def test_an_operation_in_place_never_trains_on_wrong_gradients():
    try:
        assert chosen(InPlace()) == "opacus"
    except ModelError as error:
        assert "record" in str(error) or "example" in str(error)  # noqa: PT017 - either way is sound


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Linear(6, 2), "stacked"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.0), nn.ReLU(), nn.Linear(4, 1)), "stacked"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "opacus"),
    ],
)
def test_the_trainer_follows_from_the_model(make, expected):
    assert chosen(make()) == expected


def test_a_model_that_reads_a_weight_directly_is_refused():
    with pytest.raises(ModelError):
        chosen(ReadsTheWeight())


def test_a_shared_parameter_is_not_stacked():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    try:
        assert chosen(model, classes=6) == "opacus"
    except ModelError as error:
        assert "record" in str(error) or "example" in str(error)  # noqa: PT017 - either way is sound


def test_the_probe_leaves_the_model_and_the_generators_alone():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    before = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    chosen(model)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_for_other_inputs_says_so():
    with pytest.raises(ModelError, match="inputs of shape"):
        choose_trainer(nn.Linear(5, 2), cross_entropy, table())


def test_a_model_without_parameters_says_so():
    with pytest.raises(ModelError, match="no trainable parameter"):
        choose_trainer(nn.Identity(), cross_entropy, table(6, 6))


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_model_with_other_outputs_than_the_task_needs_says_so(outputs):
    with pytest.raises(ModelError, match="the task needs"):
        choose_trainer(nn.Linear(6, 2), cross_entropy, table(outputs))


def test_a_model_that_raises_says_what():
    class Broken(nn.Linear):
        def forward(self, x):
            raise KeyError("weights of yesterday")

    with pytest.raises(ModelError, match="KeyError: 'weights of yesterday'"):
        choose_trainer(Broken(6, 2), cross_entropy, table())


def test_weights_that_are_not_finite_are_not_called_dropout():
    model = nn.Linear(6, 2)
    nn.init.constant_(model.weight, float("nan"))
    with pytest.raises(ModelError, match="not finite"):
        choose_trainer(model, cross_entropy, table())
