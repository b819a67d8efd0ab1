"""The ClientApp that Flower loads by name: one node, which is one client, with a noise key of its own.

What a node tells the server is in three places: the fold of its noised update or score, which is charged; that it
joined, which is public; and the reason of an error. A reason is told only where no record can have shaped it.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

import fedsafe
from fedsafe.apps.agreed import inputs_digest, least_apart, most_releases, require_as_planned
from fedsafe.apps.code import code_digest
from fedsafe.apps.joining import JOINED, MEMORY
from fedsafe.apps.log import LOG
from fedsafe.apps.memory import NodeMemory
from fedsafe.apps.nodes import EXPERIMENT, JOIN
from fedsafe.apps.settings import for_flower
from fedsafe.errors import EngineError, PlanViolation
from fedsafe.extensions import search
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import read_correction, read_instruction
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import key_from_seed, new_key
from fedsafe.runs import read_config
from fedsafe.runs.compose import Parts, calibrate, client_runtime, compose
from fedsafe.runs.config import parse_config

_FAILED = 0  # Flower's code for an unknown error

app = ClientApp()


@app.query(JOIN.partition(".")[2])
def join(message: Message, context: Context) -> Message:
    """Load the data, come to the privacy plan, and say which client this is."""
    return _answer(_join, message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the client of this node, once for each round."""
    return _answer(_release, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Score the model on the validation records of this node, once for each planned evaluation."""
    return _answer(_release, message, context)


def _answer(act: Callable[[Message, Context], Message], message: Message, context: Context) -> Message:
    try:
        return act(message, context)
    except (EngineError, PlanViolation) as error:
        reason = f"{type(error).__name__}: {error}"
    except Exception as error:
        LOG.exception("this client could not answer a %s message", message.metadata.message_type)
        cause = error.__cause__ if isinstance(error, _UnsaidError) else error
        reason = f"{type(cause).__name__}, which the log of the node explains"
    return Message(Error(code=_FAILED, reason=reason), reply_to=message)


class _UnsaidError(Exception):
    """Caused by something whose text stays here: it may quote a record, even if it is an error of ours."""


@contextmanager
def _near_records() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise _UnsaidError from error


def _join(message: Message, context: Context) -> Message:
    text = _experiment(message, context)
    parts = _parts(text)
    _require_gate(parts)
    client = _client(context, len(parts.records))
    plan = _agreed(text, parts, NodeMemory(context))
    LOG.info(
        "client %d of %d comes to plan %s with fedsafe %s from %s",
        client,
        plan.clients,
        plan.hash[:12],
        fedsafe.__version__,
        fedsafe.__file__,
    )
    if not plan.record.private:
        LOG.warning("what this client uploads has no noise: its records are not protected from the server")
    elif parts.config.privacy.noise_key == "seed":
        LOG.warning(
            "the noise of this client follows from the seed: it protects from nobody who knows the seed"
        )
    runs = {"fedsafe": fedsafe.__version__, "code": code_digest()}
    said = ConfigRecord({"client": client, "plan": plan.hash, "ledger": MEMORY, **runs})
    return Message(RecordDict({JOINED: said}), reply_to=message)


def _release(message: Message, context: Context) -> Message:
    text = _experiment(message, context)
    parts = _parts(text)
    client = _client(context, len(parts.records))
    _require_gate(parts)
    memory, kind = NodeMemory(context), message.metadata.message_type
    plan = _agreed(text, parts, memory)
    instruction = read_instruction(message, parts.layout)
    correction = read_correction(message, parts.layout)
    require_as_planned(parts, plan, kind, instruction, correction)
    memory.release(
        kind,
        instruction.round,
        inputs_digest(plan, instruction, correction),
        most=most_releases(kind, instruction.round, plan, client),
        apart=least_apart(kind, plan),
    )
    with _near_records():
        runtime = replace(_runtime(text, json.dumps(plan.numbers())), key=memory.key)
        return runtime.answer(message, context)


def _require_gate(parts: Parts) -> None:
    if parts.config.aggregation.secure:
        raise EngineError(
            "aggregation.secure = true needs a client that keeps its keys and what it has answered, and has the keys "
            "of the others from somebody else than the server: run a gate (fedsafe deploy), or leave it out"
        )


def _agreed(text: str, parts: Parts, memory: NodeMemory) -> PrivacyPlan:
    """The plan of an experiment, which is the one of this run or an error."""
    plan = memory.plan
    if plan is None:
        with _near_records():
            plan = calibrate(parts)
    config = parts.config
    seeded = config.privacy.noise_key == "seed"
    memory.agree(plan, text, partial(key_from_seed, config.seed) if seeded else new_key)
    return plan


def _experiment(message: Message, context: Context) -> str:
    """The configuration as TOML: the node's own, if it has one, or the server's."""
    own = context.node_config.get("config")
    if own is not None:
        return for_flower(read_config(Path(str(own)))).to_toml()
    sent = message.content.config_records[EXPERIMENT]
    # Where the server's folders are this machine's, as in a simulation, its import paths lead to the same modules.
    search(cast("list[str]", sent["folders"]))
    return cast("str", sent["config"])


def _client(context: Context, clients: int) -> int:
    said = context.node_config.get("partition-id")
    if not isinstance(said, int) or not 0 <= said < clients:
        raise EngineError(
            f"the node's partition-id is {said!r}: start it with --node-config 'partition-id=K', where K is a number "
            f"from 0 to {clients - 1}"
        )
    return said


@lru_cache(maxsize=1)
def _parts(text: str) -> Parts:
    # A result must not depend on how many threads a machine has.
    torch.set_num_threads(1)
    with _near_records():
        return compose(parse_config(text))


@lru_cache(maxsize=1)
def _runtime(text: str, plan: str) -> ClientRuntime:
    """What trains this process's clients; the key is one that nobody uses: each client brings its own."""
    return client_runtime(_parts(text), PrivacyPlan.from_numbers(json.loads(plan)), new_key())
