"""Every trainer: the same result however clients are packed, the right noise, true Poisson batches."""

import functools
import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats
from stacked_models import CASES, Case
from torch import nn

from fedsafe.client import ClientJob, LocalTraining, build_objective, build_trainer, layout_of
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import packing
from fedsafe.data import Signature
from fedsafe.rng import Stream, StreamId, new_key

TRAINERS = ["stacked", "opacus"]
KEY = bytes(range(32))


def _table(outputs, *layers):
    signature = Signature(
        kind="binary" if outputs == 1 else "multiclass",
        inputs=(11,),
        outputs=(outputs,),
        classes=max(2, outputs),
    )
    return Case(lambda: nn.Sequential(*[make() for make in layers]), signature)


def linear(inputs, outputs):
    return lambda: nn.Linear(inputs, outputs)


# Widths that leave remainders in every kernel.
MODELS = {
    "logistic": _table(1, linear(11, 1)),
    "softmax": _table(3, linear(11, 3)),
    "relu": _table(1, linear(11, 13), nn.ReLU, linear(13, 1)),
    "tanh": _table(4, linear(11, 10), nn.Tanh, linear(10, 5), nn.Sigmoid, linear(5, 4)),
    "gelu": _table(1, linear(11, 17), nn.GELU, linear(17, 1)),
}
EVERY_RULE = MODELS | CASES
FOR_OPACUS = [
    name for name in EVERY_RULE if name not in ("in place", "images", "attention", "lstm without bias")
]


def make_jobs(parts, clients, *, key=KEY, round=1, corrections=None):
    def stream(purpose, client):
        return Stream(key, StreamId(purpose=purpose, client=client, round=round, digest=b"d" * 32))

    return [
        ClientJob(
            client=client,
            records=parts[client],
            batches=stream("batches", client),
            noise=stream("record noise", client),
            correction=None if corrections is None else corrections[client],
        )
        for client in clients
    ]


def make_problem(name, *, sizes=(5, 40, 90, 17, 300, 60, 1, 33), seed=0, **training):
    case = EVERY_RULE[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = case.make()
        x, y = case.data(sum(sizes))
    bounds = np.cumsum([0, *sizes])
    parts = [np.arange(low, high) for low, high in itertools.pairwise(bounds)]
    settings = {"learning_rate": 0.5, "steps": 4, "rate": 0.2, "clip": 1.0, "noise": 1.0} | training
    start = nn.utils.parameters_to_vector(module.parameters()).detach().numpy().copy()
    objective = build_objective(None, case.signature.kind)
    build = functools.partial(build_trainer, module=module, objective=objective, x=x, y=y)
    return build, LocalTraining(**settings), parts, start


@pytest.mark.parametrize("name", FOR_OPACUS)
def test_stacked_and_opacus_agree(name):
    build, training, parts, start = make_problem(name, sizes=(5, 40, 17, 1, 90), proximal=0.3)
    corrections = [None, np.linspace(-1.0, 1.0, len(start), dtype=np.float32), None, None, None]
    results = [
        build(trainer, training=training).train(start, make_jobs(parts, range(5), corrections=corrections))
        for trainer in TRAINERS
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=2e-5, atol=5e-6)


def compare_packings(made, parts, start, trials, rng):
    """Random orders and chunk sizes, one client at a time included, give each client the same bits."""
    whole = made.train(start, make_jobs(parts, range(len(parts))))
    for trial in range(trials):
        order = rng.permutation(len(parts))
        found = np.empty_like(whole)
        position = 0
        while position < len(order):
            count = 1 if trial == 0 else int(rng.integers(1, 9))
            chosen = order[position : position + count]
            found[chosen] = made.train(start, make_jobs(parts, chosen))
            position += count
        np.testing.assert_array_equal(found.view(np.int32), whole.view(np.int32))


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", MODELS)
def test_no_packing_changes_a_bit(trainer, name):
    rng = np.random.default_rng(5)
    sizes = tuple(np.maximum(1, rng.lognormal(np.log(60), 0.8, 40).astype(int)).tolist())
    build, training, parts, start = make_problem(name, sizes=sizes, rate=0.1)
    compare_packings(build(trainer, training=training), parts, start, 6 if trainer == "stacked" else 1, rng)


@pytest.mark.parametrize("values", [2**9, 2**16, 2**30], ids=["alone", "few", "all"])
@pytest.mark.parametrize("name", CASES)
def test_no_packing_changes_a_bit_whatever_the_layers(monkeypatch, name, values):
    """Whether the cache takes one client, a few or all of them."""
    monkeypatch.setattr(packing, "_STACK_VALUES", values)
    rng = np.random.default_rng(6)
    sizes = tuple(np.maximum(1, rng.lognormal(np.log(60), 0.8, 12).astype(int)).tolist())
    build, training, parts, start = make_problem(name, sizes=sizes, rate=0.15, steps=2, proximal=0.1)
    compare_packings(build("stacked", training=training), parts, start, 3, rng)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_client_depends_on_its_own_job_alone(trainer):
    build, training, parts, start = make_problem("relu")
    made = build(trainer, training=training)
    before = made.train(start, make_jobs(parts, range(8)))
    other = make_jobs(parts, range(8), key=new_key())
    mixed = make_jobs(parts, range(8))
    mixed[2] = other[2]
    after = made.train(start, mixed)
    changed = (before != after).any(axis=1)
    assert changed.tolist() == [client == 2 for client in range(8)]


def _noise_fits(noise, scale):
    """Whether draws have this standard deviation: a chi-square test with one false alarm in a million."""
    low, high = stats.chi2.ppf([5e-7, 1.0 - 5e-7], noise.size)
    return bool(low <= float(np.square(noise / scale).sum()) <= high)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_noise_of_a_step_has_the_planned_scale(trainer):
    """One step with and without noise: the difference is the noise. The right scale passes, others fail."""
    sizes = (40,) * 60
    build, training, parts, start = make_problem("relu", sizes=sizes, steps=1, clip=0.8, noise=1.7)
    _, silent, _, _ = make_problem("relu", sizes=sizes, steps=1, clip=0.8, noise=0.0)
    noisy = build(trainer, training=training).train(start, make_jobs(parts, range(60)))
    plain = build(trainer, training=silent).train(start, make_jobs(parts, range(60)))
    noise = (noisy.astype(float) - plain.astype(float)) / training.step_size(40)
    scale = 1.7 * 0.8
    assert _noise_fits(noise, scale)
    assert not _noise_fits(noise, scale * 2.0 / 3.0)
    assert not _noise_fits(noise, scale * 3.0 / 2.0)
    assert stats.kstest(noise.ravel() / scale, "norm").pvalue > 1e-6
    # No two clients share a draw.
    assert np.abs(np.corrcoef(noise) - np.eye(60)).max() < 0.6


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_step_without_records_still_adds_noise(trainer):
    build, training, parts, start = make_problem("relu", sizes=(1,), steps=1, rate=1e-9)
    trained = build(trainer, training=training).train(start, make_jobs(parts, [0]))
    assert (trained != start).mean() > 0.99


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30, 0.0])
def test_a_bad_record_leaves_every_other_client_bit_identical(trainer, bad):
    build, training, parts, start = make_problem("relu", rate=0.9)
    before = build(trainer, training=training).train(start, make_jobs(parts, range(8)))
    x = build.keywords["x"].clone()
    x[parts[3][0]] = bad
    module, y = build.keywords["module"], build.keywords["y"]
    after = build_trainer(trainer, module, cross_entropy, x, y, training).train(
        start, make_jobs(parts, range(8))
    )
    others = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(after[others], before[others])
    assert np.isfinite(after).all()


def test_batches_are_poisson():
    """Sizes of batches follow the binomial law (chi-square), and records enter independently."""
    _, training, _, _ = make_problem("logistic", sizes=(30,), steps=4000, rate=0.3)
    job = make_jobs([np.arange(30)], [0])[0]
    sizes = np.array([len(batch) for batch in job.sample(training)])
    edges = np.arange(3, 16)
    counts = np.array([(sizes <= 3).sum(), *[(sizes == k).sum() for k in edges[1:]], (sizes > 15).sum()])
    law = stats.binom(30, 0.3)
    expected = 4000 * np.array([law.cdf(3), *law.pmf(edges[1:]), law.sf(15)])
    assert stats.chisquare(counts, expected).pvalue > 1e-6
    wrong = stats.binom(30, 0.25)
    expected = 4000 * np.array([wrong.cdf(3), *wrong.pmf(edges[1:]), wrong.sf(15)])
    assert stats.chisquare(counts, expected).pvalue < 1e-6


def test_a_batch_larger_than_the_usual_capacity_is_not_cut(monkeypatch):
    """Force every batch to be the whole data set: the capacity grows, and the result equals Opacus's."""
    monkeypatch.setattr(ClientJob, "sample", lambda job, training: [job.records] * training.steps)
    build, training, parts, start = make_problem("relu", rate=0.05, noise=0.0)
    results = [build(t, training=training).train(start, make_jobs(parts, range(8))) for t in TRAINERS]
    np.testing.assert_allclose(results[0], results[1], rtol=2e-5, atol=2e-6)


def test_the_divisor_is_public():
    """The step size depends on the number of records and the rate, never on the batch that was drawn."""
    training = LocalTraining(learning_rate=2.0, steps=1, rate=0.1, clip=1.0, noise=1.0)
    assert training.step_size(400) == pytest.approx(2.0 / 40.0)
    assert training.step_size(3) == pytest.approx(2.0)


def test_a_trainer_does_not_touch_the_global_generators():
    build, training, parts, start = make_problem("relu")
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for trainer in TRAINERS:
        build(trainer, training=training).train(start, make_jobs(parts, range(8)))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


def test_layout_follows_the_module():
    module = MODELS["relu"].make()
    layout = layout_of(module)
    vector = nn.utils.parameters_to_vector(module.parameters()).detach().numpy()
    tensors = {name: p.detach().numpy() for name, p in module.named_parameters()}
    np.testing.assert_array_equal(layout.join(tensors), vector)
