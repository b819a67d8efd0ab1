"""Tables: noise, missing values and other mixes of records are what they say; a second domain has the same schema."""

from dataclasses import replace

import numpy as np
import pytest
from kinds_of_task import make_subject, make_task

from fedsafe.assess.corruptions import tables
from fedsafe.assess.corruptions.assessor import Corruptions
from fedsafe.assess.corruptions.domains import load_domain
from fedsafe.data import Examples
from fedsafe.errors import DataError


def run(subject, tier="full", seed=0, **options):
    return Corruptions(**options)(subject, rng=np.random.default_rng(seed), tier=tier)


def test_noise_moves_only_what_a_person_can_change_by_its_share_of_the_range(linear, inputs, judged):
    x = 0.2 * inputs(20_000)
    subject = judged(linear(np.ones(6), 0.0), x, np.arange(20_000) % 2)
    found = tables.noise(subject, subject.evaluation.x, 2, np.random.default_rng(0))
    assert np.array_equal(found[:, 4:], subject.evaluation.x[:, 4:])
    moved = found[:, :4] - subject.evaluation.x[:, :4]
    assert moved.std() == pytest.approx(0.05 * 2, rel=0.02)  # the range is [-1, 1]


def test_missing_values_become_what_the_schema_says(linear, inputs, judged):
    x = inputs(5000)
    subject = judged(linear(np.ones(6), 0.0), x, np.arange(5000) % 2)
    found = tables.missing(subject, x, 3, np.random.default_rng(0))
    filled = found[:, 0] == 0.0  # the middle of the bounds
    assert np.mean(filled) == pytest.approx(0.2, abs=0.02)
    assert np.array_equal(found[~filled, 0], x[~filled, 0])
    assert (found[:, 4:].sum(axis=1) == 1).all()
    females = np.mean(found[:, 4] == 1)
    assert females == pytest.approx(np.mean(x[:, 4]) * 0.8 + 0.2, abs=0.02)  # the category of unknown values


def test_tilting_moves_the_mean_by_a_standard_deviation(linear, inputs, judged):
    x = inputs(20_000)
    x[:, 0] = np.clip(np.random.default_rng(1).normal(0.1, 0.2, 20_000), -1, 1)
    subject = judged(linear(np.ones(6), 0.0), x, np.arange(20_000) % 2)
    weights = {(name, way): w for name, way, w in tables.tilts(subject)}
    assert {name for name, _ in weights} == {"a0", "a1", "a2", "a3"}
    for way, sign in (("up", 1), ("down", -1)):
        w = weights["a0", way]
        assert np.sum(w * x[:, 0]) / w.sum() == pytest.approx(0.1 + sign * 0.2, abs=0.01)


def test_accuracy_under_a_tilt_is_that_of_records_drawn_so_and_its_interval_covers(linear, inputs, judged):
    """Wrong with probability 0.1 below 0 and 0.4 above: the truth under any mix of the two is known."""
    covered, n = 0, 400
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x = inputs(n, seed)
        above = x[:, 0] > 0
        wrong = rng.random(n) < np.where(above, 0.4, 0.1)
        subject = judged(linear([0, 0, 0, 0, -1.0, 1.0], 0.0), x, ((x[:, 5] > 0.5) ^ wrong).astype(np.int64))
        (finding,) = [
            f
            for f in run(subject, tier="cheap")
            if f.where == {"corruption": "tilt", "feature": "a0", "direction": "up"}
        ]
        # Uniform on [-1, 1], tilted by sqrt(3) a: the share above 0 is e^s / (1 + e^s) with s = sqrt(3).
        share = np.exp(np.sqrt(3)) / (1 + np.exp(np.sqrt(3)))
        truth = 1 - (0.4 * share + 0.1 * (1 - share))
        covered += finding.interval[0] <= truth <= finding.interval[1]
    assert 0.90 <= covered / 200 <= 0.99


def test_a_mix_of_too_few_records_is_insufficient(linear, inputs, judged):
    x = inputs(60)
    x[:, 0] = -0.5
    x[:1, 0] = 1.0
    subject = judged(linear(np.ones(6), 0.0), x, np.arange(60) % 2)
    found = {f.where["direction"]: f for f in run(subject) if f.where.get("feature") == "a0"}
    assert found["up"].status == "insufficient"
    assert "weigh as much as" in found["up"].reason


def test_regression_is_measured_in_the_targets_unit():
    subject = make_subject("regression")
    findings = run(subject)
    single = [f for f in findings if f.metric == "corruptions.absolute_error"]
    assert {f.where["corruption"] for f in single} == {"noise", "missing", "tilt"}
    outputs = subject.logits(subject.evaluation.x)[:, 0]
    clean = np.mean(np.abs(outputs - subject.evaluation.y)) * 25.0
    assert single[0].anchors["clean"] == pytest.approx(clean)
    assert not [f for f in findings if f.metric == "corruptions.mean_error"]
    (relative,) = [f for f in findings if f.metric == "corruptions.relative_error"]
    assert relative.detail["baseline"] == "ridge on one half of the evaluation records for the other"
    assert relative.value > 0.9  # the model is not trained
    few = replace(subject, evaluation=subject.evaluation.take(np.arange(40)), shards=None)
    (relative,) = [f for f in run(few) if f.metric == "corruptions.relative_error"]
    assert (relative.status, "too few" in relative.reason) == ("insufficient", True)


def test_a_second_domain_is_measured_beside_the_first(monkeypatch):
    subject = make_subject("binary")
    elsewhere = make_task("binary", 300).evaluation
    flipped = replace(elsewhere, y=1 - subject.predict(elsewhere.x))
    monkeypatch.setattr("kinds_of_task.elsewhere", lambda: flipped, raising=False)
    (finding,) = [f for f in run(subject, shift="kinds_of_task:elsewhere") if "domain" in f.where]
    assert (finding.value, finding.n) == (0.0, 300)
    assert "kinds_of_task:elsewhere" in finding.data
    assert finding.released  # nobody declared these records public
    public = make_task("binary", 300)
    monkeypatch.setattr("kinds_of_task.public", lambda: public, raising=False)
    (finding,) = [f for f in run(subject, shift="kinds_of_task:public") if "domain" in f.where]
    assert finding.released is None
    assert finding.anchors["clean"] == pytest.approx(finding.anchors["clean"])


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (lambda: 7, "not Examples or a Task"),
        (lambda: make_task("regression"), "is regression"),
        (lambda: make_task("multiclass"), "is multiclass"),
        (lambda: Examples(x=np.zeros((3, 5)), y=np.arange(3)), "inputs of shape"),
        (lambda: Examples(x=np.zeros((3, 6)), y=np.arange(3)), "labels outside"),
    ],
)
def test_a_domain_that_does_not_fit_is_one_line(monkeypatch, found, message):
    monkeypatch.setattr("kinds_of_task.unfit", found, raising=False)
    subject = make_subject("binary")
    with pytest.raises(DataError, match=message):
        load_domain(subject, "kinds_of_task:unfit")
    (finding,) = [f for f in run(subject, tier="cheap", shift="kinds_of_task:unfit") if "domain" in f.where]
    assert finding.status == "failed"
    assert message in finding.reason
