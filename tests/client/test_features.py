"""Training on features that are computed once is training the whole model."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from training_problems import make_jobs

from fedsafe.client import LocalTraining, build_trainer, choose_trainer, layout_of, precompute
from fedsafe.client.evaluation import per_record
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.opacus_trainer import OpacusTrainer
from fedsafe.client.stacked import StackedTrainer
from fedsafe.data import Signature
from fedsafe.errors import ModelError
from fedsafe.models import FixedFeatures, build_model

IMAGES = Signature(kind="multiclass", inputs=(1, 8, 8), outputs=(3,), classes=3)
TRAINING = LocalTraining(learning_rate=0.5, steps=3, rate=0.4, clip=0.5, noise=0.0)


def histograms(head=None):
    model = build_model({"name": "hog_linear", "cell": 4}, signature=IMAGES, seed=1)
    if head is not None:
        model.head = head
    return model


def frozen_convolution():
    """Public features of another kind: a network that was trained elsewhere, with the statistics it has seen."""
    torch.manual_seed(2)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-0.1, 0.1)
    fixed = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), norm, nn.Dropout(0.5), nn.ReLU(), nn.Flatten())
    return FixedFeatures(
        fixed.requires_grad_(False), nn.Sequential(nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3))
    )


def data(count=90):
    generator = torch.Generator().manual_seed(4)
    return torch.rand(count, 1, 8, 8, generator=generator), torch.arange(count) % 3


PARTS = [np.arange(0, 40), np.arange(40, 45), np.arange(45, 90)]


def start_of(module):
    trained = [p for p in module.parameters() if p.requires_grad]
    return nn.utils.parameters_to_vector(trained).detach().numpy().copy()


@pytest.mark.parametrize("make", [histograms, frozen_convolution])
def test_what_is_trained_has_the_same_names_order_and_values(make):
    model = make()
    head, _ = precompute(model, data()[0])
    assert layout_of(head) == layout_of(model)
    assert all(name.startswith("head.") for name in layout_of(model).names)
    np.testing.assert_array_equal(start_of(head), start_of(model))


@pytest.mark.parametrize("make", [histograms, frozen_convolution])
def test_outputs_and_evaluation_are_those_of_the_whole(make):
    model, (x, y) = make(), data(600)
    head, features = precompute(model, x)
    assert features.shape[0] == 600
    with torch.no_grad():
        torch.testing.assert_close(head(features), model(x))
    rows = np.arange(7, 600)
    whole, apart = (
        per_record(m, cross_entropy, "multiclass", given, y, rows)
        for m, given in ((model, x), (head, features))
    )
    np.testing.assert_allclose(apart[0], whole[0], rtol=1e-5)
    assert (apart[1] == whole[1]).mean() > 0.995


@pytest.mark.parametrize("trainer", [StackedTrainer, OpacusTrainer])
def test_training_on_features_gives_the_parameters_of_training_the_whole(trainer):
    model, (x, y) = histograms(), data()
    head, features = precompute(model, x)
    start = start_of(model)
    whole = trainer(model, cross_entropy, (x, y), TRAINING).train(start, make_jobs(PARTS, range(3)))
    apart = trainer(head, cross_entropy, (features, y), TRAINING).train(start, make_jobs(PARTS, range(3)))
    np.testing.assert_allclose(apart, whole, rtol=1e-5, atol=1e-6)
    assert (np.abs(apart - start).max(1) > 0.01).all()


def test_a_trainer_that_is_given_the_whole_computes_the_features_itself():
    model, (x, y) = frozen_convolution(), data()
    start = start_of(model)
    given = [(model, x), precompute(model, x)]
    results = [
        build_trainer("stacked", module, cross_entropy, inputs, y, TRAINING).train(
            start, make_jobs(PARTS, range(3))
        )
        for module, inputs in given
    ]
    np.testing.assert_array_equal(results[0], results[1])


class LastDimension(nn.Module):
    """Shows its layer the examples along the last dimension."""

    def __init__(self, features):
        super().__init__()
        self.mix = nn.Conv1d(features, 3, 1)

    def forward(self, x):
        return self.mix(x.t().unsqueeze(0))[0].t()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (histograms, "stacked"),
        (frozen_convolution, "stacked"),
        (lambda: histograms(LastDimension(128)), "vmap"),
        (
            lambda: histograms(
                nn.Sequential(nn.Unflatten(1, (1, -1)), nn.Conv1d(1, 1, 8, 8), nn.Flatten(), nn.Linear(16, 3))
            ),
            "stacked",
        ),
    ],
)
def test_the_trainer_follows_from_the_head(make, expected):
    assert choose_trainer(make(), cross_entropy, IMAGES) == expected


class Centres(nn.Module):
    def forward(self, x):
        return (x - x.mean(0)).flatten(1)


def test_features_that_mix_examples_are_refused():
    with pytest.raises(ModelError, match="changing one example"):
        choose_trainer(FixedFeatures(Centres(), nn.Linear(64, 3)), cross_entropy, IMAGES)


def test_a_fixed_part_that_is_trained_is_refused():
    model = FixedFeatures(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 3))
    with pytest.raises(ModelError, match=r"trains '1.weight': call requires_grad_\(False\)"):
        precompute(model, data()[0])


def test_a_fixed_part_without_a_row_for_each_record_is_refused():
    class Sums(nn.Module):
        def forward(self, x):
            return x.sum((1, 2, 3))

    with pytest.raises(ModelError, match="one row of features for each record"):
        precompute(FixedFeatures(Sums(), nn.Linear(1, 3)), data()[0])


@pytest.mark.parametrize("part", ["fixed", "head"])
def test_a_part_that_is_no_module_is_refused(part):
    parts = {"fixed": nn.Flatten(), "head": nn.Linear(64, 3)} | {part: lambda x: x}
    with pytest.raises(ModelError, match=f"needs an nn.Module as its {part} part"):
        FixedFeatures(**parts)


def test_a_fixed_part_that_changes_its_input_is_refused_and_changes_no_record():
    class Zeroes(nn.Module):
        def forward(self, x):
            return x.mul_(0).flatten(1)

    x, _ = data()
    before = x.clone()
    with pytest.raises(ModelError, match=r"changes its input in place.*x\.clone\(\)"):
        precompute(FixedFeatures(Zeroes(), nn.Linear(64, 3)), x)
    assert torch.equal(x, before)


def test_other_models_come_back_as_they_are_and_so_do_features():
    x, _ = data()
    plain = nn.Linear(3, 3)
    assert precompute(plain, x) == (plain, x)
    head, features = precompute(histograms(), x)
    assert precompute(head, features) == (head, features)


def test_the_model_is_left_as_it_was():
    model = frozen_convolution().train()
    before = copy.deepcopy(model.state_dict())
    head, _ = precompute(model, data()[0])
    with torch.no_grad():
        head.head[0].weight.add_(1.0)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
