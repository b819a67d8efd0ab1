"""The gate in front of a server that keeps the rules, and of one that does not: nothing but the reason leaves."""

import json
import os

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hospitals import Hospital, bundle, composed, experiment, fold, patients, refused

from fedsafe.apps.code import code_digest
from fedsafe.apps.joining import JOINED
from fedsafe.apps.nodes import EXPERIMENT, JOIN, RUN
from fedsafe.deploy import experiment as experiments
from fedsafe.deploy.bundle import bundle_digest
from fedsafe.federation.messages import read_reply


@pytest.fixture
def hospital(tmp_path):
    made = Hospital(tmp_path / "north")
    yield made
    made.gate.close()


def test_an_honest_round_is_answered_and_written_down_before_it_leaves(hospital):
    joined = hospital.join()
    said = joined.content.config_records[JOINED]
    assert said["client"] == 0
    assert said["plan"] == composed(hospital.text)[1].hash
    assert said["ledger"] == "durable"
    reply = hospital.ask(1)
    answer = read_reply(reply)
    assert (answer.clients, answer.failures, answer.cpu_seconds, answer.error) == (1, 0, 0.0, "")
    assert hospital.kinds() == ["agreement", "release", "reply"]
    assert set(reply.content) == {"fold", "info", "error"}


def test_a_round_without_joining_first_is_the_same(hospital):
    assert fold(hospital.ask(1))
    assert hospital.kinds() == ["agreement", "release", "reply"]


def test_the_noise_is_this_clients_own(tmp_path):
    first, second = Hospital(tmp_path / "a"), Hospital(tmp_path / "b")
    assert fold(first.ask(1)) != fold(second.ask(1)), "two clients with the same records share no noise"
    for one in (first, second):
        (key,) = (one.folder / "state" / "keys").rglob("noise.key")
        assert os.stat(key).st_mode & 0o777 == 0o600
        one.gate.close()


def test_the_same_request_gets_the_stored_bytes_uncharged(hospital):
    first = hospital.ask(1)
    before = hospital.kinds()
    again = hospital.ask(1)
    assert again.content.object_id == first.content.object_id
    assert hospital.kinds() == before
    hospital.restart()
    assert hospital.ask(1).content.object_id == first.content.object_id
    assert hospital.kinds() == before


def test_what_was_sent_is_sent_again_even_by_a_gate_that_would_compute_something_else(hospital, monkeypatch):
    """It is not recomputed: a later version may round differently, and the difference of both would be a release."""
    first = hospital.ask(1)
    hospital.restart()
    monkeypatch.setattr(type(hospital.gate), "_made", lambda *args: pytest.fail("computed again"))
    assert hospital.ask(1).content.object_id == first.content.object_id


@pytest.mark.parametrize("change", [{"shift": 1e-3}, {"shift": -0.5}])
def test_a_round_that_was_released_is_refused_with_other_inputs(hospital, change):
    first = fold(hospital.ask(1))
    assert refused(hospital.ask(1, **change)) == "round_already_released"
    assert fold(hospital.ask(1)) == first


def test_a_stored_reply_that_is_gone_or_changed_is_never_made_anew(hospital):
    hospital.ask(1)
    (stored,) = (hospital.folder / "state" / "replies").iterdir()
    stored.write_bytes(stored.read_bytes() + b" ")
    assert refused(hospital.ask(1)) == "round_already_released"
    stored.unlink()
    assert refused(hospital.restart().ask(1)) == "round_already_released"


@pytest.mark.parametrize("round", [0, 4, -1, 2**40])
def test_a_round_outside_the_plan(hospital, round):
    assert refused(hospital.ask(round)) == "outside_plan"
    assert hospital.kinds() == ["agreement", "refusal"]


@pytest.mark.parametrize("round", [1.0, "1", True])
def test_a_round_that_is_no_whole_number(hospital, round):
    assert refused(hospital.ask(round)) == "message_not_understood"


def test_another_plan_is_refused(hospital):
    assert refused(hospital.ask(1, plan="0" * 64)) == "outside_plan"


def test_what_the_rule_does_not_send_is_refused(hospital):
    assert refused(hospital.ask(1, correction=0.5)) == "outside_plan"
    assert refused(hospital.ask(1, announced={"clip": 9.0})) == "outside_plan"
    assert refused(hospital.ask(2, kind="evaluate")) == "outside_plan"


CHEATS = {
    "more epsilon": ({"privacy__record__epsilon": 4.0}, "budget_spent"),
    "less noise": ({"privacy__record__epsilon": 900.0}, "too_little_noise"),
    "no noise": ({"privacy__record__epsilon": float("inf")}, "too_little_noise"),
    "a larger delta": ({"privacy__record__delta": 1e-3}, "budget_spent"),
    "another model": ({"model": "resnet"}, "experiment_not_allowed"),
    "a huge model": ({"model": {"name": "mlp", "hidden": [10**6, 10**6]}}, "model_too_large"),
    "a noise key that it knows": ({"privacy__noise_key": "seed"}, "experiment_not_allowed"),
    "un-noised scores": (
        {"federation__client_validation": 0.3, "federation__evaluation": {"every": 1, "noised": False}},
        "metric_not_allowed",
    ),
    "noised scores that are not allowed": (
        {"federation__client_validation": 0.3, "federation__evaluation": {"every": 1, "epsilon": 0.1}},
        "metric_not_allowed",
    ),
    "exact losses": ({"server__aggregator": "q_fedavg"}, "experiment_not_allowed"),
    "an import path for a model": ({"model": "os:system"}, "experiment_not_allowed"),
    "an import path with options": (
        {"model": {"name": "subprocess:run", "args": "true"}},
        "experiment_not_allowed",
    ),
    "an import path for a rule": ({"server__aggregator": "os:system"}, "experiment_not_allowed"),
    "an import path for a choice": (
        {"server__aggregator": {"name": "chosen_noise", "choose": "os:getcwd"}},
        "experiment_not_allowed",
    ),
    "an import path for an objective": ({"client__objective": "os:system"}, "experiment_not_allowed"),
    "a file for a task": ({"task": {"path": "/etc/passwd", "schema": "s"}}, "experiment_not_allowed"),
    "somebody else's task": ({"task": "adult"}, "experiment_not_allowed"),
    "an import path for a task": ({"task": "os:system"}, "experiment_not_allowed"),
    "another cut of the records": ({"federation__partition": {"name": "iid"}}, "experiment_not_allowed"),
    "clients held out": ({"federation__held_out": 0.5}, "experiment_not_allowed"),
    "poisoned records": ({"byzantine": {"attack": "label_flip", "share": 0.5}}, "experiment_not_allowed"),
    "another number of records": ({"task__clients": {"north": 19, "south": 30}}, "data_not_as_agreed"),
    "records without end": ({"task__clients": {"north": 20, "south": 10**15}}, "experiment_not_allowed"),
    "rounds without end": ({"rounds": 10**9}, "experiment_not_allowed"),
    "another schema": ({"task__schema_sha256": "0" * 64}, "data_not_as_agreed"),
    "a federation without this client": ({"task__clients": {"south": 30, "west": 20}}, "data_not_as_agreed"),
}


@pytest.mark.parametrize("cheat", sorted(CHEATS))
def test_a_server_that_asks_for_more_than_the_policy_allows_gets_a_reason(hospital, cheat):
    changes, reason = CHEATS[cheat]
    hospital.text = experiment(hospital.folder, **changes)
    assert refused(hospital.send(RecordDict(), JOIN)) == reason
    assert "release" not in hospital.kinds()
    assert not list((hospital.folder / "state" / "replies").iterdir())


def test_a_sampling_rate_and_steps_beyond_the_policy(tmp_path):
    for changes in ({"mechanism__largest_rate": 0.4}, {"mechanism__largest_steps_per_round": 1}):
        hospital = Hospital(tmp_path / "north")
        hospital.allow(**changes)
        assert refused(hospital.restart().join()) == "rate_too_high"
        hospital.gate.close()


@pytest.mark.parametrize(
    ("asked", "allowed", "reason"),
    [
        ({"client__rate": 0.5}, {"mechanism__largest_rate": 0.4}, "rate_too_high"),
        ({"client__steps": 2}, {"mechanism__largest_steps_per_round": 1}, "rate_too_high"),
        (
            {"client__steps": 1, "client__local": ["bias"]},
            {"mechanism__largest_steps_per_round": 1},
            "rate_too_high",
        ),
        ({"privacy__record__delta": 1e-3}, {}, "budget_spent"),
        ({"rounds": 99_999, "client__steps": 10_000}, {}, "experiment_not_allowed"),
    ],
)
def test_what_the_policy_refuses_of_any_plan_is_refused_before_one_is_calibrated(
    hospital, monkeypatch, asked, allowed, reason
):
    monkeypatch.setattr(experiments, "calibrate", lambda parts: pytest.fail("calibrated"))
    hospital.allow(**allowed)
    hospital.text = experiment(hospital.folder, **asked)
    assert refused(hospital.restart().join()) == reason


def test_single_precision_where_the_policy_wants_a_grid(hospital):
    hospital.allow(mechanism__arithmetic="grid")
    assert refused(hospital.restart().join()) == "too_little_noise"
    hospital.text = experiment(hospital.folder, privacy__record__arithmetic="grid")
    assert not hospital.join().has_error()


def test_noised_scores_leave_where_they_are_allowed(hospital):
    hospital.allow(metrics__allowed=["noised_score"])
    hospital.restart().text = experiment(
        hospital.folder,
        federation__client_validation=0.3,
        federation__evaluation={"every": 1, "epsilon": 0.1},
    )
    first = hospital.ask(1, kind="evaluate")
    assert not first.has_error()
    assert fold(hospital.ask(1, kind="evaluate")) == fold(first)
    assert refused(hospital.ask(1, kind="evaluate", shift=0.1)) == "round_already_released"


def test_code_that_the_policy_does_not_know(hospital):
    hospital.allow(code__fedsafe=["0" * 64])
    assert refused(hospital.restart().join()) == "code_not_allowed"


def test_a_bundle_that_the_policy_does_not_know_is_not_even_opened(hospital, monkeypatch):
    monkeypatch.setattr("fedsafe.deploy.gate.has_own_code", lambda fab: pytest.fail("opened"))
    hospital.fab = b"anything"
    assert refused(hospital.join()) == "app_not_allowed"
    assert hospital.kinds() == ["refusal"]


def test_only_the_experiments_that_are_listed(hospital):
    from fedsafe.deploy.experiment import experiment_digest

    hospital.allow(code__experiments=["0" * 64])
    assert refused(hospital.restart().join()) == "experiment_not_allowed"
    hospital.allow(code__experiments=[experiment_digest(hospital.text)])
    assert not hospital.restart().join().has_error()


def test_another_experiment_in_the_same_run(hospital):
    first = fold(hospital.ask(1))
    mine, hospital.text = hospital.text, experiment(hospital.folder, client__optimizer__lr=0.05)
    assert refused(hospital.ask(1)) == "experiment_not_allowed"
    assert refused(hospital.restart().ask(2)) == "experiment_not_allowed"
    hospital.text = mine
    assert fold(hospital.ask(1)) == first


def test_sections_that_only_the_server_acts_on_name_nothing_here(hospital, monkeypatch):
    """An assessor or sink of the server's may be at an import path of its own: nothing of it is looked for here."""
    monkeypatch.setattr("fedsafe.extensions.imported", lambda *args: pytest.fail("imported"))
    hospital.text = experiment(
        hospital.folder,
        assess__assessors=["os:system"],
        sinks=["os:system"],
        card__developers="http://example.org",
    )
    assert not hospital.join().has_error()


def test_the_folders_of_the_servers_machine_are_not_searched(hospital):
    import sys

    hospital.join()
    assert "/" not in sys.path


HOSTILE_MESSAGES = {
    "nothing": lambda content: content.clear(),
    "no model": lambda content: content.pop("arrays"),
    "one more record": lambda content: content.update(more=ConfigRecord({"a": 1})),
    "one more setting": lambda content: content["config"].update(more=1),
    "an array of objects": lambda content: replace_arrays(content, pickled),
    "a compressed file": lambda content: replace_arrays(content, compressed),
    "double precision": lambda content: replace_arrays(
        content, lambda a: Array(a.numpy().astype(np.float64))
    ),
    "another shape": lambda content: replace_arrays(content, lambda a: Array(a.numpy().reshape(-1))),
    "more bytes": lambda content: replace_arrays(content, lambda a: edited(a, a.data + b"\0\0\0\0")),
    "fewer bytes": lambda content: replace_arrays(content, lambda a: edited(a, a.data[:-4])),
    "another header": lambda content: replace_arrays(
        content, lambda a: edited(a, b"\x93NUMPY\x02\x00" + a.data[8:])
    ),
    "another encoding": lambda content: replace_arrays(
        content, lambda a: Array(a.dtype, a.shape, "pickle", a.data)
    ),
    "NaN": lambda content: replace_arrays(content, lambda a: Array(np.full_like(a.numpy(), np.nan))),
    "infinity": lambda content: replace_arrays(content, lambda a: Array(np.full_like(a.numpy(), np.inf))),
    "one more array": lambda content: content["arrays"].update(more=Array(np.zeros(3, np.float32))),
    "a correction that is none": lambda content: content.update(correction=ConfigRecord({"a": 1})),
    "an announcement that is not finite": lambda content: content.update(
        announced=MetricRecord({"clip": float("nan")})
    ),
}


def replace_arrays(content, change):
    content["arrays"] = ArrayRecord({name: change(array) for name, array in content["arrays"].items()})


def edited(array, data):
    return Array(array.dtype, array.shape, array.stype, data)


def pickled(array):
    import io

    made = io.BytesIO()
    np.save(made, np.array([print], dtype=object), allow_pickle=True)
    return edited(array, made.getvalue())


def compressed(array):
    import io

    made = io.BytesIO()
    np.savez_compressed(made, array.numpy())
    return edited(array, made.getvalue())


@pytest.mark.parametrize("message", sorted(HOSTILE_MESSAGES))
def test_a_message_that_is_not_of_the_agreed_model_is_not_read(hospital, message):
    assert refused(hospital.ask(1, change=HOSTILE_MESSAGES[message])) == "message_not_understood"
    assert "release" not in hospital.kinds()
    assert not hospital.ask(1).has_error(), "the refusal has not used the round up"


@pytest.mark.parametrize("kind", ["train.other", "evaluate.now", "query", "query.other", "system"])
def test_a_message_of_another_type(hospital, kind):
    assert refused(hospital.ask(1, kind=kind)) == "message_not_understood"


@pytest.mark.parametrize("run", ["", "../../etc", "A" * 32, "a" * 33, "a" * 31 + "/"])
def test_a_run_without_a_proper_name(hospital, run):
    hospital.run = run
    assert refused(hospital.join()) == "message_not_understood"
    assert not list((hospital.folder / "state" / "keys").iterdir())


@pytest.mark.parametrize("text", ["", "task = [", "x = 1", "[" * 5000, "a" * 2**17, "\0", "rounds = 3"])
def test_a_text_that_is_no_experiment(hospital, text):
    hospital.text = text
    assert refused(hospital.join()) == "experiment_not_allowed"


def test_a_message_without_an_experiment(hospital):
    for experiment_record in (None, ConfigRecord({}), ConfigRecord({"config": 7, RUN: "a" * 32})):
        content = RecordDict() if experiment_record is None else RecordDict({EXPERIMENT: experiment_record})
        assert refused(hospital.deliver(content, JOIN)) == "message_not_understood"


def test_a_message_that_could_not_be_put_together(hospital):
    assert refused(hospital.deliver(RecordDict(), JOIN, problem="too large")) == "message_not_understood"


def test_an_invented_run_is_a_new_run_and_is_charged(hospital):
    first = fold(hospital.ask(1))
    spent = hospital.gate.ledger.spent(hospital.gate.policy.budget.record)
    hospital.run = "b" * 32
    assert fold(hospital.ask(1)) != first, "it has noise of its own"
    after = hospital.gate.ledger.spent(hospital.gate.policy.budget.record)
    assert after.epsilon == pytest.approx(2 * spent.epsilon)
    assert after.delta == pytest.approx(2 * spent.delta)
    hospital.run = "c" * 32
    assert refused(hospital.join()) == "budget_spent"
    assert refused(hospital.ask(1)) == "budget_spent"


def test_two_runs_at_once_that_only_one_of_fits(hospital):
    hospital.allow(budget__record__epsilon=0.6)
    hospital.restart().join()
    hospital.run = "b" * 32
    assert not hospital.join().has_error(), "nothing is spent yet"
    assert not hospital.ask(1).has_error()
    hospital.run = "a" * 32
    assert refused(hospital.ask(1)) == "budget_spent"
    hospital.run = "b" * 32
    assert not hospital.ask(2).has_error()


def test_what_an_exception_says_stays_here(hospital, monkeypatch):
    def quote(*args):
        raise ValueError("could not convert string to float: 'Jane Doe, HIV positive'")

    monkeypatch.setattr(type(hospital.gate), "_made", quote)
    reply = hospital.ask(1)
    assert refused(reply) == "failed"
    assert "Jane" not in repr(vars(reply))
    assert "Jane" not in hospital.details()
    assert "ValueError at test_gate.py" in hospital.details()
    assert "Jane" not in (hospital.folder / "state" / "audit.jsonl").read_text()
    assert not any("Jane" in json.dumps(line) for line in hospital.said), "logs are often collected elsewhere"


def test_records_that_changed_in_the_middle_of_a_run(hospital):
    hospital.ask(1)
    (hospital.folder / "patients.csv").write_text(patients(seed=2))
    assert refused(hospital.restart().ask(2)) == "data_not_as_agreed"
    (hospital.folder / "patients.csv").write_text(patients())
    assert not hospital.restart().ask(2).has_error()


def test_the_same_records_in_another_order_in_the_middle_of_a_run(hospital):
    hospital.ask(1)
    head, *rows = patients().splitlines()
    (hospital.folder / "patients.csv").write_text("\n".join([head, *rows[::-1]]) + "\n")
    assert refused(hospital.restart().ask(2)) == "data_not_as_agreed", (
        "the same noise would meet other batches"
    )


def test_a_record_that_is_not_as_the_schema_says(hospital):
    head, first, rest = patients().split("\n", 2)
    (hospital.folder / "patients.csv").write_text(
        f"{head}\n{first}\n77,Jane Doe,no\n{rest.split(chr(10), 1)[1]}"
    )
    reply = hospital.restart().join()
    assert refused(reply) == "data_not_as_agreed"
    assert "row 2, column 'sex' is not as the schema says" in hospital.details()
    assert "Jane" not in (hospital.folder / "state" / "audit.jsonl").read_text(), "it is kept for ever"


def test_records_that_cannot_be_read_are_not_quoted(hospital):
    (hospital.folder / "patients.csv").write_text("77,Jane Doe,no\n")
    assert refused(hospital.restart().join()) == "data_not_as_agreed"
    assert "Jane" not in (hospital.folder / "state" / "audit.jsonl").read_text()


def test_each_refusal_is_an_audit_line_and_the_server_gets_the_reason_alone(hospital):
    hospital.ask(1)
    hospital.ask(9)
    lines = [
        json.loads(line) for line in (hospital.folder / "state" / "audit.jsonl").read_text().splitlines()
    ]
    assert [line["event"] for line in lines] == ["agreement", "release", "reply", "refusal"]
    assert lines[-1]["reason"] == "outside_plan"
    assert "9" in lines[-1]["detail"]


def test_the_clients_own_page(hospital):
    hospital.ask(1)
    hospital.ask(2, shift=0.1)
    hospital.ask(7)
    shown = json.loads((hospital.folder / "state" / "status.json").read_text())
    (run,) = shown["runs"]
    assert run["released"] == [1, 2]
    assert [line["round"] for line in run["own"]] == [1, 2]
    assert all(0.0 <= line["accuracy"] <= 1.0 for line in run["own"])
    assert 0.0 < run["realised_epsilon"] < run["planned_epsilon"] <= 0.5
    assert shown["spent"]["epsilon"] == run["planned_epsilon"]
    assert shown["refusals"] == {"outside_plan": 1}
    assert shown["server_noise"] == "trusts the server"
    hospital.restart()
    assert json.loads((hospital.folder / "state" / "status.json").read_text())["refusals"] == {
        "outside_plan": 1
    }


def test_counts_for_prometheus(hospital):
    from prometheus_client import generate_latest

    hospital.ask(1)
    hospital.ask(1)
    hospital.ask(9)
    text = generate_latest(hospital.gate.metrics.registry).decode()
    assert 'fedsafe_gate_replies_total{kind="train",repeated="no"} 1.0' in text
    assert 'fedsafe_gate_replies_total{kind="train",repeated="yes"} 1.0' in text
    assert 'fedsafe_gate_refusals_total{reason="outside_plan"} 1.0' in text
    assert "fedsafe_gate_epsilon_spent 0." in text


def test_what_leaves_is_the_answer_or_the_reason_and_nothing_else(hospital):
    """Every byte that the gate handed over in a session with a server that tries everything."""
    hospital.join()
    for cheat in sorted(CHEATS):
        mine, hospital.text = hospital.text, experiment(hospital.folder, **CHEATS[cheat][0])
        hospital.send(RecordDict(), JOIN)
        hospital.text = mine
    answered = [reply for reply in hospital.sent if not reply.has_error()]
    assert len(answered) == 1
    assert set(answered[0].content) == {JOINED}
    secrets = [(hospital.folder / "patients.csv").read_text().splitlines()[1], str(hospital.folder)]
    for reply in hospital.sent:
        said = repr(vars(reply)) + repr(vars(reply.metadata))
        assert not any(secret in said for secret in secrets)
        if reply.has_error():
            refused(reply)


def test_the_digest_of_the_code_is_that_of_the_installed_one(hospital):
    assert hospital.join().content.config_records[JOINED]["code"] == code_digest()
    assert bundle_digest(bundle({})) != bundle_digest(hospital.fab)
