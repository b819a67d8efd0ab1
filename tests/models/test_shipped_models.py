"""The shipped models have the sizes that they are known by, and refuse a task that they are not for."""

import math

import pytest
import torch
from torch import nn

from fedsafe.data import Signature
from fedsafe.errors import ConfigError
from fedsafe.models import FixedFeatures, build_model
from fedsafe.models.hog import HistogramOfGradients


def images(*shape, outputs=10):
    return Signature(kind="multiclass", inputs=shape, outputs=(outputs,), classes=outputs)


def tokens(positions=6, vocabulary=9, outputs=None):
    if outputs is None:
        return Signature(
            kind="next_token",
            inputs=(positions,),
            outputs=(positions, vocabulary),
            classes=vocabulary,
            vocabulary=vocabulary,
        )
    return Signature(
        kind="multiclass", inputs=(positions,), outputs=(outputs,), classes=outputs, vocabulary=vocabulary
    )


def trained(model):
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


# Parameters counted by hand, layer by layer.
SIZES = [
    ("linear", images(5, outputs=1), 5 + 1),
    ("logistic", images(1, 4, 3), 12 * 10 + 10),
    ({"name": "mlp", "hidden": [5]}, images(2, 2, 3, outputs=3), 12 * 5 + 5 + 5 * 3 + 3),
    ("cnn", images(1, 28, 28), 26_010),
    (
        "cnn",
        images(3, 14, 20, outputs=4),
        (192 * 16 + 16) + (256 * 32 + 32) + (2 * 32 * 32 + 32) + (32 * 4 + 4),
    ),
    (
        {"name": "resnet", "width": 4, "blocks": 2, "groups": 2},
        images(1, 8, 8, outputs=3),
        (36 + 8) + 2 * (144 + 8) + (4 * 8 * 9 + 16 + 8 * 8 * 9 + 16 + 4 * 8) + (8 * 3 + 3),
    ),
    ("hog_linear", images(1, 28, 28), 392 * 10),
    (
        {"name": "hog_linear", "cell": 4, "orientations": 6, "bias": True},
        images(3, 8, 8),
        6 * 16 * 10 + 10,
    ),
    ("lstm", tokens(), 9 * 8 + 4 * 64 * (8 + 64 + 2) + 64 * 9 + 9),
    (
        {"name": "lstm", "embedding": 3, "hidden": 5, "layers": 2},
        tokens(outputs=4),
        9 * 3 + 20 * (3 + 5 + 2) + 20 * (5 + 5 + 2) + 5 * 4 + 4,
    ),
    ("reward", images(2, 384, outputs=1), 384 + 1),
    ({"name": "reward", "heads": 3}, images(2, 5, outputs=3), 5 * 3 + 1 + 3 + 1),
    (
        {"name": "reward", "hidden": [4], "heads": 2, "activation": "tanh"},
        images(2, 6, 5, outputs=1),
        (5 * 4 + 4) + 4 * 2 + 1 + 2,
    ),
]


def examples(signature, count=3):
    if signature.vocabulary is None:
        return torch.rand(count, *signature.inputs)
    return torch.randint(0, signature.vocabulary, (count, *signature.inputs))


@pytest.mark.parametrize(
    ("spec", "signature", "parameters"), SIZES, ids=lambda v: str(getattr(v, "inputs", v))
)
def test_a_model_has_its_parameters_and_gives_its_outputs(spec, signature, parameters):
    model = build_model(spec, signature=signature, seed=0)
    assert trained(model) == parameters
    assert model(examples(signature)).shape == (3, *signature.outputs)


@pytest.mark.parametrize(
    ("spec", "signature", "parameters"), SIZES, ids=lambda v: str(getattr(v, "inputs", v))
)
def test_the_seed_alone_decides_the_weights(spec, signature, parameters):
    first = build_model(spec, signature=signature, seed=3).state_dict()
    torch.rand(7)
    again = build_model(spec, signature=signature, seed=3).state_dict()
    other = build_model(spec, signature=signature, seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("sides", [(1, 1), (5, 9), (8, 3)])
def test_a_residual_network_takes_images_of_any_size(sides):
    model = build_model({"name": "resnet", "width": 4}, signature=images(2, *sides), seed=0)
    assert model(torch.rand(2, 2, *sides)).shape == (2, 10)


def test_flat_inputs_keep_the_names_that_saved_models_have():
    flat = Signature(kind="binary", inputs=(5,), outputs=(1,), classes=2)
    assert list(build_model("logistic", signature=flat, seed=0).state_dict()) == ["weight", "bias"]
    names = ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert list(build_model("mlp", signature=flat, seed=0).state_dict()) == names


@pytest.mark.parametrize(
    ("spec", "signature", "message"),
    [
        ("cnn", images(12), r"needs images .* shape \(12,\): use the model 'mlp'"),
        ("cnn", images(1, 13, 28), r"at least 14 x 14 pixels.*\(1, 13, 28\)"),
        ("resnet", images(5, 5), "needs images"),
        ("hog_linear", images(1, 3, 9), "at least 4 x 4 pixels"),
        ("lstm", images(6), r"needs sequences of tokens.*numbers of shape \(6,\)"),
        ("logistic", tokens(), "inputs are tokens: use the model 'lstm'"),
        ("mlp", tokens(), "inputs are tokens"),
        ("cnn", tokens(), "inputs are tokens"),
        ("hog_linear", tokens(), "inputs are tokens"),
        ({"name": "cnn", "width": 4}, images(1, 28, 28), "'width' is unknown. Known: none"),
        ({"name": "resnet", "blocs": 4}, images(1, 8, 8), "'blocs' is unknown. Did you mean 'blocks'"),
        ({"name": "resnet", "width": 6}, images(1, 8, 8), "groups = 4 does not divide model.width = 6"),
        ({"name": "resnet", "blocks": 0}, images(1, 8, 8), "blocks = 0 is not a whole number from 1"),
        ({"name": "resnet", "groups": True}, images(1, 8, 8), "groups = True is not"),
        ({"name": "hog_linear", "cell": 6}, images(1, 8, 8), "cell = 6 pixels cannot be quartered"),
        ({"name": "hog_linear", "orientations": 1}, images(1, 8, 8), "orientations = 1 is not"),
        ({"name": "hog_linear", "scale": 0.0}, images(1, 8, 8), "scale = 0.0 is not a positive number"),
        ({"name": "lstm", "hidden": 2.5}, tokens(), "hidden = 2.5 is not"),
        ({"name": "lstm", "positions": 3}, tokens(), "'positions': it comes from the task"),
    ],
    ids=str,
)
def test_a_mistake_is_answered_with_a_remedy(spec, signature, message):
    with pytest.raises(ConfigError, match=message):
        build_model(spec, signature=signature, seed=0)


def test_an_lstm_refuses_other_positions_than_its_inputs():
    signature = Signature(kind="next_token", inputs=(6,), outputs=(5, 9), classes=9, vocabulary=9)
    with pytest.raises(ConfigError, match="each of 6 positions, or one for all; this task has 5"):
        build_model("lstm", signature=signature, seed=0)


def edge(angle):
    """An image that grows brighter in one direction; 0 is to the right, a quarter turn is down."""
    down, across = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    turn = torch.tensor(angle * torch.pi / 4)
    return 0.02 * (across * turn.cos() + down * turn.sin())[None]


def test_features_name_the_direction_in_which_an_image_grows_brighter():
    features = HistogramOfGradients()(torch.stack([edge(angle) for angle in range(8)]))
    by_direction = features.view(8, 8, -1).sum(2)
    assert by_direction.argmax(1).tolist() == list(range(8))
    # Half of the directions are against it, or across.
    assert (by_direction < 0.05 * by_direction.amax(1, keepdim=True)).sum(1).min() >= 3


@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_features_have_one_length_whatever_the_contrast(scale):
    x = torch.rand(5, 2, 12, 12) * torch.tensor([1e-3, 0.1, 1.0, 10.0, 1e4]).view(5, 1, 1, 1)
    lengths = HistogramOfGradients(scale=scale)(x).norm(dim=1)
    torch.testing.assert_close(lengths, torch.full((5,), scale))


def test_an_even_image_has_no_features_and_a_finite_gradient():
    x = torch.full((1, 1, 12, 12), 0.7, requires_grad=True)
    features = HistogramOfGradients()(x)
    assert not features.any()
    features.sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30, 0.0])
def test_a_bad_image_changes_no_bit_of_the_features_of_another(bad):
    x = torch.rand(9, 1, 12, 12)
    features = HistogramOfGradients()
    before = features(x)
    x[4] = bad
    others = torch.arange(9) != 4
    assert torch.equal(features(x)[others], before[others])


def test_features_take_the_channel_with_the_largest_slope():
    steep, gentle = torch.rand(1, 1, 12, 12), 0.01 * torch.rand(1, 1, 12, 12)
    features = HistogramOfGradients()
    both = features(torch.cat([gentle, steep], 1))
    alone = features(steep)
    torch.testing.assert_close(both, alone, rtol=0, atol=0.05)
    assert not torch.allclose(both, features(gentle), atol=0.05)


def test_fixed_features_stay_in_evaluation_mode():
    model = FixedFeatures(nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.9)), nn.Dropout(0.5)).train()
    assert model.training
    assert model.head.training
    assert not any(part.training for part in model.fixed.modules())
