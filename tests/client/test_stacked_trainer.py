"""The stacked trainer alone: no packing changes a bit, nothing is cut off, and it agrees with Opacus."""

import copy

import numpy as np
import pytest
import torch
from scipy import stats
from stacked_models import CASES
from training_problems import FOR_OPACUS, TRAINERS, compare_packings, make_jobs, make_problem

from fedsafe.client import ClientJob, LocalTraining
from fedsafe.client.objectives import cross_entropy
from fedsafe.client.stacked import StackedTrainer, packing, stacked_trainer
from fedsafe.client.stacked.layers import conv_written
from fedsafe.client.stacked.packing import pack


@pytest.mark.parametrize("name", FOR_OPACUS)
def test_stacked_and_opacus_agree(name):
    build, training, parts, start = make_problem(name, sizes=(5, 40, 17, 1, 90), proximal=0.3)
    corrections = [None, np.linspace(-1.0, 1.0, len(start), dtype=np.float32), None, None, None]
    results = [
        build(trainer, training=training).train(start, make_jobs(parts, range(5), corrections=corrections))
        for trainer in TRAINERS
    ]
    for other in results[1:]:
        np.testing.assert_allclose(results[0], other, rtol=2e-5, atol=5e-6)


@pytest.mark.parametrize(
    ("values", "rooms", "clients"),
    # Where each is alone, whatever is given to train together, fewer show that what was before leaves no trace.
    [(2**9, [2**9], 6), (2**30, [1, 2**30], 10)],
    ids=["alone", "few and all"],
)
@pytest.mark.parametrize("name", CASES)
def test_no_packing_changes_a_bit_whatever_the_layers(monkeypatch, name, values, rooms, clients):
    """Whether the cache takes one client, a few or all of them."""
    monkeypatch.setattr(packing, "_SHARED_VALUES", values)
    rng = np.random.default_rng(6)
    sizes = tuple(np.maximum(1, rng.lognormal(np.log(50), 0.8, clients).astype(int)).tolist())
    build, training, parts, start = make_problem(name, sizes=sizes, rate=0.15, steps=2, proximal=0.1)
    found = []
    for room in rooms:
        monkeypatch.setattr(stacked_trainer, "room_of", lambda device, room=room: room)
        made, draws = build("stacked", training=training), copy.deepcopy(rng)
        # A client that is alone does not see how many the cache would take: once is enough.
        whole = compare_packings(made, parts, start, 1 if found else 2, draws, alone=not found)
        found.append(whole.view(np.int32))
    assert all(np.array_equal(found[0], other) for other in found)


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
    monkeypatch.setattr(
        packing,
        "poisson_batches_of",
        lambda streams, records, rate, steps: np.ones((len(streams), steps, records), bool),
    )
    build, training, parts, start = make_problem("relu", rate=0.05, noise=0.0)
    results = [build(t, training=training).train(start, make_jobs(parts, range(8))) for t in TRAINERS]
    np.testing.assert_allclose(results[0], results[1], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["shipped cnn", "residual images", "mlp"])
def test_a_batch_that_fills_the_memory_is_treated_in_parts(monkeypatch, name):
    """Parts of a step's batch, and of a convolution's patches, add up to the whole."""
    build, training, parts, start = make_problem(name, sizes=(40, 3, 25), rate=0.5, steps=2, noise=0.0)
    whole = build("stacked", training=training).train(start, make_jobs(parts, range(3)))
    monkeypatch.setattr(packing, "_SHARED_VALUES", 1)
    monkeypatch.setattr(packing, "_PART_VALUES", 1)
    monkeypatch.setattr(conv_written, "_PATCH_VALUES", 1)
    in_parts = build("stacked", training=training).train(start, make_jobs(parts, range(3)))
    np.testing.assert_allclose(in_parts, whole, rtol=2e-5, atol=2e-6)


def test_a_large_batch_is_cut_where_single_precision_would_pass_the_margin_and_added_in_double():
    """Records whose gradients all point one way make the longest sum; one more moves it by no more than the clip."""
    count, clip = 20_000, 1.0
    x, y = torch.full((count, 1), 3.0), torch.zeros(count, dtype=torch.int64)
    model = torch.nn.Linear(1, 1, bias=False)
    by = LocalTraining(learning_rate=1.0, steps=1, rate=1.0, clip=clip, noise=0.0)
    trainer = StackedTrainer(model, cross_entropy, (x, y), by)
    seen = []
    trainer._sum = lambda *arguments: seen.append(StackedTrainer._sum(trainer, *arguments)) or seen[-1]
    sums = []
    for records in (count, count - 1):
        seen.clear()
        (packed,) = pack([make_jobs([np.arange(records)], [0])[0]], by, 2)
        assert packed.size == 1
        assert max(rows.shape[1] for part in packed.steps for rows, _ in part) <= 4096
        trainer.train(np.full(1, 5.0, np.float32), make_jobs([np.arange(records)], [0]))
        assert len(seen) == 5
        sums.append(sum(part.double().item() for part in seen))
    assert 0.99 * clip < abs(sums[0] - sums[1]) <= clip
