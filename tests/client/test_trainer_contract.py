"""What holds for every trainer: clients apart, the round by hand, the right noise, true Poisson batches."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from training_problems import MODELS, TRAINERS, compare_packings, make_jobs, make_problem

from fedsafe.client import LocalTraining, build_trainer, layout_of
from fedsafe.client.objectives import cross_entropy
from fedsafe.privacy.clipping import MARGIN
from fedsafe.rng import new_key


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("name", MODELS)
def test_no_packing_changes_a_bit(trainer, name):
    rng = np.random.default_rng(5)
    sizes = tuple(np.maximum(1, rng.lognormal(np.log(60), 0.8, 30).astype(int)).tolist())
    build, training, parts, start = make_problem(name, sizes=sizes, rate=0.1, steps=3, proximal=0.2)
    compare_packings(build(trainer, training=training), parts, start, 6 if trainer == "stacked" else 1, rng)


def by_hand(build, training, job, batches, start):
    """A client's round as a textbook has it: one record at a time, in double precision, without noise."""
    module, x, y = (
        copy.deepcopy(build.keywords["module"]).double(),
        build.keywords["x"].double(),
        build.keywords["y"],
    )
    first = torch.from_numpy(start).double()
    weights = first.clone()
    for batch in batches:
        total = torch.zeros_like(weights)
        for row in batch:
            nn.utils.vector_to_parameters(weights, module.parameters())
            module.zero_grad()
            build.keywords["objective"](module, (x[[row]], y[[row]])).sum().backward()
            gradient = nn.utils.parameters_to_vector([p.grad for p in module.parameters()])
            total += gradient * min(1.0, training.clip * MARGIN / float(gradient.norm()))
        step = total / max(1.0, training.rate * len(job.records)) + training.proximal * (weights - first)
        if job.correction is not None:
            step += torch.from_numpy(job.correction)
        weights = weights - training.learning_rate * step
    return weights.numpy()


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize(
    "settings", [{"clip": 0.4, "proximal": 0.3}, {"clip": math.inf}, {"clip": 0.4}], ids=str
)
def test_a_round_is_the_one_done_by_hand(trainer, settings):
    """Steps without records among them, some clients with a correction."""
    build, training, parts, start = make_problem("tanh", sizes=(3, 30, 1), noise=0.0, **settings)
    corrections = [None, np.linspace(-0.5, 0.5, len(start), dtype=np.float32), None]
    jobs = make_jobs(parts, range(3), corrections=corrections)
    # A stream is read once: the same jobs again have the same batches.
    drawn = [job.sample(training) for job in make_jobs(parts, range(3))]
    assert min(len(batch) for batches in drawn for batch in batches) == 0
    trained = build(trainer, training=training).train(start, jobs)
    for job, batches, found in zip(jobs, drawn, trained, strict=True):
        expected = by_hand(build, training, job, batches, start)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("trainer", TRAINERS)
def test_steps_without_records_and_noise_change_nothing(trainer):
    build, training, parts, start = make_problem("relu", sizes=(7, 1), rate=1e-9, noise=0.0, proximal=0.5)
    trained = build(trainer, training=training).train(start, make_jobs(parts, [0, 1]))
    np.testing.assert_array_equal(trained, np.stack([start, start]))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_no_clients_give_no_rows(trainer):
    build, training, _, start = make_problem("relu")
    assert build(trainer, training=training).train(start, []).shape == (0, len(start))


@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_broadcast_parameters_are_only_read(trainer):
    build, training, parts, start = make_problem("relu")
    frozen = start.copy()
    frozen.setflags(write=False)
    build(trainer, training=training).train(frozen, make_jobs(parts, range(3)))
    np.testing.assert_array_equal(frozen, start)


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
    noise = (noisy.astype(float) - plain.astype(float)) / (training.learning_rate / training.divisor(40))
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


def test_the_divisor_is_public():
    """The step size depends on the number of records and the rate, never on the batch that was drawn."""
    training = LocalTraining(learning_rate=2.0, steps=1, rate=0.1, clip=1.0, noise=1.0)
    assert training.divisor(400) == pytest.approx(40.0)
    assert training.divisor(3) == pytest.approx(1.0)


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
