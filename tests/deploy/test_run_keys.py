"""Who finds a noise key can take the noise out of what was sent: a run that is over has none any more."""

import pytest
from hospitals import Hospital, composed, experiment, fold, refused

from fedsafe.apps.joining import JOINED
from fedsafe.apps.packing import pack_request
from fedsafe.federation.messages import instruction_content, pack_parameters


@pytest.fixture
def hospital(tmp_path):
    made = Hospital(tmp_path / "north")
    yield made
    made.gate.close()


def kept(hospital):
    state = hospital.folder / "state"
    return [path for name in ("keys", "experiments") for path in (state / name).rglob("*")]


def packed(hospital, round, shift=0.0):
    parts, plan = composed(hospital.text)
    model = pack_parameters(parts.initial + parts.initial.dtype.type(shift), parts.layout)
    content = pack_request(instruction_content(model, round=round, plan=plan.hash), hospital.run)
    return hospital.deliver(content, "train")


def test_the_key_is_there_as_long_as_something_may_be_released(hospital):
    for round in (1, 2):
        hospital.ask(round)
        assert any(path.name == "noise.key" for path in kept(hospital))
    hospital.ask(3)
    assert kept(hospital) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_is_over_is_answered_from_what_is_stored(hospital, restarted):
    replies = [hospital.ask(round) for round in (1, 2, 3)]
    if restarted:
        hospital.restart()
    events = hospital.kinds()
    for round, reply in enumerate(replies, 1):
        assert fold(hospital.ask(round)) == fold(reply)
    assert hospital.join().content.config_records[JOINED]["client"] == 0
    assert refused(hospital.ask(3, shift=0.5)) == "round_already_released"
    assert refused(hospital.ask(4)) == "outside_plan"
    assert hospital.kinds() == [*events, "refusal", "refusal"]
    assert kept(hospital) == []


@pytest.mark.parametrize("restarted", [False, True])
def test_packed_requests_of_a_run_that_is_over(hospital, restarted):
    hospital.join()
    replies = [packed(hospital, round) for round in (1, 2, 3)]
    assert kept(hospital) == []
    if restarted:
        hospital.restart()
    assert packed(hospital, 3).content.object_id == replies[2].content.object_id
    assert refused(packed(hospital, 3, shift=0.5)) == "round_already_released"
    assert kept(hospital) == []


def test_another_experiment_in_a_run_that_is_over(hospital):
    for round in (1, 2, 3):
        hospital.ask(round)
    hospital.text = experiment(hospital.folder, client__steps=1)
    assert refused(hospital.join()) == "experiment_not_allowed"


def test_a_gate_that_was_killed_before_it_deleted_the_key_does_it_when_it_is_asked_again(
    hospital, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(type(hospital.gate._keys), "forget", lambda self, run: None)
        replies = [hospital.ask(round) for round in (1, 2, 3)]
    assert kept(hospital)
    hospital.restart()
    assert fold(hospital.ask(3)) == fold(replies[2])
    assert kept(hospital) == []


def test_a_key_that_is_lost_in_the_middle_of_a_run_is_not_made_again(hospital):
    hospital.ask(1)
    (key,) = (path for path in kept(hospital) if path.name == "noise.key")
    key.unlink()
    hospital.restart()
    assert hospital.ask(2).has_error()
    assert hospital.kinds().count("release") == 1
