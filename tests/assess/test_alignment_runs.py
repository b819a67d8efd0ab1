"""A run on preferences is held to the people who judged, and its federation trains again against some of them."""

import math

import pytest
from preference_subjects import make_task

import fedsafe
from fedsafe.assess.clients import SIMULATORS_VIEW

CONFIG = {
    "rounds": 4,
    "model": {"name": "reward"},
    "federation": {
        "partition": {"name": "natural", "by": "annotator"},
        "cohort": {"name": "poisson", "rate": 0.8},
    },
    "client": {
        "optimizer": {"name": "sgd", "lr": 2.0},
        "steps": 3,
        "rate": 0.5,
        "local": ["position"],
    },
    "server": {"aggregator": "noisy_mean"},
    "privacy": {
        "record": {"epsilon": math.inf},
        "client": {"epsilon": 50.0, "delta": 1e-3, "clip": 2.0},
        "noise_key": "seed",
    },
    "engine": {"name": "inline"},
    "assess": {
        "every": 4,
        "tier": "full",
        "assessors": [
            "alignment",
            {"name": "preference_poisoning", "shares": [0.2, 1.0]},
            "personal_alignment",
        ],
        "require": [
            {
                "metric": "alignment.gain_over_chance",
                "op": ">",
                "threshold": 0.0,
                "confidence": 0.99,
                "severity": "must",
            }
        ],
    },
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    task = make_task(noise=0.3, people=24, pairs=20)
    return fedsafe.run(CONFIG, data=task, out=tmp_path_factory.mktemp("preferences") / "run")


def test_people_and_chance_are_in_the_record_and_hold_the_release(run):
    found = run.findings()
    assert not set(found.status) & {"failed", "unreliable"}
    values = found[found.status == "measured"].set_index("metric").value
    assert values["alignment.gain_over_chance"] > 0.2
    assert values["alignment.human_ceiling"] > 0.7
    reading = (run.path / "report.html").read_text()
    assert "above chance" in reading
    assert "Whose preferences it learned" in reading


def test_the_federation_trained_again_is_turned_by_everybody_and_not_by_few(run):
    found = run.findings()
    curve = found[found.metric == "preference_poisoning.accuracy"]
    honest, few, all_of_them = curve.value
    assert honest > 0.75
    assert few > 0.6
    assert all_of_them < 0.3
    (broken,) = found[found.metric == "preference_poisoning.breakdown_share"].value
    assert broken in (0.2, 1.0)
    assert set(curve.released) == {SIMULATORS_VIEW}


def test_a_person_who_leans_to_neither_place_gains_nothing_from_a_leaning_of_her_own(run):
    found = run.findings()
    (gain,) = found[found.metric == "personal_alignment.gain"].value
    assert abs(gain) < 0.1
