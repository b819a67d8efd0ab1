"""What stays with a person is found again from the person's own pairs, and nothing else is touched."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import expit

from fedsafe.alignment.rewards import personal_outputs, personal_rewards, reconstruct
from fedsafe.client import layout_of
from fedsafe.data import Examples
from fedsafe.errors import ModelError
from fedsafe.models.reward import PairReward

CLIENTS, EACH = 6, 30


def pairs(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(CLIENTS * EACH, 2, 5)).astype(np.float32)
    y = rng.integers(0, 2, len(x)).astype(np.int64)
    return Examples(x=x, y=y), list(np.split(np.arange(len(x)), CLIENTS))


def model(**options):
    torch.manual_seed(0)
    return PairReward(5, **options)


def vector(of):
    return torch.nn.utils.parameters_to_vector(of.parameters()).detach().numpy()


@pytest.mark.parametrize("trainer", ["stacked", "opacus"])
def test_a_position_is_where_its_own_likelihood_says(trainer):
    """With the pull, it minimises the mean loss plus ``pull / 2`` times its square: found by another optimiser."""
    examples, rows = pairs()
    of, pull = model(), 0.05
    found = reconstruct(
        of,
        "binary",
        examples,
        rows,
        local=["position"],
        trainer=trainer,
        steps=25,
        learning_rate=3.0,
        pull=pull,
    )
    with torch.no_grad():
        margins = of(torch.from_numpy(examples.x))[:, 0].numpy()
    place = layout_of(of).names.index("position.weight")
    assert place == 1
    for client, own in enumerate(rows):
        signs = np.where(examples.y[own] == 1, 1.0, -1.0)

        def loss(position, own=own, signs=signs):
            return -np.log(expit(signs * (margins[own] + position))).mean() + pull / 2 * position**2

        assert abs(found[client, -1] - minimize_scalar(loss).x) < 2e-3


def test_what_is_shared_is_as_it_was_and_the_model_too():
    examples, rows = pairs()
    of = model(heads=3)
    before = vector(of).copy()
    found = reconstruct(of, "binary", examples, rows, local=of.personal)
    shared = 15
    np.testing.assert_array_equal(found[:, :shared], np.tile(before[:shared], (CLIENTS, 1)))
    assert (found[:, shared:] != before[shared:]).all()
    np.testing.assert_array_equal(vector(of), before)
    assert all(p.requires_grad for p in of.parameters())


def test_a_client_is_found_from_its_own_records_alone_and_one_without_any_keeps_the_start():
    examples, rows = pairs()
    of = model(heads=2)
    together = reconstruct(of, "binary", examples, rows, local=of.personal)
    rows[1] = np.empty(0, np.int64)
    examples.y[rows[2]] = 1
    again = reconstruct(of, "binary", examples, rows, local=of.personal)
    np.testing.assert_array_equal(again[1], vector(of))
    assert (again[2, -3:] != together[2, -3:]).any()
    for client in (0, 3, 4, 5):
        np.testing.assert_array_equal(again[client], together[client])


def test_without_names_everybody_has_the_global_model():
    examples, rows = pairs()
    np.testing.assert_array_equal(
        reconstruct(model(), "binary", examples, rows, local=()), np.tile(vector(model()), (CLIENTS, 1))
    )
    with pytest.raises(ModelError, match="no parameter is called 'head2'"):
        reconstruct(model(), "binary", examples, rows, local=["head2"])


def test_each_record_is_judged_under_its_owners_model():
    examples, rows = pairs()
    of = model(heads=2)
    found = reconstruct(of, "binary", examples, rows, local=of.personal)
    owners = np.random.default_rng(1).permutation(np.repeat(np.arange(CLIENTS), EACH))
    outputs = personal_outputs(of, found, examples.x, owners)
    rewards = personal_rewards(of, found, examples.x.reshape(-1, 5)).reshape(CLIENTS, -1, 2)
    own = rewards[owners, np.arange(len(owners))]
    position = found[owners, 10]
    np.testing.assert_allclose(outputs[:, 0], own[:, 0] - own[:, 1] + position, rtol=1e-4, atol=1e-5)
    assert personal_outputs(of, found, examples.x[:0], owners[:0]).shape == (0, 1)
