"""A model that mixes examples is refused before any record is touched; what has no rule goes to Opacus."""

import pytest
import torch
from torch import nn

from fedsafe.client import choose_trainer
from fedsafe.client.objectives import cross_entropy
from fedsafe.errors import ModelError


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


MIXING = {
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
        choose_trainer(make(), cross_entropy, (6,), 2)


def test_a_contrastive_objective_is_refused():
    def contrastive(model, x, y):
        z = model(x)
        return nn.functional.cross_entropy(z @ z.T, torch.arange(len(x)), reduction="none")

    with pytest.raises(ModelError, match="changing one example"):
        choose_trainer(nn.Linear(6, 4), contrastive, (6,), 2)


class ReadsTheWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = nn.Linear(6, 2)

    def forward(self, x):
        return nn.functional.linear(x, self.one.weight, self.one.bias)


class MixesClients(nn.Module):
    """Keeps five examples apart, but not fifteen: only a stack shows it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(x if len(x) < 10 else x - x.mean(0))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: nn.Linear(6, 2), "stacked"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.0), nn.ReLU(), nn.Linear(4, 1)), "stacked"),
        (lambda: nn.Sequential(nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 2)), "opacus"),
        (ReadsTheWeight, "opacus"),
        (MixesClients, "opacus"),
    ],
)
def test_the_trainer_follows_from_the_model(make, expected):
    assert choose_trainer(make(), cross_entropy, (6,), 2) == expected


def test_a_shared_parameter_has_no_rule():
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    assert choose_trainer(model, cross_entropy, (6,), 6) == "opacus"


def test_the_probe_leaves_the_model_and_the_generators_alone():
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    before = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()
    choose_trainer(model, cross_entropy, (6,), 2)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_for_other_inputs_says_so():
    with pytest.raises(ModelError, match="inputs of shape"):
        choose_trainer(nn.Linear(5, 2), cross_entropy, (6,), 2)


def test_a_model_without_parameters_says_so():
    with pytest.raises(ModelError, match="no trainable parameter"):
        choose_trainer(nn.Identity(), cross_entropy, (6,), 6)
