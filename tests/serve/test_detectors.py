import numpy as np
import pytest
import torch
from guarded_model import SCHEMA, draw, images, model, table, trained
from scipy import ndimage, special
from torch import nn

from fedsafe.assess.performance.ranking import auc
from fedsafe.errors import ModelError
from fedsafe.serve.detectors.column_tree import ColumnTree, columns_of
from fedsafe.serve.detectors.distances import Mahalanobis, Nearest, squared_distances
from fedsafe.serve.detectors.energy import Energy
from fedsafe.serve.detectors.squeezing import Squeezing, median_filter
from fedsafe.serve.detectors.synthetic import permuted, shuffled, strange, uniform, unused
from fedsafe.serve.forward import Forward
from fedsafe.serve.monitor import look


def seen(x, task=None, net=None):
    return look(Forward(net or model(), (task or table()).schema.shape), x, True)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_numpy_computes_what_torch_computes_features_included(activation):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(9, 7), activation(), nn.Linear(7, 3)).eval()
    x = np.random.default_rng(0).normal(size=(20, 9)).astype(np.float32)
    fast, slow = Forward(net, (9,)), Forward(net, (9,))
    slow._chain = None
    assert fast.in_numpy
    assert not slow.in_numpy
    for one, other in zip(fast(x), slow(x), strict=True):
        assert np.allclose(one, other, atol=1e-5)


def test_what_is_no_plain_chain_runs_in_torch():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(9, 2)

        def forward(self, x):
            return self.layer(x) * 2

    hooked = nn.Sequential(nn.Linear(9, 2)).eval()
    hooked[0].register_forward_hook(lambda _m, _i, output: output + 1)
    x = np.ones((3, 9), np.float32)
    for net in (Odd().eval(), hooked):
        forward = Forward(net, (9,))
        assert not forward.in_numpy
        assert np.allclose(forward(x)[0], net(torch.tensor(x)).detach().numpy())
    with pytest.raises(ModelError, match="eval"):
        Forward(nn.Linear(9, 2).train(), (9,))


def test_energy_of_one_logit_is_that_of_the_two_it_stands_for():
    found = seen(table().evaluation.x[:50])
    both = np.concatenate([-found.outputs / 2, found.outputs / 2], axis=1)
    assert np.allclose(Energy().score(found), -special.logsumexp(both, axis=1))


def test_mahalanobis_is_the_textbook_distance_to_the_nearest_mean():
    examples = draw(600, 5)
    found = seen(examples.x)
    score = Mahalanobis.fit(found, examples.y, space="features").score(found)
    values = found.features.astype(float)
    groups = [values[examples.y == label] for label in (0, 1)]
    centred = np.concatenate([group - group.mean(axis=0) for group in groups])
    covariance = centred.T @ centred / (len(values) - 1)
    inverse = np.linalg.inv(
        covariance + 1e-2 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    )
    slow = [min((v - g.mean(axis=0)) @ inverse @ (v - g.mean(axis=0)) for g in groups) for v in values]
    assert np.allclose(score, slow, rtol=2e-3, atol=1e-2)


def test_neighbours_are_those_of_a_loop_by_class_too():
    rng = np.random.default_rng(0)
    examples = draw(200, 6)
    found, new = seen(examples.x), seen(draw(30, 7).x)
    unit = [part.features / np.linalg.norm(part.features, axis=1, keepdims=True) for part in (found, new)]
    for by_class in (False, True):
        near = Nearest.fit(found, examples.y, space="features", most=200, rng=rng, by_class=by_class)
        slow = []
        for row, label in zip(unit[1], new.labels, strict=True):
            own = unit[0][examples.y == label] if by_class else unit[0]
            slow.append(np.sort(((own - row) ** 2).sum(axis=1))[near.k - 1])
        assert np.allclose(near.score(new), slow, atol=1e-5)


def test_squared_distances_are_never_negative():
    x = np.random.default_rng(0).normal(1000, 1, (50, 8)).astype(np.float32)
    assert (squared_distances(x, x) >= 0).all()


def test_the_column_tree_is_a_density_and_knows_which_columns_belong_together():
    x = table().evaluation.x
    tree = ColumnTree.fit(x[:2500], columns_of(SCHEMA.one_hot, x.shape[1]))
    # Role, age and income hang together; sex stands apart: whoever is its neighbour, the information is about nothing.
    links = {frozenset((at, int(parent))) for at, parent in enumerate(tree.parents) if parent >= 0}
    assert frozenset((1, 3)) in links
    assert frozenset((3, 4)) in links
    # Over all records of categories the probabilities add up to 1.
    few = ColumnTree.fit(x[:500, :6], ((0, 1), (2, 3, 4, 5)))
    grid = np.array([[*a, *b] for a in np.eye(2) for b in np.eye(4)], np.float32)
    assert np.exp(-few.score(seen_of(grid))).sum() == pytest.approx(1.0)


def seen_of(x):
    from fedsafe.serve.detectors import Seen

    return Seen(x, np.zeros((len(x), 1)), x, True, lambda rows: np.zeros((len(rows), 1)))


def test_the_column_tree_finds_columns_from_different_records_better_than_distances():
    rng = np.random.default_rng(0)
    x, new = table().evaluation.x[:2500], table().evaluation.x[2500:]
    tree = ColumnTree.fit(x, columns_of(SCHEMA.one_hot, x.shape[1]))
    mixed = shuffled(new, SCHEMA, rng)
    assert np.array_equal(np.sort(mixed[:, 7]), np.sort(new[:, 7]))  # each column is what it was
    known = Mahalanobis.fit(seen(x), table().evaluation.y[:2500], space="features")
    areas = [auc(each.score(seen(mixed)), each.score(seen(new)))[0] for each in (tree, known)]
    assert areas[0] > max(0.95, areas[1])


def test_synthetic_strangers_keep_the_bounds():
    rng = np.random.default_rng(0)
    x = uniform(100, SCHEMA, rng)
    assert (x >= SCHEMA.low).all()
    assert (x <= SCHEMA.high).all()
    assert np.array_equal(np.sort(permuted(x, rng), axis=1), np.sort(x, axis=1))


def test_a_column_tree_is_said_to_have_no_gradient():
    from types import SimpleNamespace

    from fedsafe.serve.adaptive import without_gradient

    x = table().evaluation.x[:500]
    tree = ColumnTree.fit(x, columns_of(SCHEMA.one_hot, x.shape[1]))
    distance = Nearest.fit(
        seen(x),
        table().evaluation.y[:500],
        space="inputs",
        most=100,
        rng=np.random.default_rng(0),
        by_class=False,
    )
    assert without_gradient(SimpleNamespace(detectors={"ood": [tree, distance]})) == (tree.name,)


def test_families_to_report_on_choose_no_detector():
    rng, x = np.random.default_rng(0), table().evaluation.x[:100]
    found = unused(x, SCHEMA, rng)
    assert set(found) == {"inverted", "records at random"}
    assert not set(found) & set(strange(x, SCHEMA, rng))
    for made in found.values():
        assert ((made >= SCHEMA.low) & (made <= SCHEMA.high)).all()
        for group in SCHEMA.one_hot:
            assert (made[:, list(group)].sum(axis=1) == 1).all()
    assert np.allclose(found["inverted"][:, 6:], SCHEMA.low[6:] + SCHEMA.high[6:] - x[:, 6:])


def test_the_median_filter_is_scipys_with_the_two_in_the_middle_averaged():
    image = np.random.default_rng(0).random((2, 1, 6, 5)).astype(np.float32)
    slow = ndimage.generic_filter(image, np.median, size=(1, 1, 2, 2), mode="nearest")
    assert np.allclose(median_filter(image), slow, atol=1e-6)


def test_squeezing_asks_the_model_again_and_moves_only_what_may_move():
    moved = np.asarray(SCHEMA.perturbable)
    squeezing = Squeezing(
        shape=SCHEMA.shape, low=SCHEMA.low, high=SCHEMA.high, moved=moved, levels=(5,), median=False
    )
    found = seen(table().evaluation.x[:40])
    (rounded,) = squeezing.squeezed(found.inputs)
    assert np.array_equal(rounded[:, ~moved], found.inputs[:, ~moved])
    assert np.allclose(rounded[:, moved] * 4, np.rint(rounded[:, moved] * 4), atol=1e-5)
    before, after = (
        special.expit(model()(torch.tensor(x)).detach().numpy()[:, 0]) for x in (found.inputs, rounded)
    )
    assert np.allclose(squeezing.score(found), 2 * np.abs(after - before), atol=1e-5)


def test_squeezing_tells_an_attacked_image_from_an_ordinary_one():
    from fedsafe.assess.robustness.gradient import pgd
    from fedsafe.assess.robustness.regions import Box

    task = images()
    net = trained(task, steps=60, flatten=True)
    x, y = torch.tensor(task.evaluation.x[:150]), torch.tensor(task.evaluation.y[:150])
    low, high = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    region = Box.around(x, 0.25, low, high, torch.ones(1, 8, 8, dtype=torch.bool))
    bad = pgd(net, x, y, region, steps=10, restarts=1, rng=np.random.default_rng(0))
    squeezing = Squeezing(
        shape=(1, 8, 8),
        low=low.flatten().numpy(),
        high=high.flatten().numpy(),
        moved=np.ones(64, bool),
        levels=(2,),
        median=True,
    )
    wrong = (net(bad).argmax(dim=1) != y).numpy()
    scores = [squeezing.score(seen(z, task, net)) for z in (bad[wrong].numpy(), x.numpy())]
    assert wrong.sum() > 30
    assert auc(*scores)[0] > 0.8
