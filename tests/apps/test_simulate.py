"""``fedsafe simulate`` runs Flower apps as a user names them, and every mistake is one line."""

import json
import shutil
from pathlib import Path

import pytest

from fedsafe.engine import Availability, AvailabilityGrid
from fedsafe.engine.flower_app import find_app
from fedsafe.engine.simulation import simulate
from fedsafe.errors import ConfigError

APPS = Path(__file__).parent / "flower_apps"


@pytest.fixture
def project(tmp_path):
    """``project("stateful", lambda text: ...)``: a copy of an app, with its server changed."""

    def copy(name, change=lambda text: text):
        shutil.copytree(APPS / name, tmp_path / "app")
        (server,) = (tmp_path / "app").glob("*/server_app.py")
        server.write_text(change(server.read_text()))
        # A package of its own: this process may have imported the other.
        server.parent.rename(tmp_path / "app" / "changed")
        for path in (tmp_path / "app").rglob("*.*"):
            if path.suffix in (".py", ".toml"):
                path.write_text(path.read_text().replace(server.parent.name, "changed"))
        return tmp_path / "app"

    return copy


def one_line(command, *words):
    """The single line that a command says when it fails."""
    assert command.code == 1, command.err
    (line,) = [line for line in command.err.splitlines() if line.startswith("fedsafe:")]
    assert "Traceback" not in command.err
    for word in words:
        assert word in line
    return line


def test_a_project_with_changed_options_prints_one_object(fedsafe):
    command = fedsafe(
        "simulate",
        APPS / "stateful",
        "--nodes",
        6,
        "--set",
        "num-server-rounds=2",
        "--engine",
        "inline",
        "--json",
    )
    assert command.code == 0, command.err
    found = json.loads(command.out)
    assert found["nodes"] == 6
    assert found["rounds"] == 2
    assert list(found["train"]) == ["1", "2"]
    assert (found["messages"], found["replies"], found["errors"]) == (24, 24, 1)
    assert found["exit_status"] == 0
    assert found["seconds"] > 0.0


def test_two_import_paths_and_a_summary_for_people(fedsafe, tmp_path):
    shutil.copytree(APPS / "stateful" / "stateful_app", tmp_path / "stateful_app")
    command = fedsafe(
        "simulate",
        "stateful_app.server_app:app,stateful_app.client_app:app",
        *(
            "--nodes",
            4,
            "--set",
            "num-server-rounds=1",
            "--set",
            "fails=9",
            "--set",
            "nodes=4",
            "--engine",
            "inline",
        ),
    )
    assert command.code == 0, command.err
    lines = command.out.splitlines()
    assert lines[0].startswith("round   1  train             calls 1")
    assert lines[1].startswith("round   1  evaluate clients  mean 0.3, calls 1")
    assert lines[2].startswith("4 nodes, 1 rounds, 8 messages, 8 replies, 0 errors, ")


def test_what_an_app_prints_is_no_part_of_the_object(fedsafe):
    command = fedsafe("simulate", APPS / "quickstart", "--nodes", 4, "--engine", "inline", "--json")
    assert len(command.out.splitlines()) == 1
    assert "2 arrays" in command.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], ["there is no app 'nowhere'", "pyproject.toml", "module:server_app,module:client_app"]),
        (["a:app,b"], ["'a:app,b' cannot be read"]),
        (["no_such:app,no_such:app"], ["ServerApp 'no_such:app' cannot be imported", "no_such"]),
        ([APPS / "stateful", "--set", "num-server-round=2"], ["did you mean 'num-server-rounds'"]),
        ([APPS / "stateful", "--set", "nodes=four"], ["--set nodes=four", "TOML value"]),
        ([APPS / "stateful", "--set", "nodes"], ["--set nodes", "key=value"]),
    ],
)
def test_a_mistake_is_one_line(fedsafe, words, said):
    one_line(fedsafe("simulate", *words, "--nodes", 4), *said)


@pytest.mark.parametrize("option", ["--nodes", "--workers", "--chunk"])
def test_a_number_below_one_is_one_line(fedsafe, option):
    one_line(fedsafe("simulate", APPS / "stateful", "--nodes", 4, option, 0), f"{option} 0", "from 1")


def test_a_server_app_that_fails_is_one_line(fedsafe, project):
    folder = project(
        "stateful",
        lambda text: text.replace("config = context", "raise KeyError('lost')\n    config = context"),
    )
    command = fedsafe("simulate", folder, "--nodes", 4, "--engine", "inline", "--json")
    one_line(command, "the ServerApp 'changed.server_app:app' failed: KeyError: 'lost'")
    assert command.out == ""


def test_what_is_no_app_is_one_line(project):
    folder = project("stateful", lambda text: "app = 3\n")
    with pytest.raises(ConfigError, match=r"'changed.server_app:app' is int, not a ServerApp"):
        simulate(find_app(str(folder)), nodes=2, workers=1, engine="inline")


def test_a_project_that_flower_refuses_is_one_line(project):
    folder = project("stateful")
    text = (folder / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text(text.replace('publisher = "fedsafe"', ""))
    with pytest.raises(ConfigError, match=r"pyproject.toml is no Flower app: .*publisher") as caught:
        find_app(str(folder))
    assert "\n" not in str(caught.value)


def test_a_client_app_that_always_fails_does_not_stop_the_run(fedsafe, project):
    folder = project("custom_strategy")
    client = folder / "changed" / "client_app.py"
    client.write_text(
        client.read_text().replace("    scale = msg", '    raise OSError("no disk")\n    scale = msg')
    )
    server = folder / "changed" / "server_app.py"
    server.write_text(
        server.read_text().replace(
            "        steps =", "        if mean is None:\n            return None, None\n        steps =", 1
        )
    )
    command = fedsafe("simulate", folder, "--nodes", 4, "--engine", "inline", "--json")
    assert command.code == 0, command.err
    found = json.loads(command.out)
    assert (found["replies"], found["errors"], found["train"]) == (12, 12, {})


def test_a_grid_may_be_put_around_ours():
    """Such as one whose clients are not always there: half of what is sent is not answered, and FedAvg goes on."""
    app = find_app(str(APPS / "custom_strategy"))
    there = Availability(clients=40, seed=1, dropout=0.5)
    done = simulate(
        app, nodes=40, workers=1, engine="inline", wrap=lambda grid: AvailabilityGrid(grid, there)
    )
    assert 30 < done.tally.messages < 90, "of 3 rounds of 40"
    assert done.tally.replies == done.tally.messages
    assert done.rounds == 3


def test_an_older_workflow_aggregates_securely_and_its_history_is_kept():
    """Five messages to a client and round, whose keys are in its state; the masks cancel."""
    app = find_app(str(APPS / "workflow"), ["secure=true"])
    done = simulate(app, nodes=4, workers=1, engine="inline")
    assert done.tally.errors == 0
    assert done.tally.messages == done.tally.replies == 2 * 4 * (4 + 1)
    # Clients 0 to 3 move by a quarter of their number, with weights 1 to 4: by half a unit together.
    assert done.metrics["train"] == {1: {"partition": 2.0}, 2: {"partition": 2.0}}
    means = {number: found["mean"] for number, found in done.metrics["evaluate_clients"].items()}
    assert means == pytest.approx({1: 0.5, 2: 1.0}, abs=1e-4), "up to the steps of 16 / 2^22 that it sends"
    assert done.result is None
