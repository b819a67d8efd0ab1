"""The stacked trainer alone: no packing changes a bit, nothing is cut off, and it agrees with Opacus."""

import numpy as np
import pytest
from scipy import stats
from stacked_models import CASES
from training_problems import FOR_OPACUS, TRAINERS, compare_packings, make_jobs, make_problem

from fedsafe.client import ClientJob
from fedsafe.client.stacked import packing
from fedsafe.client.stacked.layers import conv


@pytest.mark.parametrize("name", FOR_OPACUS)
def test_stacked_and_opacus_agree(name):
    build, training, parts, start = make_problem(name, sizes=(5, 40, 17, 1, 90), proximal=0.3)
    corrections = [None, np.linspace(-1.0, 1.0, len(start), dtype=np.float32), None, None, None]
    results = [
        build(trainer, training=training).train(start, make_jobs(parts, range(5), corrections=corrections))
        for trainer in TRAINERS
    ]
    np.testing.assert_allclose(results[0], results[1], rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize("values", [2**9, 2**16, 2**30], ids=["alone", "few", "all"])
@pytest.mark.parametrize("name", CASES)
def test_no_packing_changes_a_bit_whatever_the_layers(monkeypatch, name, values):
    """Whether the cache takes one client, a few or all of them."""
    monkeypatch.setattr(packing, "_STACK_VALUES", values)
    rng = np.random.default_rng(6)
    sizes = tuple(np.maximum(1, rng.lognormal(np.log(50), 0.8, 10).astype(int)).tolist())
    build, training, parts, start = make_problem(name, sizes=sizes, rate=0.15, steps=2, proximal=0.1)
    compare_packings(build("stacked", training=training), parts, start, 3, rng)


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


@pytest.mark.parametrize("name", ["shipped cnn", "residual images", "mlp"])
def test_a_batch_that_fills_the_memory_is_treated_in_parts(monkeypatch, name):
    """Parts of a step's batch, and of a convolution's patches, add up to the whole."""
    build, training, parts, start = make_problem(name, sizes=(40, 3, 25), rate=0.5, steps=2, noise=0.0)
    whole = build("stacked", training=training).train(start, make_jobs(parts, range(3)))
    monkeypatch.setattr(packing, "_STACK_VALUES", 1)
    monkeypatch.setattr(packing, "_PART_VALUES", 1)
    monkeypatch.setattr(conv, "_PATCH_VALUES", 1)
    in_parts = build("stacked", training=training).train(start, make_jobs(parts, range(3)))
    np.testing.assert_allclose(in_parts, whole, rtol=2e-5, atol=2e-6)
