"""Every assessor keeps the contract for every kind of task, whatever the model."""

import copy
import functools
import json
import random

import numpy as np
import pytest
import torch
from kinds_of_task import KINDS, Scaled, make_model, make_subject, make_task
from torch import nn

from fedsafe.assess import (
    ASSESSORS,
    DEFAULT,
    READS_CLIENTS,
    Assessor,
    Subject,
    assess_model,
    find_assessor,
    run_assessors,
)
from fedsafe.assess.clients import SIMULATORS_VIEW
from fedsafe.findings import METRICS, Finding

# Where an assessor has nothing to say of a task that has all it needs.
NOT_FOR = {
    "fairness": {"next_token"},
    # None of these tasks is of preferences.
    "alignment": {"binary", "multiclass", "regression", "next_token"},
    "preference_poisoning": {"binary", "multiclass", "regression", "next_token"},
    "personal_alignment": {"binary", "multiclass", "regression", "next_token"},
    "principles": {"multiclass", "next_token"},
    "robustness": {"regression", "next_token"},
    "certified": {"regression", "next_token"},
    "corruptions": {"next_token"},
    "interpretability": {"next_token"},
    "surrogate": {"multiclass", "next_token"},
    "consistency": {"next_token"},
    "inversion": {"next_token"},
}
EVERY = [(name, kind) for name in ASSESSORS for kind in KINDS]

EVERY_TIER = [*((*pair, "cheap") for pair in EVERY), *((name, "binary", "full") for name in ASSESSORS)]

every = pytest.mark.parametrize(("name", "kind"), EVERY)


# Records for the full tier, whose instruments cost most.
FEWER = 160


@pytest.fixture(scope="module")
def subjects():
    made = {(kind, "cheap"): make_subject(kind) for kind in KINDS}
    return {**made, ("binary", "full"): make_subject("binary", task=make_task("binary", FEWER))}


@pytest.fixture(scope="module")
def first(subjects):
    """``first(name, kind, tier)``: findings of one run, and the examples that it passed forward; run once."""

    @functools.cache
    def made(name, kind, tier):
        spent, forward = [], Subject.forward
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Subject, "forward", lambda self, x: spent.append(len(x)) or forward(self, x))
            return run(name, subjects[kind, tier], tier), sum(spent)

    return made


def fits(name, kind):
    return kind not in NOT_FOR.get(name, ())


def run(name, subject, tier="cheap", seed=1):
    return find_assessor(name)(subject, rng=np.random.default_rng(seed), tier=tier)


def check(name, findings):
    """What holds of findings of whatever model."""
    assert findings
    for finding in findings:
        assert isinstance(finding, Finding)
        assert finding.metric in METRICS
        assert finding.metric.startswith(f"{name}.")
        assert finding.data
        assert finding.released == (SIMULATORS_VIEW if name in READS_CLIENTS else None)
        assert Finding.from_json(json.loads(json.dumps(finding.to_json(), allow_nan=False))) == finding
        if finding.status == "measured":
            assert finding.value is not None
            if finding.interval is not None:
                low, high = finding.interval
                assert low - 1e-9 <= finding.value <= high + 1e-9
                assert finding.n
            else:
                assert finding.bound in ("exact", "upper") or finding.n == 1
        else:
            assert finding.value is None
            assert len(finding.reason) > 10
    keys = [(finding.metric, tuple(finding.where.items())) for finding in findings]
    assert len(keys) == len(set(keys))


def test_the_default_reads_no_private_records_and_the_rest_says_that_it_does(subjects):
    assert set(DEFAULT) == set(ASSESSORS) - READS_CLIENTS
    assert list(DEFAULT) == [name for name in ASSESSORS if name in DEFAULT]


@pytest.mark.parametrize(("name", "kind", "tier"), EVERY_TIER)
def test_findings_are_complete(first, name, kind, tier):
    assessor = find_assessor(name)
    assert isinstance(assessor, Assessor)
    assert assessor.name == name
    findings, _ = first(name, kind, tier)
    check(name, findings)
    statuses = {finding.status for finding in findings}
    if not fits(name, kind):
        assert statuses == {"not_applicable"}
        return
    assert "measured" in statuses
    assert not statuses & {"failed", "unreliable"}


@every
def test_plan_says_beforehand_what_is_spent(subjects, first, monkeypatch, name, kind):
    subject, asked = subjects[kind, "cheap"], []
    forward = Subject.forward
    monkeypatch.setattr(Subject, "forward", lambda self, x: asked.append(len(x)) or forward(self, x))
    for tier in ("cheap", "full"):
        cost = find_assessor(name).plan(subject, tier)
        assert not asked
        assert cost.description
        assert 0 <= cost.examples <= len(subject.evaluation) + len(subject.task.train)
        assert cost.backward >= 0
        if tier == "cheap":
            planned = cost.forward
    monkeypatch.undo()
    _, spent = first(name, kind, "cheap")
    if not fits(name, kind):
        assert (planned, spent) == (0, 0)
        assert "nothing" in find_assessor(name).plan(subject, "cheap").description
    elif name != "personalisation":  # its training does not pass through the subject
        assert spent <= planned <= max(1000, 12 * spent)


@pytest.mark.parametrize(("name", "kind", "tier"), EVERY_TIER)
def test_nothing_is_changed_and_findings_repeat(subjects, first, name, kind, tier):
    subject, (known, _) = subjects[kind, tier], first(name, kind, tier)
    models = (subject.model, subject.previous)
    before = [copy.deepcopy(model.state_dict()) for model in models]
    arrays = [subject.evaluation.x, subject.evaluation.y, subject.task.train.x, subject.federation.initial]
    kept = [array.copy() for array in arrays]
    torch.manual_seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002

    assert run(name, subject, tier) == known

    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()
    for model, state in zip(models, before, strict=True):
        assert not any(module.training for module in model.modules())
        assert list(model.state_dict()) == list(state)
        assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(np.array_equal(a, b) for a, b in zip(arrays, kept, strict=True))
    assert torch.is_grad_enabled()


@every
@pytest.mark.parametrize("factor", [0.0, 1e30], ids=["constant", "huge"])
def test_an_odd_model_raises_nothing_and_nothing_unmeasured_is_a_number(name, kind, factor):
    model = Scaled(make_model(kind), factor)
    findings = run(name, make_subject(kind, model))
    check(name, findings)
    if not fits(name, kind):
        assert {finding.status for finding in findings} == {"not_applicable"}
    elif factor == 0.0:
        measured = {finding.metric for finding in findings if finding.status == "measured"}
        assert not any(metric.startswith(("interpretability.", "consistency.")) for metric in measured)
        assert not measured & {"surrogate.kappa", "surrogate.gain_over_majority", "surrogate.r2"}


@every
def test_one_record_raises_nothing(name, kind):
    findings = run(name, make_subject(kind, task=make_task(kind, 1)))
    check(name, findings)


@every
def test_a_model_without_finite_outputs_fails_by_name(name, kind):
    subject = make_subject(kind, Scaled(make_model(kind), float("nan")))
    found = run_assessors(subject, [name], rng_seed=0, tier="cheap")[name]
    if not fits(name, kind):
        assert {finding.status for finding in found} == {"not_applicable"}
    elif name == "privacy":
        check(name, found)
    else:
        (finding,) = found
        assert (finding.metric, finding.status, finding.value) == ("assess.completed", "failed", None)
        assert finding.where == {"assessor": name}
        assert "not finite" in finding.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_judged_outside_a_run(kind):
    found = assess_model(make_model(kind).train(), make_task(kind), assessors=list(ASSESSORS), tier="cheap")
    assert list(found) == list(ASSESSORS)
    for name, findings in found.items():
        check(name, findings)
        assert not {"failed", "unreliable"} & {finding.status for finding in findings}
    measured = {name for name in found if any(f.status == "measured" for f in found[name])}
    outside = {
        "generalisation",
        "personalisation",
        "client_membership",
        "inversion",
        "privacy",
    }  # there are no clients and no claim
    assert measured == {name for name in ASSESSORS if fits(name, kind)} - outside
    assert list(assess_model(make_model(kind), make_task(kind), tier="cheap")) == list(DEFAULT)


def test_an_assessor_sees_copies_of_both_models(subjects):
    class Vandal:
        name = "vandal"

        def plan(self, subject, tier):
            raise NotImplementedError

        def __call__(self, subject, *, rng, tier):
            for model in (subject.model, subject.previous):
                nn.utils.vector_to_parameters(
                    torch.zeros_like(nn.utils.parameters_to_vector(model.parameters())), model.parameters()
                )
            return []

    subject = subjects["binary", "cheap"]
    before = [
        nn.utils.parameters_to_vector(m.parameters()).clone() for m in (subject.model, subject.previous)
    ]
    run_assessors(subject, [Vandal()], rng_seed=0, tier="cheap")
    after = [nn.utils.parameters_to_vector(m.parameters()) for m in (subject.model, subject.previous)]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
