"""The cheap assessment of the shipped Adult data, where a logistic model's robustness is known exactly."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from fedsafe.assess import DEFAULT, Requirement, Subject, judge, run_assessors
from fedsafe.data import load_task, partition


@pytest.fixture(scope="module")
def subject() -> Subject:
    task = load_task("adult")
    model = nn.Linear(task.train.x.shape[1], 1)
    x, y = torch.tensor(task.train.x), torch.tensor(task.train.y).float()
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    for step in range(60):
        if step == 40:
            previous = copy.deepcopy(model).eval()
        optimizer.zero_grad()
        functional.binary_cross_entropy_with_logits(model(x)[:, 0], y).backward()
        optimizer.step()
    shards = partition(task.evaluation.y, 200, {"name": "dirichlet", "by": "label", "alpha": 1.0}, 0)
    return Subject(
        model=model.eval(),
        task=task,
        evaluation=task.evaluation,
        evaluation_name=task.evaluation_name,
        shards=tuple(shards),
        claims=({"unit": "record", "epsilon": 3.0, "delta": 1e-5},),
        round=1,
        previous=previous,
    )


@pytest.fixture(scope="module")
def findings(subject):
    found = run_assessors(subject, DEFAULT, rng_seed=0, tier="cheap")
    return [finding for group in found.values() for finding in group]


def test_everything_is_measured_but_the_groups_that_are_too_small(findings):
    # Nobody has judged pairs of these records.
    assert {f.status for f in findings if f.metric.startswith("alignment.")} == {"not_applicable"}
    findings = [f for f in findings if not f.metric.startswith("alignment.")]
    odd = {(f.status, f.where.get("group")) for f in findings if f.status != "measured"}
    assert ("insufficient", "Other") in odd
    assert ("insufficient", "Female & Other") in odd
    assert {status for status, _ in odd} == {"insufficient"}
    assert {f.data for f in findings} == {"UCI Adult test split (public)", "the run's claims"}


def test_known_facts_about_adult(findings):
    by_name = {(f.metric, f.where.get("group")): f for f in findings if not f.metric.startswith("robust")}
    accuracy = by_name["performance.accuracy", None]
    assert 0.83 < accuracy.value < 0.87
    assert accuracy.anchors["majority_class"] == pytest.approx(0.7638, abs=1e-4)
    assert by_name["fairness.accuracy", "Female"].n == 5421
    assert by_name["fairness.accuracy", "Male"].n == 10860
    requirement = Requirement(
        metric="fairness.demographic_parity_difference", where={"attribute": "sex"}, op="<=", threshold=0.1
    )
    assert judge(requirement, findings).verdict == "fail"


def test_attack_equals_the_exact_robust_accuracy_of_the_logistic_model(subject, findings):
    weight = subject.model.weight.detach().numpy().astype(np.float64)[0]
    low, high = subject.input_bounds()
    examples = subject.evaluation.take(subject.shared_rows(2000))
    x, sign = examples.x.astype(np.float64), np.where(examples.y == 1, 1.0, -1.0)
    margin = sign * subject.logits(examples.x)[:, 0]
    curve = [f for f in findings if f.where.get("attack") == "pgd"]
    assert len(curve) == 6
    for finding in curve:
        radius = finding.where["radius"]
        up, down = np.minimum(radius, high - x), np.minimum(radius, x - low)
        room = np.where(sign[:, None] * weight > 0, down, up) * subject.perturbable()
        exact = np.mean(margin - room @ np.abs(weight) > 0)
        assert finding.value == pytest.approx(exact, abs=1e-9)
