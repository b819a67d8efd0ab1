"""The README is true: its Python and its commands run, and its settings, targets, options and files are there."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from quiet_environment import QUIET

import fedsafe as fedsafe_package
from fedsafe.aggregation import RULES, check_aggregator
from fedsafe.apps.settings import read_settings
from fedsafe.assess import ASSESSORS, READS_CLIENTS, find_assessor
from fedsafe.assess.requirements import parse_requirements
from fedsafe.client.objectives import OBJECTIVES, build_objective
from fedsafe.client.stacked.layers import RULES as LAYERS
from fedsafe.data import load_task
from fedsafe.data.partition import partition
from fedsafe.data.tasks import SHIPPED
from fedsafe.models.zoo import ZOO
from fedsafe.runs.config import make_config
from fedsafe.runs.sinks import SINKS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
PROSE = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
CODE = [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", PROSE)]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
KINDS = ("binary", "multiclass", "regression", "next_token")
# Names that settings give only as examples.
PARTITIONS = {"natural": {"holders": {"writer": ["a", "b", "b", "a"] * 20}, "clients": None}}


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """The cells of the first table of a section, without its head."""
    _, table = section(title).split("\n|", 1)
    lines = [line for line in f"|{table}".split("\n\n")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def commands(*programs: str) -> list[list[str]]:
    """The words of the commands in the blocks without a language, less leading variables."""
    lines = [line for language, code in BLOCKS if not language for line in code.splitlines()]
    words = [shlex.split(re.sub(r"^(\w+=\S+ )+", "", line), comments=True) for line in lines if line]
    return [each for each in words if each and each[0] in programs]


def settings() -> list[str]:
    """What stands in the prose as ``a.b = value``."""
    return [code for code in CODE if re.match(r"[a-z_]+(\.[a-z_]+)* = ", code)]


# What runs ----------------------------------------------------------------------------------------------------------


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    for language, code in BLOCKS:
        if language == "python":
            exec(compile(code, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "differentially private" in printed
    assert "regression {" in printed
    assert printed.rstrip().endswith("stacked")
    runs = README.count("fedsafe.run(") - README.count("`fedsafe.run(")
    assert len(list((tmp_path / "runs").glob("*/report.html"))) == runs
    assert set(namespace["frame"]["assessor"]) == {"performance", "fairness"}
    assert not (namespace["frame"]["status"] == "failed").any()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("readme") / "run"
    fedsafe_package.run(
        {
            "rounds": 2,
            "federation": {"clients": 40},
            "assess": {
                "assessors": ["performance"],
                "require": [{"metric": "performance.accuracy", "op": ">=", "threshold": 0.5}],
            },
            "engine": {"name": "inline"},
        },
        out=out,
    )
    return out


@pytest.mark.parametrize("command", commands("fedsafe"), ids=" ".join)
def test_every_command_of_the_readme_works(command, finished, fedsafe):
    """The long runs are shortened; everything else is run as it stands."""
    stands_for = {"RUN": finished, "experiments/adult.toml": ROOT / "experiments" / "adult.toml"}
    arguments = [stands_for.get(word, word) for word in command[1:]]
    if arguments[0] == "run" and "--resume" not in arguments:
        arguments += ["--engine", "inline", "--set", "rounds=2", "--set", "assess.require=[]"]
        arguments += ["--set", 'assess.assessors=["performance"]']
    done = fedsafe(*arguments)
    assert done.code == 0, done.err
    assert done.out


def test_the_run_folder_is_the_one_described(finished):
    lines = [line for line in section("A run folder").splitlines() if line.startswith("RUN/")]
    listed = {line.split()[0].removeprefix("RUN/").rstrip("/") for line in lines}
    assert listed == {path.name for path in finished.iterdir()}


# What is on Flower's side, and runs in tests/apps ---------------------------------------------------------------------


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
    (connection,) = [tomllib.loads(code)["superlink"] for language, code in BLOCKS if language == "toml"]
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


# What is named --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting", settings())
def test_every_setting_is_one(setting):
    values = tomllib.loads(setting)
    if set(values) == {"noised"}:
        values = {"federation": {"evaluation": values}}
    config = make_config(values)
    if "aggregator" in values.get("server", {}):
        check_aggregator(config.server.aggregator, client_private=False)
    spec = values.get("federation", {}).get("partition")
    if spec is not None:
        known = {"clients": 4, **PARTITIONS.get(spec["name"], {})}
        assert partition([0, 1, 2, 3] * 20, spec=spec, seed=0, **known)
    parse_requirements(config.assess.require)


def test_there_are_settings_to_check():
    assert len(settings()) > 25


def test_the_rules_without_a_proof_are_marked():
    marked = {}
    for strategy, told in rows("Strategies"):
        for setting in re.findall(r"`(server\.aggregator = [^`]+)`", told):
            spec = tomllib.loads(setting)["server"]["aggregator"]
            marked[spec if isinstance(spec, str) else spec["name"]] = strategy.endswith("*")
    assert marked == {name: not rule.proven_sensitivity for name, rule in RULES.items()}


def test_the_table_of_kinds_is_that_of_the_code():
    table = {row[0].strip("`"): row for row in rows("Tasks and data")}
    assert set(table) == set(KINDS)
    for kind, (_, _, loss, recorded) in table.items():
        assert build_objective(None, kind) is OBJECTIVES[re.findall(r"`(\w+)`", loss)[0]]
        assert ("r2" in recorded) == (kind == "regression")
    assert set(SHIPPED) <= set(CODE)


def test_the_table_of_assessors_is_that_of_the_code():
    contract = ast.parse(
        (ROOT / "tests" / "assess" / "test_assessor_contract.py").read_text(encoding="utf-8")
    )
    (not_for,) = [
        ast.literal_eval(line.value)
        for line in contract.body
        if isinstance(line, ast.Assign) and line.targets[0].id == "NOT_FOR"
    ]
    table = {row[0].split("`")[1]: row for row in rows("Assessors")}
    assert set(table) == set(ASSESSORS)
    for name, (cell, _, kinds) in table.items():
        told = set(KINDS) if kinds == "all" else set(kinds.split(", "))
        assert told == set(KINDS) - not_for.get(name, set()), name
        assert cell.endswith("†") == (name in READS_CLIENTS)
        assert find_assessor(name).name == name


def test_models_layers_sinks_and_kinds_of_extension_are_those_of_the_code():
    models = section("Models")
    assert set(ZOO) <= set(re.findall(r"`(\w+)`", models))
    assert all(layer.__name__ in models for layer in LAYERS)
    extend = section("Make it yours")
    assert all(f'"{sink}"' in extend for sink in SINKS)
    used = {
        kind
        for path in (ROOT / "fedsafe").rglob("*.py")
        for kind in re.findall(r'(?:resolve|plugin_path)\(\s*"(\w+)"', path.read_text(encoding="utf-8"))
    }
    assert len(used) == 9
    for kind in used:
        assert kind in extend.lower(), kind


def test_what_the_prose_says_of_the_embedded_data():
    assert load_task("adult").features == 78
    majority = 1.0 - load_task("adult").evaluation.y.mean()
    assert f"{100 * majority:.1f} %" in README


def test_the_targets_and_files_that_the_documents_name_are_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{document} names make {target}"
        for name in re.findall(r"`((?:fedsafe|docs|tests|experiments|benchmarks)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{document} names {name}"
        for name in re.findall(r"\]\((\w[\w./-]*)\)", text):
            assert (ROOT / name).exists(), f"{document} links {name}"


def test_the_architecture_names_files_and_names_that_are_there():
    """Paths there begin below the package."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_]+/[\w./]*)(?::(\w+))?`", text)
    assert len(named) > 30
    for path, member in named:
        if "NAME" in path:
            continue
        place = ROOT / path if (ROOT / path).exists() else ROOT / "fedsafe" / path
        assert place.exists(), path
        assert not member or f"class {member}" in place.read_text(encoding="utf-8"), f"{path}:{member}"
    pairs = re.findall(r"`([A-Z_]+)`\s+of\s+`((?:tests/)?[\w/]+\.py)`", text)
    assert len(pairs) > 8
    for constant, path in pairs:
        place = ROOT / path if path.startswith("tests/") else ROOT / "fedsafe" / path
        assert re.search(rf"^{constant}\b.*=", place.read_text(encoding="utf-8"), flags=re.MULTILINE), (
            constant
        )


def test_the_extra_is_the_one_that_is_named():
    assert "`flower-datasets`" in README
    assert "flower-datasets" in PROJECT["project"]["optional-dependencies"]


def test_the_default_experiment_is_the_adult_experiment():
    packaged = ROOT / "fedsafe" / "runs" / "default.toml"
    assert packaged.read_text(encoding="utf-8") == (ROOT / "experiments" / "adult.toml").read_text(
        encoding="utf-8"
    )


def test_the_public_names_are_what_they_are_meant_to_be():
    assert fedsafe_package.__all__ == ["assess", "open_run", "resume", "run"]
    assert all(hasattr(fedsafe_package, name) for name in fedsafe_package.__all__)


def test_no_document_or_code_names_a_path_of_one_machine():
    if shutil.which("git") is None:
        pytest.skip("git is not installed: the files of the project cannot be listed")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout: the files of the project cannot be listed")
    home = os.path.expanduser("~")
    for name in tracked.stdout.split():
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".j2", ".css"} and path.is_file():
            assert f"{home}/" not in path.read_text(encoding="utf-8"), name
