"""Likelihood ratios against slow oracles, shadow models as one stack, and what LiRA finds of known truths."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject
from memorising import federated, never_trained
from scipy import stats

from fedsafe.assess.privacy.lira import confidence, halves, likelihood_ratios
from fedsafe.assess.privacy.membership import Membership
from fedsafe.assess.privacy.roc import curve
from fedsafe.assess.privacy.shadows import recipe_of, train_shadows
from fedsafe.client import ClientJob, build_trainer
from fedsafe.errors import ConfigError
from fedsafe.privacy.accounting import calibrate_noise
from fedsafe.rng import Stream, StreamId

AUC, RATE = "membership.auc", "membership.true_positive_rate"


def run(subject, seed=0, **options):
    findings = Membership(**options)(subject, rng=np.random.default_rng(seed), tier="full")
    return {(f.metric, f.where["attack"], f.where.get("false_positive_rate")): f for f in findings}


def test_confidence_is_the_logit_of_the_true_class():
    p = np.array([1e-6, 0.2, 0.5, 0.999])
    assert confidence("binary", -np.log(p)) == pytest.approx(np.log(p / (1 - p)))
    assert np.isfinite(confidence("multiclass", np.array([0.0, 1e-300, 900.0]))).all()
    assert confidence("regression", np.array([2.0])) == -2.0


@pytest.mark.parametrize(("shadows", "own"), [(16, False), (128, True)])
def test_likelihood_ratios_are_those_of_a_loop(shadows, own):
    rng = np.random.default_rng(0)
    values, target = rng.normal(size=(shadows, 30)), rng.normal(size=30)
    inside = halves(shadows, 30, rng)
    groups = [[values[mask[:, i], i] for i in range(30)] for mask in (inside, ~inside)]
    if own:
        deviations = [[group.std(ddof=1) for group in side] for side in groups]
    else:  # one for all, from the records' own means
        pooled = [math.sqrt(np.mean([group.var(ddof=1) for group in side])) for side in groups]
        deviations = [[deviation] * 30 for deviation in pooled]
    online, offline = [], []
    for i in range(30):
        (with_it, without), (first, second) = [side[i] for side in groups], [d[i] for d in deviations]
        densities = (
            stats.norm.logpdf(target[i], with_it.mean(), first),
            stats.norm.logpdf(target[i], without.mean(), second),
        )
        online.append(densities[0] - densities[1])
        offline.append((target[i] - without.mean()) / second)
    assert likelihood_ratios(target, values, inside, online=True) == pytest.approx(np.array(online))
    assert likelihood_ratios(target, values, inside, online=False) == pytest.approx(np.array(offline))


def test_each_record_is_in_half_of_the_models_and_models_differ():
    inside = halves(32, 4000, np.random.default_rng(0))
    assert (inside.sum(0) == 16).all()
    assert (np.abs(inside.mean(1) - 0.5) < 0.05).all()
    together = np.corrcoef(inside.astype(float)) - np.eye(32)
    assert np.abs(together).max() < 0.12  # -1/31 on average


def test_shadow_models_of_one_stack_are_those_trained_one_by_one():
    subject = make_subject("binary")
    federation, examples = subject.federation, subject.training.examples
    recipe = recipe_of(federation, 3, 24, 480, 10_000)
    chosen = [np.sort(np.random.default_rng(i).choice(480, 240, replace=False)) for i in range(6)]
    stack = train_shadows(subject, federation, examples, chosen, recipe, np.random.default_rng(3))
    assert np.ptp(stack, axis=0).max() > 0
    key = np.random.default_rng(3).bytes(32)
    module = subject.with_parameters(federation.initial).model.train()
    x, y = torch.tensor(examples.x), torch.tensor(examples.y)
    for shadow, rows in enumerate(chosen):
        trainer = build_trainer("opacus", module, federation.objective, x, y, recipe.training)
        batches, noise = (
            Stream(key, StreamId(purpose=f"shadow: {purpose}", client=shadow, round=0, digest=b""))
            for purpose in ("batches", "noise")
        )
        job = ClientJob(client=shadow, records=rows, batches=batches, noise=noise)
        alone = trainer.train(federation.initial, [job])[0]
        assert stack[shadow] == pytest.approx(alone, abs=2e-5)


def test_a_shadow_takes_the_steps_of_the_run_with_the_noise_of_its_mean():
    federation = make_subject("binary").federation  # 2 steps, rate 0.25, noise 0.3, 2 of 3 rounds
    recipe = recipe_of(federation, 3, 24, 480, 10**9)
    assert recipe.training.steps == 6
    assert recipe.batch == recipe.asked == pytest.approx(16 * 5)  # 16 clients, 5 records each
    # Sixteen sums, each with noise 0.3, over the records of all.
    assert recipe.training.noise / recipe.batch == pytest.approx(0.3 / 5 / math.sqrt(16))
    less = recipe_of(federation, 3, 24, 480, 60)
    assert (less.batch, less.passes) == (10.0, 60)
    assert less.training.noise / less.batch == pytest.approx(recipe.training.noise / recipe.batch)


def test_the_curve_is_the_loop_over_thresholds_from_the_smallest_rate_that_counts():
    rng = np.random.default_rng(1)
    members, others = rng.normal(1, 1, 300), np.round(rng.normal(0, 1, 1000), 1)
    rows = curve(members, others)
    rates = [row["false_positive_rate"] for row in rows]
    assert (rates[0], rates[-1]) == (0.01, 1.0)
    for row in rows:
        allowed = row["false_positive_rate"] * len(others)
        best = max(
            [np.mean(members > t) for t in others if np.sum(others > t) <= allowed + 1e-6]
            + [1.0 if allowed >= len(others) else 0.0]
        )
        assert row["true_positive_rate"] == pytest.approx(best)


@pytest.fixture(scope="module")
def overfitted():
    return run(federated(seed=0))


def test_on_an_overfitted_model_it_beats_the_loss_threshold(overfitted):
    threshold = overfitted[RATE, "loss threshold", 0.01]
    for name in ("LiRA online", "LiRA offline"):
        lira = overfitted[RATE, name, 0.01]
        assert lira.interval[0] > threshold.interval[1]
        assert lira.interval[0] > lira.diagnostics["false_positive_rate_at_most"]
        assert overfitted[AUC, name, None].value > overfitted[AUC, "loss threshold", None].value
        # 1,000 others do not resolve a rate of 0.1 %.
        assert overfitted[RATE, name, 0.001].status == "insufficient"
    detail = overfitted[AUC, "LiRA online", None].detail
    assert detail["shadows"] == 32
    assert detail["training_of_a_shadow"]["steps"] > 0
    assert detail["curve"][0]["false_positive_rate"] == 0.01


def test_under_noise_at_epsilon_3_it_finds_chance():
    # 8 rounds of 5 steps in which every client takes part.
    noise = calibrate_noise(3.0, 1e-5, rate=0.4, count=40)
    claims = ({"unit": "record", "epsilon": 3.0, "delta": 1e-5},)
    found = run(replace(federated(seed=0, clip=1.0, noise=noise), claims=claims))
    low, high = found[RATE, "LiRA online", 0.01].interval
    assert low <= 0.01 <= high
    for name in ("LiRA online", "LiRA offline"):
        rate = found[RATE, name, 0.01]
        # The threshold is chosen on 1,000 others: of all, a few more may lie above it.
        assert rate.interval[0] <= rate.diagnostics["false_positive_rate_at_most"]
        assert rate.anchors["accounted"] > rate.value
        assert found[AUC, name, None].interval[0] <= 0.53


def test_of_a_model_that_never_saw_the_records_the_interval_holds_one_half():
    found = run(never_trained(seed=0))
    for name in ("loss threshold", "LiRA online", "LiRA offline"):
        low, high = found[AUC, name, None].interval
        assert low <= 0.5 <= high, name
        low, high = found[RATE, name, 0.01].interval
        assert low <= 0.01 + found[RATE, name, 0.01].diagnostics["false_positive_rate_at_most"]


def test_shadow_models_that_diverge_are_named():
    subject = federated(seed=0, rounds=1)
    wild = replace(subject.federation, training=replace(subject.federation.training, learning_rate=1e30))
    found = run(replace(subject, federation=wild), shadows=4)
    for name in ("LiRA online", "LiRA offline"):
        assert found[AUC, name, None].status == "failed"
        assert "diverged" in found[AUC, name, None].reason


def test_no_shadows_leave_lira_out_and_odd_numbers_are_refused():
    subject = make_subject("binary")
    assert not [f for f in run(subject, shadows=0).values() if "LiRA" in f.where["attack"]]
    with pytest.raises(ConfigError, match="even number"):
        Membership(shadows=5)
