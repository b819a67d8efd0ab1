"""The same tiny experiment on Flower's simulation engine and on a SuperLink with two SuperNodes, as a user runs it."""

import json
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import tomli_w
from flower_runtimes import DEPLOYED, LOCAL, Flower
from quiet_environment import QUIET
from tiny_federation import config

import fedsafe
from fedsafe.privacy.chain import read_events
from fedsafe.runs import Run, read_config

NODES = 2
# On SuperNodes each message is a new process, which takes seconds to import torch.
ROUNDS = {LOCAL: 2, DEPLOYED: 1}


@dataclass(frozen=True)
class Finished:
    """What both runs left behind, after everything was ended."""

    folder: Path
    said: dict[str, str]
    home: Path
    left: dict[int, str]

    def run(self, link: str) -> Run:
        assert (self.folder / link / "record.jsonl").is_file(), self.said[link]
        return Run(self.folder / link)

    def models(self, link: str) -> list[str]:
        lines = map(json.loads, (self.run(link).path / "record.jsonl").read_text().splitlines())
        return [line["parameters_sha256"] for line in lines if line["kind"] == "round"]


@pytest.fixture(scope="module")
def finished() -> Iterator[Finished]:
    """Both at once: most of the time is spent waiting for Flower's polls. The folder is short, for Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="fsa"))
    experiment = folder / "tiny.toml"
    values = config(federation__clients=NODES, federation__cohort__rate=1.0, privacy__noise_key="seed")
    experiment.write_text(tomli_w.dumps(values))
    (folder / "home").mkdir()
    quiet = {**QUIET, "HOME": str(folder / "home"), "MPLCONFIGDIR": str(folder / "mpl")}
    try:
        with Flower(folder / "f", **quiet) as flower:

            def run(link: str) -> str:
                out = str(folder / link)
                return flower.run(
                    link,
                    nodes=NODES,
                    cpus=1,
                    timeout=240.0,
                    config=str(experiment),
                    overrides=f"rounds={ROUNDS[link]}",
                    out=out,
                )

            with ThreadPoolExecutor(2) as pool:
                asked = {LOCAL: pool.submit(run, LOCAL)}
                # Flower gives its local SuperLink 15 seconds to start: it has the machine to itself until then.
                flower.wait_until_healthy(LOCAL)
                flower.deploy(NODES)
                asked[DEPLOYED] = pool.submit(run, DEPLOYED)
                said = {link: each.result() for link, each in asked.items()}
            said |= {name: flower.log(name) for name in ("superlink", "supernode-0", "supernode-1")}
            assert flower.living(), "the SuperLink that flwr run starts stays until it is stopped"
        for link, rounds in ROUNDS.items():
            fedsafe.run(read_config(experiment, [f"rounds={rounds}"]), out=folder / f"ours-{link}")
        yield Finished(folder=folder, said=said, home=folder / "home", left=flower.living())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("link", [LOCAL, DEPLOYED])
def test_the_run_has_the_models_of_the_command_line_bit_for_bit(finished, link):
    """With noise at both levels, whose key follows from the seed: same plan, batches, noise and fold."""
    ours = f"ours-{link}"
    assert finished.run(link).start.plan == finished.run(ours).start.plan
    assert finished.models(link) == finished.models(ours)
    assert len(finished.models(ours)) == ROUNDS[link]


@pytest.mark.parametrize("link", [LOCAL, DEPLOYED])
def test_the_server_leaves_a_whole_run_folder(finished, link):
    run = finished.run(link)
    assert run.end is not None
    assert run.end.status == "completed"
    assert tomllib.loads((run.path / "config.toml").read_text())["engine"]["name"] == "flower"
    assert run.start.machine["engine"] == "flower"
    events = [event.kind for event in read_events(run.path / "private" / "ledger.sqlite")]
    assert events == ["plan", *["round"] * ROUNDS[link]]
    assert len(list((run.path / "checkpoints").iterdir())) == ROUNDS[link]
    assert len(run.findings())
    assert "<html" in (run.path / "report.html").read_text()


@pytest.mark.parametrize("process", [LOCAL, "supernode-0", "supernode-1"])
def test_client_processes_use_the_installed_package(finished, process):
    """The bundle that Flower unpacks and puts at the front of their path must not stand in for it."""
    used = [
        line.rpartition(" from ")[2]
        for line in finished.said[process].splitlines()
        if "comes to plan" in line
    ]
    assert used
    assert set(used) == {fedsafe.__file__}


def test_nothing_is_left_running(finished):
    assert finished.left == {}


def test_nothing_is_written_to_the_home_of_the_user(finished):
    assert list(finished.home.iterdir()) == []
