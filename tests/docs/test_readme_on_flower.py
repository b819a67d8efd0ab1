"""What the README says of Flower's runtimes: programs, options, keys and addresses. They run in tests/apps."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from quiet_environment import QUIET
from readme import BLOCKS, CODE, PROJECT, ROOT, commands

from fedsafe.apps.settings import read_settings

FLOWER = ("flwr", "flower-superlink", "flower-supernode")


def options_of(program: str, *words: str) -> set[str]:
    """The options of one of Flower's programs."""
    if program == "flwr":
        from flwr.cli.app import app

        command = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]
        return {option for parameter in command.params for option in parameter.opts}
    done = subprocess.run(
        [Path(sys.executable).with_name(program), "--help"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **QUIET},
    )
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"--[\w-]+", done.stdout))


# Of Flower's own command line, when it is imported.
ignoring_flower = pytest.mark.filterwarnings("ignore:The 'is_flag':DeprecationWarning")


@ignoring_flower
@pytest.mark.parametrize("program", FLOWER)
def test_flowers_programs_have_the_options(program):
    lines = commands(program)
    assert lines
    asked = {word for words in lines for word in words if word.startswith("--")}
    assert asked <= options_of(*lines[0][: 2 if program == "flwr" else 1])


@ignoring_flower
def test_flower_has_the_commands_and_the_keys_of_a_federation():
    named = [code.split()[1] for code in CODE if code.startswith("flwr ")]
    assert {"ls", "run", "stop"} <= set(named)
    for command in named:
        assert options_of("flwr", command)
    keys = {f"--{pair.partition('=')[0]}" for pair in " ".join(_values("--federation-config")).split()}
    assert keys
    assert keys <= options_of("flwr", "federation", "simulation-config")


def _values(option: str) -> list[str]:
    found = [words[words.index(option) + 1] for words in commands(*FLOWER) if option in words]
    return [*found, *(code for code in CODE if option == "--run-config" and code.startswith("config="))]


def test_run_configurations_have_keys_and_values_that_the_app_takes():
    values = _values("--run-config")
    assert values
    default = PROJECT["tool"]["flwr"]["app"]["config"]
    for value in values:
        given = tomllib.loads("\n".join(re.findall(r'[\w-]+="[^"]*"', value)))
        assert given
        assert set(given) <= set(default)
        there = {**default, **given, "config": str(ROOT / "experiments" / "flower.toml")}
        assert read_settings(there, lambda: ROOT).config.engine.name == "flower"
    assert read_settings(default, lambda: ROOT).config.federation.clients == 2


def test_the_deployed_processes_are_told_to_meet():
    (link,) = commands("flower-superlink")
    nodes = commands("flower-supernode")
    tables = [tomllib.loads(code) for language, code in BLOCKS if language == "toml"]
    (connection,) = [table["superlink"] for table in tables if "superlink" in table]
    ((name, where),) = connection.items()
    address = f"{link[link.index('--host') + 1]}:{link[link.index('--port') + 1]}"
    assert where["address"] == address
    assert all(node[node.index("--superlink") + 1] == address for node in nodes)
    assert sorted(node[node.index("--node-config") + 1] for node in nodes) == [
        "partition-id=0",
        "partition-id=1",
    ]
    assert len({node[node.index("--port") + 1] for node in [link, *nodes]}) == 3
    assert ["flwr", "run", ".", name, "--stream"] in commands("flwr")
