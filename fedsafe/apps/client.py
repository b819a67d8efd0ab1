"""The ClientApp that Flower loads by name: one node, which is one client, with a noise key of its own.

What a node tells the server is in three places: the fold of its noised update or score, which is charged; that it
joined, which is public; and the reason of an error. A reason is told only where no record can have shaped it.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

import fedsafe
from fedsafe.apps.log import LOG
from fedsafe.apps.memory import NodeMemory
from fedsafe.apps.nodes import EXPERIMENT, JOIN, JOINED
from fedsafe.apps.settings import for_flower
from fedsafe.errors import EngineError, PlanViolation
from fedsafe.extensions import search
from fedsafe.federation import ClientRuntime
from fedsafe.federation.messages import EVALUATE, TRAIN, read_correction, read_instruction
from fedsafe.params import input_digest
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
        # Its text may quote a record: it stays here.
        LOG.exception("this client could not answer a %s message", message.metadata.message_type)
        reason = f"{type(error).__name__}, which the log of the node explains"
    return Message(Error(code=_FAILED, reason=reason), reply_to=message)


def _join(message: Message, context: Context) -> Message:
    text = _experiment(message, context)
    parts = _parts(text)
    client = _client(context, len(parts.records))
    plan = calibrate(parts)
    _memory(parts, context).agree(plan)
    LOG.info(
        "client %d of %d comes to plan %s with fedsafe %s from %s",
        client,
        plan.clients,
        plan.hash[:12],
        fedsafe.__version__,
        fedsafe.__file__,
    )
    said = ConfigRecord({"client": client, "plan": plan.hash, "fedsafe": fedsafe.__version__})
    return Message(RecordDict({JOINED: said}), reply_to=message)


def _release(message: Message, context: Context) -> Message:
    text = _experiment(message, context)
    parts = _parts(text)
    _client(context, len(parts.records))
    memory = _memory(parts, context)
    plan = memory.plan
    if plan is None:
        plan = calibrate(parts)
        memory.agree(plan)
    kind = message.metadata.message_type
    instruction = read_instruction(message, parts.layout)
    if instruction.plan != plan.hash:
        raise PlanViolation(
            f"the server follows plan {instruction.plan[:12]}, this client agreed to {plan.hash[:12]}"
        )
    correction = read_correction(message, parts.layout)
    digest = input_digest(instruction.parameters, plan.hash)
    if correction is not None:
        digest = hashlib.sha256(digest + np.ascontiguousarray(correction, "<f4").tobytes()).digest()
    memory.release(kind, instruction.round, digest, most=_most(kind, instruction.round, plan))
    runtime = replace(_runtime(text, json.dumps(plan.numbers())), key=memory.key)
    return runtime.answer(message, context)


def _most(kind: str, round: int, plan: PrivacyPlan) -> int:
    """How often the plan lets one client release something of this kind; none of it for a round outside."""
    if not 1 <= round <= plan.rounds:
        return 0
    if kind == TRAIN:
        return plan.record.max_participations
    planned = plan.evaluation if kind == EVALUATE else None
    return plan.rounds // planned.every if planned is not None and planned.due(round) else 0


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


def _memory(parts: Parts, context: Context) -> NodeMemory:
    privacy = parts.config.privacy
    make = partial(key_from_seed, parts.config.seed) if privacy.noise_key == "seed" else new_key
    return NodeMemory(context, make)


@lru_cache(maxsize=1)
def _parts(text: str) -> Parts:
    # A result must not depend on how many threads a machine has.
    torch.set_num_threads(1)
    return compose(parse_config(text))


@lru_cache(maxsize=1)
def _runtime(text: str, plan: str) -> ClientRuntime:
    """What trains this process's clients; the key is one that nobody uses: each client brings its own."""
    return client_runtime(_parts(text), PrivacyPlan.from_numbers(json.loads(plan)), new_key())
