"""What a run is predicted to cost is what its plan is, and a run that cost more is an error."""

import json
import tomllib

import pytest
import tomli_w
from small_federation import KEPT, NAMES
from typer.testing import CliRunner

from fedsafe.apps.settings import for_flower
from fedsafe.cli.deploy import deploy_app
from fedsafe.deploy.driving import resolved_experiment
from fedsafe.deploy.experiment import compose_experiment, read_experiment
from fedsafe.deploy.gate import Gate
from fedsafe.deploy.policy import read_policy
from fedsafe.deploy.prediction import POLL_SECONDS, predict, write_prediction
from fedsafe.deploy.realised import above, lines_of_prediction, realised
from fedsafe.errors import ConfigError
from fedsafe.runs.config import make_config

TOKEN = "c" * 32


@pytest.fixture(scope="module")
def federation(make, tmp_path_factory):
    return make(tmp_path_factory.mktemp("predicted") / "trial")


@pytest.fixture(scope="module")
def prediction(federation):
    return predict(federation, train_seconds=0.25)


def changed(make, folder, **sections):
    made = make(folder)
    path = made.folder / "experiment.toml"
    values = tomllib.loads(path.read_text())
    for key, value in sections.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    path.write_text(tomli_w.dumps(values))
    return made


def test_the_plan_and_the_spend_are_those_that_a_gate_comes_to(federation, prediction):
    own = federation.client_folder("north")
    policy = read_policy(own / "policy.toml")
    text = for_flower(make_config(resolved_experiment(federation))).to_toml()
    gate = Gate(own)
    experiment = compose_experiment(read_experiment(text, policy), policy, gate._own)
    gate.close()
    assert prediction.plan == experiment.plan.hash
    for client in prediction.clients.values():
        assert list(client.epsilon) == experiment.plan.spending()["record"]
        assert client.epsilon[-1] == pytest.approx(experiment.epsilon)
        assert client.records == KEPT
    assert tuple(prediction.clients) == NAMES


def test_everybody_is_there_by_default(prediction):
    assert prediction.asked == prediction.replies == (2, 2)
    assert all(client.expected_rounds == 2 for client in prediction.clients.values())
    assert all(client.expected_epsilon == client.epsilon[-1] for client in prediction.clients.values())
    assert all(seconds == prediction.seconds[0] for seconds in prediction.seconds)
    assert prediction.seconds[0] == pytest.approx(POLL_SECONDS + 0.5 + 1.0)


def test_bytes_follow_from_the_model_and_the_rule(make, tmp_path, prediction):
    assert prediction.traffic.down == prediction.traffic.up == 4 * prediction.parameters
    assert prediction.traffic.total > 8 * prediction.parameters
    client = {"client": {"epsilon": 8.0, "delta": 1e-3, "clip": 1.0}, "record": {"epsilon": 3.0}}
    made = changed(make, tmp_path / "sum", server={"aggregator": "noisy_mean"}, privacy=client)
    summed = predict(made, train_seconds=0.0)
    assert summed.traffic.up >= 8 * summed.parameters
    assert summed.client_level[-1] is not None


def test_a_warm_up_is_measured(federation):
    ticks = iter([0.0, 9.0, 10.0, 10.5])
    measured = predict(federation, clock=lambda: next(ticks))
    assert {client.train_seconds for client in measured.clients.values()} == {0.5}


def test_clients_that_are_slow_or_drop_out(federation, tmp_path, prediction):
    path = tmp_path / "availability.toml"
    path.write_text('dropout = 0.9\ndeadline = 60.0\nspeed = { name = "pareto", alpha = 1.0 }\n')
    found = predict(federation, availability=path, train_seconds=2.0)
    assert sum(found.replies) < sum(prediction.replies)
    assert max(found.seconds) == 60.0
    assert {client.train_seconds for client in found.clients.values()} != {2.0}
    for client in found.clients.values():
        assert client.expected_epsilon <= client.epsilon[-1]
        assert client.epsilon == prediction.clients["north"].epsilon, "who is away changes no plan"


@pytest.mark.parametrize("text", ["dropouts = 1\n", "dropout = 2.0\n", "= 1\n"])
def test_an_availability_that_is_none(federation, tmp_path, text):
    path = tmp_path / "availability.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="availability"):
        predict(federation, availability=path, train_seconds=0.0)


def test_seconds_that_are_none(federation):
    with pytest.raises(ConfigError, match="seconds-per-round -1"):
        predict(federation, train_seconds=-1.0)


def a_run(federation, prediction, *, spent, rounds=2, plan=None):
    """The folders of a run as server and gates leave them."""
    out = federation.server / "runs" / "run-1"
    (out / "private").mkdir(parents=True, exist_ok=True)
    curve = prediction.clients["north"].epsilon
    lines = [{"kind": "start", "plan": {"hash": plan or prediction.plan}}]
    lines += [{"kind": "round", "round": n + 1, "spend": {"record": curve[n]}} for n in range(rounds)]
    (out / "record.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (out / "private" / "run.token").write_text(TOKEN + "\n")
    exchange = {"round": "1", "kind": "train", "asked": 2, "replied": 2, "refused": {}, "failed": 0}
    (out / "private" / "replies.jsonl").write_text((json.dumps(exchange) + "\n") * rounds)
    timing = {"round": 1, "seconds": 4.5}
    (out / "private" / "timings.jsonl").write_text((json.dumps(timing) + "\n") * rounds)
    noted = {"number": 1, "out": str(out), "rounds": 2}
    (federation.server / "state" / "run.json").write_text(json.dumps(noted))
    for name, epsilon in spent.items():
        run = {"run": TOKEN, "released": list(range(1, rounds + 1)), "realised_epsilon": epsilon}
        path = federation.client_folder(name) / "state" / "status.json"
        path.write_text(json.dumps({"runs": [{**run, "run": "other"}, run]}))


@pytest.fixture
def trial(make, tmp_path):
    return make(tmp_path / "trial")


def test_no_run_has_begun(federation, prediction):
    assert realised(federation, ()) is None
    assert list(lines_of_prediction(prediction, None))[-1] == "no run has begun"


def test_what_gates_and_the_server_say_stands_beside_the_prediction(trial, prediction):
    curve = prediction.clients["north"].epsilon
    a_run(trial, prediction, spent={"north": curve[1]})
    found = realised(trial, curve)
    assert (found.clients["north"].told_by, found.clients["north"].epsilon) == ("gate", curve[1])
    assert (found.clients["south"].told_by, found.clients["south"].epsilon) == ("server", curve[1])
    assert (found.rounds, found.seconds, found.replies) == (2, (4.5, 4.5), (2, 2))
    assert found.bytes_per_round_and_client is None, "no server answers"
    assert above(prediction, found) == []
    lines = list(lines_of_prediction(prediction, found))
    assert lines[-1] == "the realised spend is nowhere above the predicted"
    assert any("run-1: 2 of 2 rounds, 4.5 seconds and 2.0 replies a round" in line for line in lines)


def test_a_gate_that_has_not_said_what_it_spent_has_spent_what_its_rounds_cost(trial, prediction):
    curve = prediction.clients["north"].epsilon
    a_run(trial, prediction, spent={"north": None}, rounds=1)
    assert realised(trial, curve).clients["north"].epsilon == curve[0]


def test_spend_above_the_predicted_is_said(trial, prediction):
    curve = prediction.clients["north"].epsilon
    a_run(trial, prediction, spent={"north": curve[0] * 1.001, "south": curve[0]}, rounds=1)
    (line,) = above(prediction, realised(trial, curve))
    assert line.startswith("north has spent epsilon")
    assert "in 1 rounds, above the predicted" in line


def test_a_run_of_another_plan_is_not_compared(trial, prediction):
    a_run(trial, prediction, spent={"north": 99.0}, plan="0" * 64)
    found = realised(trial, ())
    assert above(prediction, found) == []
    assert "follows another plan" in list(lines_of_prediction(prediction, found))[-1]


@pytest.mark.parametrize(("factor", "code"), [(1.0, 0), (1.001, 1)])
def test_the_command_ends_with_1_where_a_run_spent_more(trial, prediction, factor, code):
    curve = prediction.clients["north"].epsilon
    # The plan's hash holds where the schema is, and this is another folder.
    plan = predict(trial, train_seconds=0.1).plan
    a_run(trial, prediction, spent={"north": curve[1] * factor}, plan=plan)
    done = CliRunner().invoke(deploy_app, ["predict", str(trial.folder), "--seconds-per-round", "0.1"])
    assert done.exit_code == code, done.output
    written = json.loads((trial.folder / "prediction.json").read_text())
    assert written["format"] == "fedsafe.prediction/1"
    assert written["clients"]["north"]["epsilon"] == list(curve)
    assert written["realised"]["clients"]["north"]["epsilon"] == pytest.approx(curve[1] * factor)


def test_what_is_written_is_json_also_without_a_guarantee(make, tmp_path):
    made = changed(make, tmp_path / "open", privacy={"record": {"epsilon": float("inf")}})
    found = predict(made, train_seconds=0.0)
    written = json.loads(write_prediction(made, found, {}).read_text())
    assert written["clients"]["north"]["epsilon"] == [None, None]
    assert "none" in "".join(lines_of_prediction(found, None))
