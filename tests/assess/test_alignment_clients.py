"""What turning preferences round does to the run's own rule, and what people's own parameters give them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from preference_subjects import MERIT, NOTHING, FirstFeature, make_subject, make_task

from fedsafe.assess import ClientRecords, Federation, find_assessor
from fedsafe.assess.alignment.personal import client_of
from fedsafe.assess.alignment.poisoning import first_broken
from fedsafe.assess.clients import SIMULATORS_VIEW
from fedsafe.client import LocalTraining, build_objective
from fedsafe.errors import ConfigError
from fedsafe.models.reward import PairReward

PEOPLE, PAIRS = 40, 30


def logistic(subject):
    """A federation that is trained anew in closed form: the mean of what each label says of the first feature."""
    asked = []

    def again(targets, rounds, key):
        asked.append((targets, rounds, key))
        x = subject.task.train.x
        gap = x[:, 0] - x[:, 1]
        return [((2.0 * (y == 1) - 1.0)[y < 2] @ gap[y < 2] / len(y)).astype(np.float32) for y in targets]

    return again, asked


def simulated(task, model, local=(), again=None):
    subject = make_subject(model, task)
    rows = tuple(np.arange(PEOPLE * PAIRS).reshape(PEOPLE, PAIRS))
    federation = Federation(
        training=LocalTraining(learning_rate=1.0, steps=2, rate=0.5, clip=1.0, noise=0.0),
        trainer="stacked",
        objective=build_objective("cross_entropy", task.kind),
        initial=np.zeros(3, np.float32),
        participations=2,
        local=local,
        again=again,
    )
    return replace(
        subject, training=ClientRecords(examples=task.train, rows=rows), federation=federation, round=4
    )


def findings_of(subject, name="preference_poisoning", tier="full", **options):
    return find_assessor({"name": name, **options})(subject, rng=np.random.default_rng(0), tier=tier)


@pytest.mark.parametrize("ties", [False, True])
def test_a_mean_of_preferences_breaks_at_one_half_and_each_share_holds_the_smaller_ones(ties):
    task = make_task(noise=0.3, people=PEOPLE, pairs=PAIRS, ties=ties)
    subject = simulated(task, FirstFeature(MERIT, ties=ties))
    again, asked = logistic(subject)
    subject = replace(subject, federation=replace(subject.federation, again=again))
    findings = findings_of(subject, shares=[0.25, 0.45, 0.55])
    accuracies = [f.value for f in findings if f.metric.endswith(".accuracy")]
    assert min(accuracies[:3]) > 0.8
    assert accuracies[3] < 0.3
    (broken,) = [f for f in findings if f.metric.endswith(".breakdown_share")]
    assert broken.value == 0.55
    assert broken.resolution == pytest.approx(0.25)
    assert {f.released for f in findings} == {SIMULATORS_VIEW}
    ((targets, rounds, _),) = asked
    assert rounds == 4
    turned = [np.flatnonzero(y != targets[0]) for y in targets]
    for fewer, more in itertools.pairwise(turned):
        assert set(fewer) < set(more)
    assert len({row // PAIRS for row in turned[1]}) == 10
    assert all(np.array_equal(y == 2, targets[0] == 2) for y in targets)
    np.testing.assert_array_equal(targets[0], task.train.y)


def test_a_rule_that_is_not_broken_says_so_as_a_lower_bound():
    task = make_task(noise=0.3, people=PEOPLE, pairs=PAIRS)
    subject = simulated(task, FirstFeature(MERIT))
    again, _ = logistic(subject)
    subject = replace(subject, federation=replace(subject.federation, again=again))
    (broken,) = [f for f in findings_of(subject, shares=[0.2, 0.3]) if f.metric.endswith(".breakdown_share")]
    assert (broken.value, broken.bound, broken.detail["reached"]) == (0.3, "lower", False)


def test_nothing_is_said_of_a_gain_that_is_none_or_where_nothing_trains_anew():
    task = make_task(noise=100.0, people=PEOPLE, pairs=PAIRS)
    subject = simulated(task, FirstFeature(NOTHING), again=lambda targets, *_: [np.zeros(3, np.float32)] * 6)
    status = {f.metric.split(".")[1]: f.status for f in findings_of(subject)}
    assert status == {
        "accuracy": "measured",
        "breakdown_share": "insufficient",
        "share_to_chance": "insufficient",
    }
    for other, tier in ((subject, "cheap"), (simulated(task, FirstFeature(MERIT)), "full")):
        assert {f.status for f in findings_of(other, tier=tier)} == {"not_applicable"}
        assert find_assessor("preference_poisoning").plan(other, tier).forward == 0
    with pytest.raises(ConfigError, match="increasing shares"):
        findings_of(subject, shares=[0.3, 0.2])
    with pytest.raises(ConfigError, match="increasing shares"):
        findings_of(subject, shares=["many"])


def test_the_first_share_that_breaks_is_found():
    totals = np.array([[100.0, 90, 80, 69, 40], [100, 90, 90, 90, 90], [100, 90, 60, 90, 10]])
    shares = (0.0, 0.1, 0.2, 0.3)
    np.testing.assert_array_equal(first_broken(totals, shares, 0.5), [0.2, np.inf, 0.1])
    np.testing.assert_array_equal(first_broken(totals, shares, 0.0), [0.3, np.inf, 0.3])


def test_people_who_differ_gain_from_parameters_of_their_own_and_people_who_do_not_gain_nothing():
    def gain(turned):
        task = make_task(noise=0.3, people=PEOPLE, pairs=PAIRS, turned=turned)
        model = PairReward(3, heads=2)
        with torch.no_grad():
            model.head.weight.copy_(torch.tensor([MERIT, [-value for value in MERIT]]))
        found = findings_of(simulated(task, model, local=("assignment",)), "personal_alignment", "cheap")
        return {f.metric.split(".")[1]: f for f in found}

    mixed = gain(PEOPLE // 2)
    assert mixed["accuracy"].value > 0.85
    assert mixed["accuracy"].anchors["shared"] < 0.6  # both heads together say nothing
    assert mixed["gain"].interval[0] > 0.2
    assert mixed["worst_decile_accuracy"].value > mixed["worst_decile_accuracy"].anchors["shared"]
    task = make_task(noise=0.3, people=PEOPLE, pairs=PAIRS)
    model = PairReward(3)
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([MERIT]))
    found = findings_of(simulated(task, model, local=("position",)), "personal_alignment", "cheap")
    assert abs(next(f for f in found if f.metric.endswith(".gain")).value) < 0.05


def test_nothing_is_personal_without_local_parameters_or_people_as_clients():
    task = make_task(people=PEOPLE, pairs=PAIRS)
    subject = simulated(task, PairReward(3))
    assert {f.status for f in findings_of(subject, "personal_alignment")} == {"not_applicable"}
    mixed = ClientRecords(examples=task.train, rows=(np.arange(PEOPLE * PAIRS),))
    assert client_of(mixed) == {}
    subject = replace(simulated(task, PairReward(3), local=("position",)), training=mixed)
    subject = replace(subject, federation=replace(subject.federation, own=None))
    assert "annotator" in findings_of(subject, "personal_alignment")[0].reason
