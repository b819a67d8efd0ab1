"""Robust objectives in the trainers: engines agree, clients stay apart, one record moves a sum by its clip at most."""

import copy
import math

import numpy as np
import pytest
import torch
from robust_problems import MODELS, SPECS, make_jobs, make_robust
from torch import nn
from training_problems import compare_packings

from fedsafe.client import choose_trainer
from fedsafe.client.objectives import Moment, PlainModel, bound_to, draw, perturbations
from fedsafe.data import Signature
from fedsafe.privacy.clipping import MARGIN

EVERY = [(model, spec) for model in MODELS for spec in SPECS]


def by_hand(build, training, job, batches, start):
    """A client's round, one record at a time: perturb it alone, then take its gradient, then clip."""
    module = copy.deepcopy(build.keywords["module"])
    objective = bound_to(build.keywords["objective"], module)
    x, y = build.keywords["x"], build.keywords["y"]
    weights = torch.from_numpy(start).to(x.dtype)
    branch = perturbations(job.batches)
    for step, rows in enumerate(batches):
        total = torch.zeros_like(weights)
        for row in rows:
            nn.utils.vector_to_parameters(weights, module.parameters())
            batch = (x[[row]], y[[row]])
            moment = Moment(
                draws=torch.from_numpy(draw(branch, objective.law, 1, objective.width(batch))),
                progress=torch.tensor([training.progress(job.round, step)]),
            )
            batch = objective.perturbed(batch, moment, PlainModel(module))
            loss = objective(module, batch).sum()
            gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, tuple(module.parameters()))])
            total += gradient * min(1.0, training.clip * MARGIN / float(gradient.norm()))
        weights = weights - training.learning_rate * total / training.divisor(len(job.records))
    return weights.numpy()


@pytest.mark.parametrize(("model", "spec"), EVERY)
def test_every_engine_trains_as_one_does_by_hand(model, spec):
    """In double precision, where no sign of a gradient hangs on rounding. Opacus has no rule for intervals."""
    for clip in (0.5, math.inf):
        build, training, parts, start = make_robust(
            model, spec, sizes=(3, 20, 1), noise=0.0, double=True, clip=clip, rounds=2
        )
        drawn = [job.sample(training) for job in make_jobs(parts, range(3), round=2)]
        trainers = ["stacked", "vmap"] + ["opacus"] * (spec != "ibp")
        found = {
            name: build(name, training=training).train(start, make_jobs(parts, range(3), round=2))
            for name in trainers
        }
        for client, batches in enumerate(drawn):
            job = make_jobs(parts, [client], round=2)[0]
            expected = by_hand(build, training, job, batches, start)
            assert np.abs(expected - start).max() > 1e-3 or not sum(map(len, batches))
            for name in trainers:
                np.testing.assert_allclose(found[name][client], expected, rtol=2e-6, atol=2e-7, err_msg=name)


@pytest.mark.parametrize(("model", "spec"), EVERY)
def test_no_packing_changes_a_bit(model, spec):
    rng = np.random.default_rng(5)
    sizes = tuple(np.maximum(1, rng.lognormal(np.log(30), 0.8, 10).astype(int)).tolist())
    build, training, parts, start = make_robust(model, spec, sizes=sizes, rate=0.2, steps=2)
    compare_packings(build("stacked", training=training), parts, start, 3, rng)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("trainer", ["stacked", "vmap"])
def test_batches_of_a_fixed_size_are_perturbed_alike(trainer, spec):
    build, training, parts, start = make_robust(
        "classes", spec, sizes=(9, 20), double=True, noise=0.0, batch_size=5
    )
    drawn = [job.sample(training) for job in make_jobs(parts, range(2))]
    found = build(trainer, training=training).train(start, make_jobs(parts, range(2)))
    for client, batches in enumerate(drawn):
        expected = by_hand(build, training, make_jobs(parts, [client])[0], batches, start)
        np.testing.assert_allclose(found[client], expected, rtol=2e-6, atol=2e-7)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("trainer", ["stacked", "vmap"])
def test_one_record_moves_a_sum_by_its_clip_at_most(trainer, spec):
    """However steep its loss: the perturbation comes before the clip, and no other record's hangs on it."""
    build, training, parts, start = make_robust(
        "classes", spec, sizes=(8,), steps=1, rate=1.0, noise=0.0, learning_rate=1.0, clip=0.05
    )
    whole = build(trainer, training=training).train(start, make_jobs(parts, [0]))[0]
    x = build.keywords["x"].clone()
    x[parts[0][3]] = math.nan
    other = copy.copy(build)
    without = other(trainer, training=training, x=x).train(start, make_jobs(parts, [0]))[0]
    moved = float(np.linalg.norm(whole.astype(float) - without)) * training.divisor(8)
    assert 0.0 < moved <= training.clip
    assert moved > 0.9 * training.clip, "a record this steep is clipped, and no further"


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_a_bad_record_leaves_every_other_client_bit_identical(spec, bad):
    build, training, parts, start = make_robust("classes", spec, rate=0.9)
    before = build("stacked", training=training).train(start, make_jobs(parts, range(6)))
    x = build.keywords["x"].clone()
    x[parts[3][0]] = bad
    after = build("stacked", training=training, x=x).train(start, make_jobs(parts, range(6)))
    others = [0, 1, 2, 4, 5]
    np.testing.assert_array_equal(after[others], before[others])
    assert np.isfinite(after).all()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("spec", SPECS)
def test_models_that_stack_do_so_with_robust_objectives(model, spec):
    build, _, _, _ = make_robust(model, spec)
    _, shape, kind = MODELS[model]
    outputs = {"binary": 1, "classes": 5, "images": 3}[model]
    signature = Signature(kind=kind, inputs=shape, outputs=(outputs,), classes=max(2, outputs))
    assert choose_trainer(build.keywords["module"], build.keywords["objective"], signature) == "stacked"


def test_draws_are_the_clients_own_and_the_steps():
    """Another client, another round: other starts; the same job again: the same."""
    build, training, parts, start = make_robust("classes", "gaussian", sizes=(20, 20), noise=0.0, rate=1.0)
    same = [parts[0], parts[0]]
    one, two = build("stacked", training=training).train(start, make_jobs(same, range(2)))
    again = build("stacked", training=training).train(start, make_jobs(same, [0]))[0]
    later = build("stacked", training=training).train(start, make_jobs(same, [0], round=2))[0]
    np.testing.assert_array_equal(one, again)
    assert (one != two).any()
    assert (one != later).any()


@pytest.mark.parametrize("spec", ["mixed l2", "trades", "ibp"])
def test_a_client_that_fills_the_cache_alone_trains_as_in_a_loop(spec):
    """It takes the library's convolutions, by the inputs too."""
    build, training, parts, start = make_robust(
        "images", spec, sizes=(900,), steps=1, rate=0.5, noise=0.0, double=True, rounds=3
    )
    trainers = [build(name, training=training) for name in ("stacked", "vmap")]
    found, expected = (trainer.train(start, make_jobs(parts, [0], round=2))[0] for trainer in trainers)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-7)
    assert np.abs(found - start).max() > 1e-3


@pytest.mark.parametrize("spec", SPECS)
def test_half_precision_trains_near_single(spec):
    build, training, parts, start = make_robust("classes", spec, sizes=(50,), noise=0.0, steps=1)
    single = build("stacked", training=training).train(start, make_jobs(parts, [0]))[0]
    half = build("stacked", training=training, precision=torch.bfloat16).train(start, make_jobs(parts, [0]))[
        0
    ]
    moved = float(np.linalg.norm(single - start))
    assert 0.0 < float(np.linalg.norm(half - single)) < 0.3 * moved
