"""A packed request is held to everything that another one is, and the two are one release."""

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from hospitals import THIN, Hospital, bundle, composed, fold, refused

from fedsafe.apps.nodes import EXPERIMENT, JOIN, RUN
from fedsafe.apps.packing import PACKED, pack_request, unpack_reply
from fedsafe.deploy.bundle import bundle_digest
from fedsafe.federation.messages import instruction_content, pack_parameters, read_upload


@pytest.fixture
def hospital(tmp_path):
    made = Hospital(tmp_path / "north")
    yield made
    made.gate.close()


def request(hospital, round=1, *, shift=0.0, run=None, **changes):
    parts, plan = composed(hospital.text)
    arrays = pack_parameters(parts.initial + np.float32(shift), parts.layout)
    content = pack_request(instruction_content(arrays, round=round, plan=plan.hash), run or hospital.run)
    for key, value in changes.items():
        if value is None:
            del content[PACKED][key]
        else:
            content[PACKED][key] = value
    return content


def ask(hospital, round=1, *, kind="train", beside=None, **changes):
    content = request(hospital, round, **changes)
    return hospital.deliver(RecordDict({**content, **(beside or {})}), kind)


def upload(hospital, reply):
    assert not reply.has_error(), hospital.details()
    assert list(reply.content) == [PACKED]
    layout = composed(hospital.text)[0].layout
    found = read_upload(unpack_reply(reply, layout.total), layout)
    assert found is not None
    return found


def test_it_is_answered_with_the_trained_model_and_charged_once(hospital):
    hospital.join()
    found = upload(hospital, ask(hospital))
    initial = composed(hospital.text)[0].initial
    assert not np.array_equal(found.parameters, initial)
    assert np.isfinite(found.parameters).all()
    assert found.examples == 20
    assert hospital.kinds() == ["agreement", "release", "reply"]


def test_asked_again_in_either_form_the_stored_bytes_are_sent(hospital):
    hospital.join()
    first = ask(hospital).content[PACKED]["data trained"]
    assert ask(hospital).content[PACKED]["data trained"] == first
    hospital.restart()
    assert ask(hospital).content[PACKED]["data trained"] == first
    assert hospital.ask(1).content[PACKED]["data trained"] == first, (
        "the same release, whatever form it is asked for in"
    )
    assert hospital.kinds().count("release") == 1


def test_a_round_that_left_as_a_fold_stays_one(hospital):
    first = fold(hospital.ask(1))
    assert fold(ask(hospital)) == first
    assert hospital.kinds().count("release") == 1


def test_after_a_restart_the_experiment_is_still_known(hospital):
    hospital.join()
    upload(hospital, ask(hospital, 1))
    hospital.restart()
    upload(hospital, ask(hospital, 2))
    assert hospital.gate.ledger.released(hospital.run) == (1, 2)


def test_other_inputs_of_a_round_that_was_released(hospital):
    hospital.join()
    upload(hospital, ask(hospital))
    assert refused(ask(hospital, shift=0.5)) == "round_already_released"


def test_a_run_that_was_never_joined(hospital):
    assert refused(ask(hospital)) == "message_not_understood"
    hospital.join()
    assert refused(ask(hospital, run="b" * 32)) == "message_not_understood"


def test_an_experiment_that_was_changed_on_the_disk_is_not_the_one_agreed_to(hospital):
    hospital.join()
    path = hospital.folder / "state" / "experiments" / f"{hospital.run}.toml"
    path.write_text(path.read_text().replace("rounds = 3", "rounds = 2"))
    assert refused(ask(hospital)) == "experiment_not_allowed"


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": b""},
        {"parameters": bytes(4)},
        {"parameters": np.full(3, np.nan, "<f4").tobytes()},
        {"parameters": "text"},
        {"parameters": None},
        {"server-round": 1.0},
        {"server-round": True},
        {"plan": b"plan"},
        {"plan": None},
        {"run": "../../../../etc/passwd".ljust(32, "0")},
        {"more": 1},
    ],
)
def test_a_record_that_is_not_what_one_is(hospital, changes):
    hospital.join()
    assert refused(ask(hospital, **changes)) == "message_not_understood"
    assert hospital.gate.ledger.released(hospital.run) == ()


def test_a_model_that_is_not_finite(hospital):
    hospital.join()
    total = composed(hospital.text)[0].layout.total
    values = np.full(total, np.inf, "<f4").tobytes()
    assert refused(ask(hospital, parameters=values)) == "message_not_understood"


@pytest.mark.parametrize("name", [EXPERIMENT, "arrays", "config", "other"])
def test_nothing_stands_beside_it(hospital, name):
    hospital.join()
    record = ConfigRecord({"config": hospital.text, RUN: hospital.run})
    assert refused(ask(hospital, beside={name: record})) == "message_not_understood"


@pytest.mark.parametrize("kind", [JOIN, "query", "train.other"])
def test_other_kinds_of_messages_are_not_packed(hospital, kind):
    hospital.join()
    assert refused(ask(hospital, kind=kind)) == "message_not_understood"


def test_another_plan(hospital):
    hospital.join()
    assert refused(ask(hospital, plan="0" * 64)) == "outside_plan"


def test_uploaded_code_sees_the_model_as_any_flower_app_does_and_the_reply_is_the_gates(
    tmp_path, monkeypatch
):
    seen = []

    class Beside:
        def __init__(self, policy, hidden):
            pass

        def run(self, fab, message, train):
            seen.append((set(message.content), set(train())))

    monkeypatch.setattr("fedsafe.deploy.gate.Isolated", Beside)
    fab = bundle({**THIN, "mine.py": "x = 1\n"})
    hospital = Hospital(tmp_path / "north", fab=fab)
    hospital.allow(code__apps=[bundle_digest(fab)])
    hospital.restart()
    hospital.join()
    upload(hospital, ask(hospital))
    assert seen == [({"arrays", "config"}, {PACKED})]
    hospital.gate.close()
