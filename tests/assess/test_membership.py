"""The loss attack finds a memorising model, nothing in one that never saw the records, and says what it resolves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from kinds_of_task import make_subject
from scipy import special
from torch import nn

from fedsafe.assess import ClientRecords
from fedsafe.assess.clients import SIMULATORS_VIEW
from fedsafe.assess.privacy.membership import Membership
from fedsafe.data import Examples

RATE = "true_positive_rate"


class Echo(nn.Module):
    """Its logit is its first feature: the loss of a record with label 1 follows from it."""

    def forward(self, x):
        return x[:, :1]


def told(members, others, **fields):
    """A subject whose members and non-members have the given logits of the true class."""

    def examples(logits):
        x = np.zeros((len(logits), 6))
        x[:, 0] = logits
        return Examples(x=x, y=np.ones(len(logits), np.int64))

    base = make_subject("binary", Echo())
    rows = (np.arange(len(members)),)
    own = replace(base.federation, own=None)
    training = ClientRecords(examples=examples(members), rows=rows)
    values = {"training": training, "federation": own, "claims": (), **fields}
    return replace(base, evaluation=examples(others), shards=None, **values)


def run(subject, seed=0, **options):
    findings = Membership(**options)(subject, rng=np.random.default_rng(seed), tier="cheap")
    return {(f.metric.removeprefix("membership."), f.where.get("false_positive_rate")): f for f in findings}


def test_a_memorising_model_is_found():
    rng = np.random.default_rng(0)
    found = run(told(rng.normal(4, 1, 1200), rng.normal(0, 1, 1500), federation=None))
    assert found["auc", None].value == pytest.approx(0.9977, abs=0.003)  # Phi(4 / sqrt 2)
    # The threshold is the members' mean loss, where the logit is t.
    z = np.random.default_rng(9).normal(4, 1, 100_000)
    t = -np.log(np.expm1(np.log1p(np.exp(-z)).mean()))
    exact = special.ndtr(4 - t) - special.ndtr(-t)
    assert found["advantage", None].value == pytest.approx(exact, abs=0.04)
    rate = found[RATE, 0.01]
    assert rate.value == pytest.approx(0.953, abs=0.03)  # Phi(4 - 2.326)
    assert rate.interval[0] > 0.9
    for finding in found.values():
        assert finding.released == SIMULATORS_VIEW
        assert "not released" in finding.released
        assert finding.bound == "lower" or finding.status == "insufficient"


def test_a_model_that_never_saw_the_records_shows_nothing_within_its_intervals():
    rng, inside, runs = np.random.default_rng(1), np.zeros(3), 300
    for _ in range(runs):
        found = run(told(rng.normal(0, 1, 1000), rng.normal(0, 1, 1000), federation=None))
        for place, (key, truth) in enumerate(((("auc", None), 0.5), (("advantage", None), 0.0))):
            low, high = found[key].interval
            inside[place] += low <= truth <= high
        inside[2] += (
            found[RATE, 0.01].interval[0]
            <= 0.01 + found[RATE, 0.01].diagnostics["false_positive_rate_at_most"]
        )
    assert (inside >= 0.92 * runs).all()


def test_before_training_the_attack_is_at_chance():
    subject = make_subject("binary")
    found = run(subject)
    before = found["auc", None].anchors["before_training"]
    low, high = found["auc", None].interval
    assert abs(before - 0.5) < high - low


@pytest.mark.parametrize(("others", "status"), [(999, "insufficient"), (1000, "measured")])
def test_a_rate_is_told_only_where_ten_false_positives_are_expected(others, status):
    rng = np.random.default_rng(2)
    found = run(told(rng.normal(1, 1, 400), rng.normal(0, 1, others)))
    assert found[RATE, 0.01].status == status
    assert (found[RATE, 0.001].status, found[RATE, 0.001].value) == ("insufficient", None)
    assert "10000 are needed" in found[RATE, 0.001].reason


def test_the_rate_is_a_count_and_ties_let_no_more_pass():
    members = np.array([5.0] * 30 + [1.0] * 70)
    others = np.array([9.0] * 8 + [5.0] * 30 + [0.0] * 962)
    finding = run(told(members, others))[RATE, 0.01]
    # Ten may pass, but the ninth to the thirty-eighth are tied: only eight do, and no member is above them.
    assert (finding.value, finding.n, finding.diagnostics["false_positive_rate"]) == (0.0, 100, 0.008)
    finding = run(told(members, others), rates=(0.05,))[RATE, 0.05]
    assert (finding.value, finding.diagnostics["false_positive_rate"]) == (1.0, 0.038)


def test_the_accounted_budget_stands_beside_what_was_found():
    rng = np.random.default_rng(3)
    claims = ({"unit": "record", "epsilon": 1.0, "delta": 1e-5},)
    found = run(told(rng.normal(0, 1, 500), rng.normal(0, 1, 2000), claims=claims))
    assert found[RATE, 0.01].anchors["accounted"] == pytest.approx(math.e * 0.01 + 1e-5)
    # The largest advantage at (epsilon, delta): (e^eps - 1 + 2 delta) / (e^eps + 1).
    largest = (math.e - 1 + 2e-5) / (math.e + 1)
    assert found["advantage", None].anchors["accounted"] == pytest.approx(largest)
    assert "accounted" not in run(told(np.ones(50), np.ones(50)))["advantage", None].anchors


def test_without_training_records_or_with_few_nothing_is_said():
    subject = make_subject("binary")
    assert {f.status for f in run(replace(subject, training=None, federation=None)).values()} == {
        "not_applicable"
    }
    found = run(told(np.ones(29), np.ones(500)))
    assert {(f.status, f.value) for f in found.values()} == {("insufficient", None)}


@pytest.mark.parametrize("kind", ["multiclass", "regression", "next_token"])
def test_training_to_memorise_is_found_for_every_kind(kind):
    subject = make_subject(kind)
    x, y = (torch.tensor(part) for part in (subject.task.train.x, subject.task.train.y))
    held = torch.tensor(subject.training.held[:60])
    noise = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    y[held] = y[held][noise]  # nothing but memory can predict these
    train = replace(subject.task.train, y=y.numpy())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        width = 96
        head = subject.task.signature.outputs
        first = nn.Embedding(5, 16) if kind == "next_token" else nn.Identity()
        flat = 96 if kind == "next_token" else x[0].numel()
        model = nn.Sequential(
            first, nn.Flatten(), nn.Linear(flat, width), nn.Tanh(), nn.Linear(width, int(np.prod(head)))
        )
        model.append(nn.Unflatten(1, head))
        optimizer = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(200):
            optimizer.zero_grad()
            subject.federation.objective(model, (x[held], y[held])).mean().backward()
            optimizer.step()
    training = ClientRecords(examples=train, rows=(held.numpy(),))
    memory = replace(subject, model=model.eval(), training=training, federation=None)
    found = run(memory)
    assert found["auc", None].interval[0] > 0.7
    assert found["advantage", None].interval[0] > 0.3
