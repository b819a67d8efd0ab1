"""Whole runs with an aggregator that remembers, or with one of a user's own: crashes, resuming, and what is shared."""

import math
import shutil

import numpy as np
import pytest
from tiny_federation import config

from fedsafe.aggregation import RowRule
from fedsafe.errors import EngineError, RecordError
from fedsafe.runs import resume, run
from fedsafe.store import RunFolder
from fedsafe.store.checkpoints import content_digest

ROUNDS = 4


def values(**changes):
    settings = {
        "server__aggregator": "scaffold",
        "privacy__client__epsilon": math.inf,
        "privacy__noise_key": "seed",
    }
    return config(rounds=ROUNDS, **{**settings, **changes})


def states(path):
    return sorted(file.name for file in (path / "private").glob("aggregator-state-*"))


def essence(path):
    """Parameters, optimiser and memory, whatever happened on the way."""
    folder = RunFolder.open(path)
    return {
        "checkpoints": [content_digest(folder.read_checkpoint(n)[0]) for n in folder.checkpoints()],
        "memory": content_digest(folder.read_aggregator_state(ROUNDS)[0]),
        "rounds": [line.parameters_sha256 for line in folder.record() if hasattr(line, "parameters_sha256")],
        "files": sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(values(), out=tmp_path_factory.mktemp("whole") / "run").path


def killed(monkeypatch, method, when):
    """The process dies in a method of the run folder: before its work at the ``when``-th call."""
    calls, real = [], getattr(RunFolder, method)

    def dying(self, *arguments, **options):
        calls.append(method)
        if len(calls) == when:
            raise KeyboardInterrupt
        return real(self, *arguments, **options)

    monkeypatch.setattr(RunFolder, method, dying)


@pytest.mark.parametrize(
    ("method", "when"),
    [
        ("write_aggregator_state", 1),
        ("write_aggregator_state", 3),
        ("write_checkpoint", 1),  # the memory of round 1 is written, its model is not
        ("write_checkpoint", 3),
        ("append_record", 4),  # the model of round 3 is written, its line is not
        ("append_timing", 4),
    ],
)
def test_a_crash_between_any_two_files_changes_nothing(monkeypatch, tmp_path, whole, method, when):
    with monkeypatch.context() as patched:
        killed(patched, method, when)
        with pytest.raises(KeyboardInterrupt):
            run(values(), out=tmp_path / "run")
    assert len(RunFolder.open(tmp_path / "run").checkpoints()) < ROUNDS
    resume(tmp_path / "run")
    assert essence(tmp_path / "run") == essence(whole)


def test_the_memory_stays_private_and_only_the_newest_two_are_kept(whole):
    assert states(whole) == ["aggregator-state-00003.safetensors", "aggregator-state-00004.safetensors"]
    shared = [file for file in whole.rglob("*") if file.is_file() and "private" not in file.parts]
    assert not [file for file in shared if "aggregator" in file.name]
    memory, _ = RunFolder.open(whole).read_aggregator_state(ROUNDS)
    assert memory["variates"].any()
    for number in range(1, ROUNDS + 1):
        tensors, metadata = RunFolder.open(whole).read_checkpoint(number)
        assert set(tensors) == {"parameters", "velocity"}
        assert set(metadata) == {"sequence", "head"}


def test_a_run_that_remembers_nothing_keeps_nothing(tmp_path):
    run(config(privacy__noise_key="seed"), out=tmp_path / "run")
    assert states(tmp_path / "run") == []


@pytest.fixture
def halfway(whole, tmp_path):
    """As killed after round 3."""
    shutil.copytree(whole, tmp_path / "run")
    folder = RunFolder.open(tmp_path / "run")
    folder.truncate_after("record.jsonl", 4)
    (folder.path / "checkpoints" / "round-00004.safetensors").unlink()
    return folder.path


def test_the_copy_can_be_resumed(halfway, whole):
    resume(halfway)
    assert essence(halfway) == essence(whole)


def test_a_run_whose_memory_is_missing_is_not_resumed(halfway):
    (halfway / "private" / "aggregator-state-00003.safetensors").unlink()
    with pytest.raises(RecordError, match="aggregator-state-00003"):
        resume(halfway)


def test_the_memory_of_another_round_is_refused(halfway):
    private = halfway / "private"
    shutil.copy(
        private / "aggregator-state-00004.safetensors", private / "aggregator-state-00003.safetensors"
    )
    with pytest.raises(RecordError, match="does not belong to the checkpoint of round 3"):
        resume(halfway)


@pytest.mark.parametrize("optimizer", ["adam", "yogi"])
def test_an_adaptive_server_is_resumed_to_the_bit(monkeypatch, tmp_path, optimizer):
    """Its two moments travel in the checkpoint, with the noise of both levels in the updates."""
    settings = config(rounds=3, privacy__noise_key="seed", server__optimizer={"name": optimizer})
    at_once = run(settings, out=tmp_path / "whole").path
    with monkeypatch.context() as patched:
        killed(patched, "write_checkpoint", 2)
        with pytest.raises(KeyboardInterrupt):
            run(settings, out=tmp_path / "run")
    resume(tmp_path / "run")
    ends = [RunFolder.open(path).read_checkpoint(3)[0] for path in (at_once, tmp_path / "run")]
    assert set(ends[0]) == {"parameters", "first_moment", "second_moment"}
    assert content_digest(ends[0]) == content_digest(ends[1])
    assert np.abs(ends[0]["first_moment"]).min() > 0


class Drops(RowRule):
    """Works in a rehearsal, and not with a federation."""

    name = "drops"

    def combine(self, updates):
        if updates.clients.max() > 5:
            raise IndexError("only six clients were foreseen")
        return updates.rows.mean(axis=0)


class Halves(RowRule):
    """A working one, with an option."""

    name = "halves"

    def __init__(self, *, share: float) -> None:
        self.share = share

    def combine(self, updates):
        return self.share * updates.rows.mean(axis=0)


def test_a_rule_of_your_own_runs(tmp_path):
    mine = {"name": "test_remembering_runs:Halves", "share": 0.5}
    finished = run(values(server__aggregator=mine), out=tmp_path / "run")
    assert finished.end.rounds == ROUNDS
    assert "share = 0.5" in (tmp_path / "run" / "config.toml").read_text()


def test_a_rule_of_your_own_that_breaks_in_a_round_is_named_in_one_line(tmp_path):
    with pytest.raises(
        EngineError, match="'test_remembering_runs:Drops' failed in finish: IndexError: only six"
    ) as caught:
        run(values(server__aggregator="test_remembering_runs:Drops"), out=tmp_path / "run")
    assert "\n" not in str(caught.value)
