"""Assessments that take more than their share come more rarely, which the record says and a resumed run keeps to."""

import pytest
from tiny_federation import config

from fedsafe.records import Round
from fedsafe.runs import make_config, resume, run
from fedsafe.runs import period as module
from fedsafe.runs.commit import Commit
from fedsafe.runs.period import ASSESSMENTS, Period
from fedsafe.store import RunFolder

SETTINGS = {"rounds": 8, "assess__every": 1, "assess__max_share": 1e-9}


def every(path):
    return [line.assess_every for line in RunFolder.open(path).record() if isinstance(line, Round)]


def assessed(path):
    return sorted({line["round"] for line in RunFolder.open(path).read("findings.jsonl")})


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "made", "")


def test_the_period_doubles_once_for_each_assessment_that_is_over_the_share(folder):
    period = Period(make_config(config(assess__every=10)), 100, folder)
    period.took(10, {"a": 6.0, "b": 5.0}, 100.0)  # 11 % of the time
    assert period.every == 10
    period.took(20, {"a": 10.0, "b": 10.0}, 150.0)  # 31 of 150 seconds
    assert period.every == 20
    assert [period.due(number) for number in (30, 40, 50, 100)] == [False, True, False, True]
    period.took(40, {"a": 1.0}, 1000.0)  # 32 of 1000 seconds
    assert period.every == 20
    seconds = [line["seconds"] for line in folder.read(ASSESSMENTS)]
    assert seconds[0] == {"a": 6.0, "b": 5.0}


def test_a_short_run_keeps_its_period(folder):
    period = Period(make_config(config(assess__every=2)), 8, folder)
    period.took(2, {"a": 4.0}, 5.0)
    period.took(4, {"a": 5.0}, 10.0)
    assert period.every == 2


def test_a_reproducible_run_keeps_its_period(folder):
    period = Period(make_config(config(assess__every=2, privacy__noise_key="seed")), 8, folder)
    period.took(2, {"a": 400.0}, 401.0)
    assert period.every == 2


def test_the_record_says_when_the_period_grew(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "NOTICEABLE", 0.0)
    done = run(config(**SETTINGS), out=tmp_path / "run")
    assert every(done.path) == [2, 4, 4, 8, 8, 8, 8, 8]
    assert assessed(done.path) == [1, 2, 4, 8]
    assert done.end.accepted == 8
    from fedsafe.report.acceptance import widened
    from fedsafe.report.reading import read_run

    said = widened(read_run(done.path))
    assert said.startswith(
        "The rounds between two assessments grew from 1 to 2 after round 1, to 4 after round 2"
    )


class Killed(Exception):
    """Stands for a crash."""


@pytest.mark.parametrize("crash", [2, 3])
def test_a_resumed_run_keeps_to_the_period_of_its_record(tmp_path, monkeypatch, crash):
    record = Commit.record

    def die(self, number, *rest):
        stopped = record(self, number, *rest)
        if number == crash:
            raise Killed
        return stopped

    with monkeypatch.context() as patch:
        patch.setattr(module, "NOTICEABLE", 0.0)
        patch.setattr(Commit, "record", die)
        with pytest.raises(Killed):
            run(config(**SETTINGS), out=tmp_path / "run")
    # On a machine as quick as one likes: what was decided stays.
    monkeypatch.setattr(module, "NOTICEABLE", 1e9)
    done = resume(tmp_path / "run")
    assert every(done.path) == [2, 4, 4, 4, 4, 4, 4, 4]
    assert assessed(done.path) == [1, 2, 4, 8]
    assert [line["round"] for line in RunFolder.open(done.path).read(ASSESSMENTS)] == [1, 2, 4, 8]
