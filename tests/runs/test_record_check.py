"""``fedsafe ledger verify`` finds every epsilon of the record again: what a report shows cannot be understated."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsafe import run
from fedsafe.cli.ledger import verify_command
from fedsafe.errors import LedgerError
from fedsafe.privacy.claim import SEED_KEY
from fedsafe.store import RunFolder

ROUNDS = 3
VALUES: dict[str, Any] = {
    "task": "breast-cancer",
    "rounds": ROUNDS,
    "federation": {"clients": 8, "cohort": {"name": "poisson", "rate": 0.5}},
    "client": {"steps": 1, "rate": 0.2},
    "privacy": {
        "noise_key": "seed",
        "record": {"epsilon": 8.0, "delta": 1e-3},
        "client": {"epsilon": 8.0, "delta": 1e-2},
    },
    "server": {"aggregator": "chosen_noise"},
    "assess": {"assessors": []},
    "engine": {"name": "inline"},
    "sinks": [],
}  # fmt: skip
Lines = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return run(VALUES, out=tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture
def folder(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def edited(folder: Path, change: Callable[[Lines], object]) -> None:
    path = folder / "record.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_an_untouched_record_agrees(folder, capsys):
    verify_command(folder)
    assert "every recorded epsilon found again" in capsys.readouterr().out


def test_of_another_versions_record_figures_alone_are_compared_and_that_is_said(folder, capsys):
    def change(lines: Lines) -> None:
        lines[0]["versions"]["fedsafe"] = "0.0.0"
        lines[0]["claims"][1]["adversary"] = "as that version worded it"

    edited(folder, change)
    verify_command(folder)
    assert "the wording of the claims was not compared" in capsys.readouterr().out
    edited(folder, _claim(epsilon=0.5))
    with pytest.raises(LedgerError, match=r"says epsilon 0\.5"):
        verify_command(folder)


def _claim(**changes: Any) -> Callable[[Lines], object]:
    return lambda lines: lines[0]["claims"][1].update(changes)


def _cell(adversary: str, unit: str, **changes: Any) -> Callable[[Lines], object]:
    def change(lines: Lines) -> None:
        (cell,) = (c for c in lines[0]["matrix"] if (c["adversary"], c["unit"]) == (adversary, unit))
        cell.update(changes)

    return change


EDITS: dict[str, tuple[Callable[[Lines], object], str]] = {
    "a smaller epsilon": (_claim(epsilon=0.5), "client-level claim .* says epsilon 0.5"),
    "a smaller delta": (_claim(delta=1e-9), "says delta 1e-09"),
    "another adversary": (_claim(adversary="the server, who sees each update"), "says adversary 'the server"),
    "a smaller epsilon in words alone": (_claim(statement="(0.5, 0.01)-private"), "statement does not say"),
    "a better source of noise": (_claim(randomness="256 bits from the operating system"), "says randomness"),
    "two record headlines": (lambda lines: lines[0]["claims"].pop(), "not one for each"),
    "a claim where there is none": (_cell("server", "client", epsilon=1.0), "client against server .* None"),
    "a smaller spend": (lambda lines: lines[2]["spend"].update(record=0.1), "round 2 .* a record has spent"),
    "no spend": (lambda lines: lines[2]["spend"].update(client=None), "round 2 .* a client has spent"),
    "a round left out": (lambda lines: lines.pop(2), "line of round 2 .* round 3 stands in its place"),
    "fewer rounds at the end": (lambda lines: lines[-1].update(rounds=1), "counts 1 rounds, and there are 3"),
    "the ledger of an earlier round": (
        lambda lines: lines[3].update(ledger=lines[2]["ledger"]),
        "round 3 .* event 2, which it names",
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_of_the_record_is_named(folder, edit):
    change, said = EDITS[edit]
    edited(folder, change)
    with pytest.raises(LedgerError, match=said) as caught:
        verify_command(folder)
    assert "\n" not in str(caught.value)


def test_a_ledger_cut_together_with_the_heads_of_the_record_is_found(folder):
    """Each line then names an event that is there: but that of an earlier round."""
    database = sqlite3.connect(folder / "private" / "ledger.sqlite")
    with database:
        sequence, head = database.execute("SELECT sequence, hash FROM event WHERE round = 1").fetchone()
        database.execute("DELETE FROM event WHERE sequence > ?", (sequence,))
        database.execute("DELETE FROM release WHERE round > 1")
    database.close()
    for number in range(2, ROUNDS + 1):
        (folder / "checkpoints" / f"round-{number:05d}.safetensors").unlink()

    def change(lines: Lines) -> None:
        for line in lines[2:-1]:
            line["ledger"] = {"sequence": sequence, "head": head}

    edited(folder, change)
    with pytest.raises(LedgerError, match="line of round 2"):
        verify_command(folder)


def test_a_checkpoint_that_is_not_the_recorded_one_is_found(folder):
    """Whole, and with the right head of the ledger: but another model than the record's."""
    run_folder = RunFolder.open(folder)
    tensors, metadata = run_folder.read_checkpoint(2)
    run_folder.write_checkpoint(2, {**tensors, "parameters": 2.0 * tensors["parameters"]}, metadata)
    with pytest.raises(LedgerError, match="checkpoint of round 2 is not the one in the record"):
        verify_command(folder)


def test_a_run_whose_key_follows_from_the_seed_must_say_so(folder):
    def change(lines: Lines) -> None:
        for claim in lines[0]["claims"]:
            assert claim["randomness"] == SEED_KEY
            claim["randomness"] = "streams keyed by the operating system"
            claim["statement"] = claim["statement"].replace(SEED_KEY.capitalize(), "")

    edited(folder, change)
    with pytest.raises(LedgerError, match="which is not how the key was made"):
        verify_command(folder)
