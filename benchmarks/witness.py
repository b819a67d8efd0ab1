"""An independent witness: nothing leaves that the ledger does not know, whenever the run is killed.

python benchmarks/witness.py [--kills 100] [--seed 0] [--json]

A run in a process of its own reports each message before it is delivered, and waits until this process has written and
synced it to a file. The run is killed with SIGKILL at random moments and resumed; after each kill the file is compared
with the ledger, which is read without FedSafe's code. Control: a run that sends before it reserves is caught. Then the
ledger of a run is cut, replaced by an older copy, and edited: resuming refuses each. Writes ``results/witness.json``.
"""

import argparse
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from flwr.app import Message
from lines import ROOT, Lines

from fedsafe.engine.grid import SERVER_NODE, InlineGrid
from fedsafe.errors import LedgerError
from fedsafe.privacy.ledger import Ledger
from fedsafe.runs import resume, run

ROUNDS = 20
CONFIG: dict[str, Any] = {
    "task": "breast-cancer",
    "rounds": ROUNDS,
    "federation": {
        "clients": 10,
        "client_validation": 0.2,
        "cohort": {"name": "poisson", "rate": 0.5},
        "evaluation": {"every": 3, "epsilon": 0.2},
    },
    "client": {"steps": 2, "rate": 0.25},
    "privacy": {"record": {"epsilon": 0.5}, "client": {"epsilon": 0.5}},
    "assess": {"every": ROUNDS, "assessors": ["performance"]},
    "engine": {"name": "inline"},
}
# What the ledger calls that which a message asks for.
EVENTS = {"train": "round", "evaluate": "evaluation"}


class Departure(NamedTuple):
    """A message on its way to a client."""

    kind: str
    round: int
    client: int
    content: str


class WitnessedGrid(InlineGrid):
    """Reports each message before it is delivered, and waits for the answer."""

    channel: ClassVar[tuple[int, int]]

    def exchange(self, messages: Sequence[Message], timeout: float | None) -> list[Message]:
        for message in messages:
            arrays = message.content.array_records["arrays"]
            content = hashlib.sha256(b"".join(array.data for array in arrays.values())).hexdigest()
            about = message.metadata
            departure = Departure(
                EVENTS[about.message_type],
                int(about.group_id),
                about.dst_node_id - SERVER_NODE - 1,
                content,
            )
            os.write(self.channel[0], json.dumps(departure).encode() + b"\n")
            if os.read(self.channel[1], 1) != b".":
                raise RuntimeError("the witness is gone")
        return super().exchange(messages, timeout)


@dataclass
class Witness:
    """Writes down what leaves; it outlives every kill.

    Args:
        path: Where to.
        departures: All that left.
    """

    path: Path
    departures: list[Departure] = field(default_factory=list)

    def listen(self, heard: int, answer: int) -> None:
        """Until the sender is gone: write, sync, and only then answer."""
        with os.fdopen(heard, "rb") as lines, self.path.open("ab") as file:
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
                self.departures.append(Departure(*json.loads(line)))
                try:
                    os.write(answer, b".")
                except BrokenPipeError:
                    break  # killed while it waited

    def ahead(self, ledger: Path) -> list[str]:
        """What left and is not in the ledger, or left a second time with other contents."""
        spent = spent_in(ledger)
        missing = [
            f"{one.kind} {one.round} to client {one.client}"
            for one in self.departures
            if one.client not in spent.get((one.kind, one.round), set())
        ]
        contents: dict[tuple[str, int], set[str]] = {}
        for one in self.departures:
            contents.setdefault((one.kind, one.round), set()).add(one.content)
        return missing + [
            f"{kind} {number} twice" for (kind, number), all_of in contents.items() if len(all_of) > 1
        ]


def spent_in(ledger: Path) -> dict[tuple[str, int], set[int]]:
    """Whom each event of the ledger is about, by its rows alone."""
    if not ledger.exists():
        return {}
    database = sqlite3.connect(ledger)
    try:
        rows = database.execute("SELECT sequence, kind, round, body FROM event ORDER BY sequence").fetchall()
    except sqlite3.OperationalError:  # killed before it had tables
        return {}
    finally:
        database.close()
    bodies = {sequence: json.loads(body) for sequence, *_, body in rows}
    cancelled = {body["of"] for body in bodies.values() if "of" in body}
    return {
        (kind, number): set(bodies[sequence]["cohort"])
        for sequence, kind, number, _ in rows
        if kind in EVENTS.values() and sequence not in cancelled
    }


def ledger_of(folder: Path) -> Path:
    return folder / "private" / "ledger.sqlite"


def resumable(folder: Path) -> bool:
    record = folder / "record.jsonl"
    return record.exists() and record.stat().st_size > 0


def attempt(folder: Path, witness: Witness, until: Callable[[], bool], *, late: bool = False) -> bool:
    """Start or resume the run in a child, and kill it when a condition holds; whether it was killed.

    Args:
        folder: Of the run.
        witness: Of what leaves it.
        until: Asked again and again.
        late: Whether the child sends without having reserved: what the witness must catch.
    """
    heard, said = os.pipe()
    answered, answer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        os.close(answer)
        _child(folder, (said, answered), late)
    os.close(said)
    os.close(answered)
    listener = threading.Thread(target=witness.listen, args=(heard, answer))
    listener.start()
    status = None
    while status is None:
        if until():
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        else:
            done, found = os.waitpid(child, os.WNOHANG)
            status = found if done else None
            time.sleep(0.001)
    listener.join()
    os.close(answer)
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        raise RuntimeError(f"the run failed with {code}")
    return code == -signal.SIGKILL


def _child(folder: Path, channel: tuple[int, int], late: bool) -> None:
    code = 1
    try:
        WitnessedGrid.channel = channel
        importlib.import_module("fedsafe.runs.run").InlineGrid = WitnessedGrid  # type: ignore[attr-defined]
        if late:
            Ledger.reserve = lambda self, **asked: self.head  # type: ignore[method-assign]
        if resumable(folder):
            resume(folder)
        else:
            run(CONFIG, out=folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def killed_at_random(folder: Path, kills: int, rng: random.Random, longest: float) -> dict[str, Any]:
    """Kill runs until so many kills have landed, and compare witness and ledger after each.

    There are more kills than asked for where none of those came after a message: they would show nothing.
    """
    landed, inside, messages, runs, ahead = 0, 0, 0, 0, []
    while landed < kills or not messages:
        own = folder / f"run-{runs}"
        witness, runs, going = Witness(folder / f"witness-{runs}.jsonl"), runs + 1, True
        while going and (landed < kills or not witness.departures):
            recorded = _recorded(own)
            going = attempt(own, witness, after(rng.uniform(0.0, longest)))
            landed += going
            ahead += witness.ahead(ledger_of(own))
            # The last round that left is not the last one recorded: the kill was in the middle of it.
            newest = max((one.round for one in witness.departures), default=0)
            inside += going and newest > max(recorded, _recorded(own))
            if not resumable(own):
                if witness.departures:
                    ahead.append("messages of a run that cannot be resumed")
                shutil.rmtree(own, ignore_errors=True)
        written = witness.path.read_bytes().splitlines() if witness.path.exists() else []
        if [Departure(*json.loads(line)) for line in written] != witness.departures:
            raise RuntimeError("the witness's file is not what it heard")
        messages += len(witness.departures)
    return {"kills": landed, "inside": inside, "runs": runs, "messages": messages, "ahead": ahead}


def _recorded(folder: Path) -> int:
    record = folder / "record.jsonl"
    return record.read_text().count('"kind":"round"') if record.exists() else 0


def control(folder: Path) -> list[str]:
    """What the witness says of a run that sends first."""
    witness = Witness(folder / "control.jsonl")
    attempt(folder / "control", witness, lambda: bool(witness.departures), late=True)
    return witness.ahead(ledger_of(folder / "control"))


def damaged(folder: Path) -> dict[str, str]:
    """What resuming says to each damage of a ledger, of a run that was killed after some rounds."""
    own, older = folder / "damaged", folder / "older.sqlite"
    witness = Witness(folder / "damaged.jsonl")
    attempt(own, witness, lambda: _recorded(own) >= 3)
    spent_in(ledger_of(own))  # rolls back what the kill left half-written, as opening does
    shutil.copy(ledger_of(own), older)
    before = _recorded(own)
    attempt(own, witness, lambda: _recorded(own) >= before + 3)
    # Here too: a journal beside an older copy would make it the newer ledger again.
    spent_in(ledger_of(own))
    last = max(_recorded(own), 1)

    def sql(*statements: str) -> Callable[[Path], None]:
        def change(ledger: Path) -> None:
            with sqlite3.connect(ledger) as database:
                for statement in statements:
                    database.execute(statement)
            database.close()

        return change

    changes: dict[str, Callable[[Path], None]] = {
        "a truncated tail": sql(
            f"DELETE FROM event WHERE round >= {last}", f"DELETE FROM release WHERE round >= {last}"
        ),
        "a restored older copy": lambda ledger: shutil.copy(older, ledger) and None,
        "an edited row": sql(
            "UPDATE event SET body = replace(body, '[', '[0,') WHERE round = 2 AND kind = 'round'"
        ),
    }
    said = {}
    for name, change in changes.items():
        copy = folder / name.replace(" ", "-")
        shutil.copytree(own, copy)
        change(ledger_of(copy))
        try:
            resume(copy)
            said[name] = ""
        except LedgerError as error:
            said[name] = str(error)
    # Untouched, the same copy goes on: what was refused is the damage.
    shutil.copytree(own, folder / "untouched")
    resume(folder / "untouched")
    said["untouched"] = (
        "resumed"
        if not Witness(folder / "none", witness.departures).ahead(ledger_of(folder / "untouched"))
        else "behind the witness"
    )
    return said


def measure(kills: int, seed: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Here, so that the children inherit what was imported and calibrated.
        run(CONFIG, out=folder / "warm")
        began = time.monotonic()
        run(CONFIG, out=folder / "timed")
        longest = time.monotonic() - began
        return {
            **killed_at_random(folder, kills, random.Random(seed), longest),
            "control": control(folder),
            "damages": damaged(folder),
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print what was found, and write no file")
    options = parser.parse_args()
    found = measure(options.kills, options.seed)
    if options.json:
        print(json.dumps(found))
        return
    lines, command = Lines(ROOT), "python benchmarks/witness.py"
    lines.add(
        f"a witness that logs and syncs each outgoing message is never ahead of the ledger after {options.kills} "
        "SIGKILLs at random moments",
        command,
        f"{found['kills']} kills of {found['runs']} runs, {found['inside']} in the middle of a round; "
        f"{found['messages']} messages, ahead: {found['ahead'] or 'never'}",
        met=found["kills"] >= options.kills and not found["ahead"],
    )
    lines.add(
        "control: a run that sends before it reserves is caught",
        command,
        "; ".join(found["control"]) or "not caught",
        met=bool(found["control"]),
    )
    for damage, said in found["damages"].items():
        refused = damage != "untouched"
        lines.add(
            f"{damage} is detected, and resume refuses it"
            if refused
            else "the same run untouched is resumed",
            command,
            said or "resumed",
            met=bool(said) and (refused or said == "resumed"),
        )
    sys.exit(lines.write("witness", seed=options.seed))


if __name__ == "__main__":
    main()
