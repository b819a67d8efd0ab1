"""A hospital behind its gate, and a server that may send it anything: all in this process."""

import hashlib
import io
import itertools
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedsafe.apps.code import code_digest
from fedsafe.apps.nodes import EXPERIMENT, JOIN, RUN
from fedsafe.apps.refusals import refusal_in
from fedsafe.deploy.bundle import bundle_digest
from fedsafe.deploy.gate import Gate
from fedsafe.deploy.policy import Policy, make_policy
from fedsafe.deploy.runtime import Work
from fedsafe.engine.grid import identify
from fedsafe.federation.messages import instruction_content, pack_parameters, with_correction
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts, calibrate, compose
from fedsafe.runs.config import parse_config

NORTH, SOUTH = 20, 30
ROWS = {"north": 25, "south": 38}  # a fifth of them is kept for validation
SCHEMA = """format = "fedsafe.schema/1"
[label]
column = "ill"
classes = ["no", "yes"]
[columns.age]
kind = "numeric"
low = 0
high = 100
[columns.sex]
kind = "categorical"
categories = ["f", "m"]
"""
DATA = """format = "fedsafe.data-source/1"
client = "north"
schema = "schema.toml"
path = "patients.csv"
validation = 0.2
"""
THIN = {
    "pyproject.toml": tomli_w.dumps(
        {"tool": {"flwr": {"app": {"components": {"clientapp": "fedsafe.apps.client:app"}}}}}
    )
}


def bundle(files: dict[str, str]) -> bytes:
    """A Flower bundle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return made.getvalue()


def experiment(folder: Path, **changes: Any) -> str:
    """The configuration that the server sends, with changes named with ``__`` for the dots."""
    schema = folder / "schema.toml"
    task = {
        "name": "deployed",
        "schema": str(schema),
        "schema_sha256": hashlib.sha256(schema.read_bytes()).hexdigest(),
        "clients": {"north": NORTH, "south": SOUTH},
    }
    values: dict[str, Any] = {
        "task": task,
        "model": "logistic",
        "rounds": 3,
        "federation": {"partition": {"name": "natural"}, "cohort": {"name": "poisson", "rate": 1.0}},
        "client": {"steps": 2, "rate": 0.5},
        "server": {"aggregator": "fedavg"},
        # Little epsilon is much noise, whose loss distribution is quick to compose.
        "privacy": {"record": {"epsilon": 0.5}, "client": {"epsilon": float("inf")}},
        "engine": {"name": "flower", "workers": 1},
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        section = values
        for key in path:
            if not isinstance(section.get(key), dict):
                section[key] = {}
            section = section[key]
        section[last] = value
    return tomli_w.dumps(values)


@lru_cache(maxsize=32)
def composed(text: str) -> tuple[Parts, PrivacyPlan]:
    """What an honest server makes of a configuration."""
    parts = compose(parse_config(text))
    return parts, calibrate(parts)


def policy(**changes: Any) -> Policy:
    """What the hospital allows."""
    values: dict[str, Any] = {
        "client": "north",
        "budget": {"record": {"epsilon": 1.0, "delta": 2.5e-5}},
        "mechanism": {"least_noise": 0.5},
        "code": {"apps": [bundle_digest(bundle(THIN))], "fedsafe": [code_digest()]},
        "timing": {"answer_multiple": 0.0},
    }
    for name, value in changes.items():
        *path, last = name.split("__")
        section = values
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return make_policy(values)


@dataclass
class Hospital:
    """The folder of one hospital, its gate, and a server's messages to it."""

    folder: Path
    text: str = ""
    run: str = "a" * 32
    name: str = "north"
    fab: bytes = field(default_factory=lambda: bundle(THIN))
    clock: Callable[[], float] = lambda: 1e9
    sent: list[Message] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "schema.toml").write_text(SCHEMA)
        if not (self.folder / "patients.csv").exists():
            (self.folder / "patients.csv").write_text(patients(ROWS[self.name]))
        (self.folder / "data.toml").write_text(DATA.replace("north", self.name))
        if not (self.folder / "policy.toml").exists():
            self.allow()
        self.text = self.text or experiment(self.folder)
        self.said: list[dict[str, Any]] = []
        self.gate = self._gate()

    def allow(self, **changes: Any) -> None:
        """Write another policy; the gate reads it when it starts."""
        (self.folder / "policy.toml").write_text(policy(client=self.name, **changes).to_toml())

    def restart(self) -> "Hospital":
        """End the gate as a kill does, and start another."""
        self.gate.close()
        self.gate = self._gate()
        return self

    def join(self) -> Message:
        return self.send(RecordDict(), JOIN)

    def ask(
        self,
        round: Any = 1,
        *,
        kind: str = "train",
        shift: float = 0.0,
        plan: str | None = None,
        announced: dict[str, float] | None = None,
        correction: float | None = None,
        change: Callable[[RecordDict], None] = lambda content: None,
    ) -> Message:
        """A round of the honest server, with the changes given."""
        parts, agreed = composed(self.text)
        arrays = pack_parameters(parts.initial + np.float32(shift), parts.layout)
        content = instruction_content(
            arrays, round=round, plan=agreed.hash if plan is None else plan, announced=announced
        )
        if correction is not None:
            content = with_correction(content, np.full(parts.layout.total, correction, np.float32))
        change(content)
        return self.send(content, kind)

    def send(self, content: RecordDict, kind: str, text: str | None = None) -> Message:
        content[EXPERIMENT] = ConfigRecord(
            {"config": self.text if text is None else text, "folders": ["/"], RUN: self.run}
        )
        return self.deliver(content, kind)

    def deliver(self, content: RecordDict, kind: str, problem: str | None = None) -> Message:
        """Whatever it is, and what the gate hands to the SuperNode."""
        identify()
        message = Message(content, dst_node_id=2, message_type=kind, group_id=str(next(_NUMBERS)))
        context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
        reply = self.gate.answer(Work(message=message, context=context, fab=self.fab, problem=problem))
        self.sent.append(reply)
        return reply

    def kinds(self) -> list[str]:
        """The kinds of the ledger's events, the first left out."""
        return [event.kind for event in self.gate.ledger.events[1:]]

    def details(self) -> str:
        """Why the last request was refused, as the hospital's own people read it."""
        return str(self.gate.ledger.events[-1].body["detail"])

    def _gate(self) -> Gate:
        def say(event: str, **fields: Any) -> None:
            self.said.append({"event": event, **fields})

        return Gate(self.folder, clock=lambda: self.clock(), say=say)


_NUMBERS = itertools.count(1)


def patients(rows: int = 25, seed: int = 1) -> str:
    """A table of 25 records, of which 5 are kept for validation."""
    rng = np.random.default_rng(seed)
    lines = ["age,sex,ill"]
    for _ in range(rows):
        age = int(rng.integers(1, 99))
        lines.append(f"{age},{'fm'[int(rng.integers(2))]},{'yes' if age > 50 else 'no'}")
    return "\n".join(lines) + "\n"


def refused(reply: Message) -> str:
    """The reason in a refusal, after checking that nothing else is in it."""
    assert reply.has_error(), "an answer was expected to be refused"
    assert not reply.has_content()
    refusal = refusal_in(reply.error)
    assert refusal is not None, f"{reply.error.code} {reply.error.reason} is not on the list"
    assert (reply.error.reason or "") == refusal.value
    return refusal.value


def fold(reply: Message) -> bytes:
    """Every byte of the update in a reply."""
    assert not reply.has_error(), reply.error.reason
    arrays = reply.content.array_records["fold"]
    return b"".join(name.encode() + arrays[name].data for name in sorted(arrays))
