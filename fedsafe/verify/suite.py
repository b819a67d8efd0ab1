"""Every check of a target, in the order of a report."""

from collections.abc import Callable, Collection, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import Strategy

from fedsafe.errors import ConfigError
from fedsafe.extensions import search
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts, calibrate, compose
from fedsafe.runs.config import Config, read_config
from fedsafe.verify import (
    adaptive,
    banded,
    client_clip,
    client_cohorts,
    client_edges,
    client_noise,
    client_released,
    client_rounds,
    client_uploads,
    distributed,
    record_clip,
    record_noise,
    record_released,
    record_sampling,
    secure,
)
from fedsafe.verify.bench import Bench
from fedsafe.verify.declared import DeclaredClaim, read_claim
from fedsafe.verify.desk import Desk
from fedsafe.verify.flower_server import FlowerServer
from fedsafe.verify.loading import Target
from fedsafe.verify.masked import MaskedRounds
from fedsafe.verify.node import FlowerNode, Node
from fedsafe.verify.plan_server import PlanServer
from fedsafe.verify.plans import client_claim, record_claim, record_level
from fedsafe.verify.result import Outcome, Report, not_applicable
from fedsafe.verify.server import Server
from fedsafe.verify.spending import check_epsilon, check_reported

RUNS = 40


def _client_accountant(bench: Bench) -> list[Outcome]:
    claim = bench.claim
    if claim.epsilon_metric is None:
        return [not_applicable("accountant over rounds", "the claim names no epsilon_metric")]
    session, reported = bench.server.start(), {}
    for round in range(1, max(2, min(6, claim.rounds)) + 1):
        measured = bench.round(bench.quiet(), session=session, round=round)
        if claim.epsilon_metric in measured.numbers:
            reported[round] = measured.numbers[claim.epsilon_metric]
    return [check_reported(claim, reported, restarted=None)]


def _record_accountant(desk: Desk) -> list[Outcome]:
    if desk.claim.epsilon_metric is None:
        return [not_applicable("accountant over rounds", "the claim names no epsilon_metric")]
    reported, restarted = record_released.reported_epsilon(desk)
    return [check_reported(desk.claim, reported, restarted=restarted)]


CLIENT: Mapping[str, Callable[[Bench], list[Outcome]]] = {
    "epsilon": lambda bench: check_epsilon(bench.claim),
    "noise": client_noise.check_noise,
    "reuse": client_noise.check_reuse,
    "clip": client_clip.check_clip,
    "neighbours": client_clip.check_neighbours,
    "bad": client_edges.check_bad_updates,
    "empty": client_edges.check_empty,
    "rounds": client_rounds.check_rounds,
    "uploads": client_uploads.check_uploads,
    "banded": banded.check_banded,
    "distributed": distributed.check_distributed,
    "secure": secure.check_secure,
    "sampling": client_cohorts.check_cohorts,
    "metrics": client_released.check_released,
    "adaptive": adaptive.check_adaptive,
    "accountant": _client_accountant,
}
RECORD: Mapping[str, Callable[[Desk], list[Outcome]]] = {
    "epsilon": lambda desk: check_epsilon(desk.claim),
    "noise": record_noise.check_noise,
    "reuse": record_noise.check_reuse,
    "clip": record_clip.check_clip,
    "bad": record_clip.check_bad_records,
    "sampling": record_sampling.check_sampling,
    "metrics": record_released.check_metrics,
    "accountant": _record_accountant,
}


def verify(
    target: str,
    claim: DeclaredClaim | Path | None = None,
    *,
    runs: int = RUNS,
    seed: int = 0,
    path: Path | None = None,
    only: Collection[str] = (),
) -> Report:
    """Hold a target to its claim.

    Args:
        target: A TOML file of an experiment, or ``"module:object"`` of a Flower strategy or ClientApp.
        claim: What it claims, or a file that says so; None for an experiment, whose plan does.
        runs: How often each measurement is repeated.
        seed: Of what is chosen here; the target's own randomness is its own.
        path: A folder to import from, besides the current one.
        only: Names of ``CLIENT`` or ``RECORD``: the checks to make; all if empty.

    Raises:
        ConfigError: The target or the claim cannot be used as it is, or no check has such a name.
    """
    unknown = set(only) - {*CLIENT, *RECORD}
    if unknown:
        raise ConfigError(
            f"no check is called {min(unknown)!r}: there are {', '.join(dict.fromkeys([*CLIENT, *RECORD]))}"
        )
    if runs < 8:
        raise ConfigError(f"--runs {runs}: fewer than 8 runs show nothing; 40 are usual")
    # Small models are slower on many threads, and results must not depend on how many there are.
    torch.set_num_threads(1)
    if target.endswith(".toml"):
        if claim is not None:
            raise ConfigError(f"{target} is an experiment, whose plan is its claim: leave --claim out")
        return verify_plan(read_config(target), name=target, runs=runs, seed=seed, only=only)
    if claim is None:
        raise ConfigError(f"{target} needs --claim FILE, which says what it claims (docs/verify.md)")
    declared = read_claim(claim) if isinstance(claim, Path) else claim
    search([Path.cwd(), *([path] if path is not None else [])])
    loaded, rng = Target(target), np.random.default_rng(seed)
    _require_kind(loaded.get(), declared)
    if declared.level == "client":
        outcomes = check_server(FlowerServer(loaded, declared), declared, runs=runs, rng=rng, only=only)
    else:
        with closing(FlowerNode(loaded, declared)) as node:
            outcomes = check_node(node, declared, runs=runs, rng=rng, only=only)
    return Report(target=target, levels=((declared.line(), tuple(outcomes)),))


def verify_plan(
    config: Config, *, name: str, runs: int = RUNS, seed: int = 0, only: Collection[str] = ()
) -> Report:
    """Hold FedSafe to the plan of an experiment, at both levels."""
    parts = compose(config)
    return check_plan(parts, calibrate(parts), name=name, runs=runs, seed=seed, only=only)


def check_plan(
    parts: Parts, plan: PrivacyPlan, *, name: str, runs: int = RUNS, seed: int = 0, only: Collection[str] = ()
) -> Report:
    """Hold FedSafe to a plan, at both levels."""
    rng = np.random.default_rng(seed)
    levels: list[tuple[str, tuple[Outcome, ...]]] = []
    claim = client_claim(parts, plan)
    if isinstance(claim, str):
        levels.append(("client level", (not_applicable("client level", claim),)))
    else:
        with PlanServer(parts, plan) as server:
            masked = MaskedRounds.of_plan(parts, plan)
            found = check_server(server, claim, runs=runs, rng=rng, only=only, masked=masked)
            levels.append((claim.line(), tuple(found)))
    node = record_level(parts, plan)
    if isinstance(node, str):
        levels.append(("record level", (not_applicable("record level", node),)))
    else:
        declared = record_claim(parts, plan, node)
        levels.append((declared.line(), tuple(check_node(node, declared, runs=runs, rng=rng, only=only))))
    return Report(target=name, levels=tuple(levels))


def check_server(
    server: Server,
    claim: DeclaredClaim,
    *,
    runs: int,
    rng: np.random.Generator,
    only: Collection[str] = (),
    masked: MaskedRounds | None = None,
) -> list[Outcome]:
    """All checks of a client-level claim."""
    bench = Bench(server=server, claim=claim, runs=runs, rng=rng, masked=masked)
    return [o for name, check in CLIENT.items() if not only or name in only for o in check(bench)]


def check_node(
    node: Node, claim: DeclaredClaim, *, runs: int, rng: np.random.Generator, only: Collection[str] = ()
) -> list[Outcome]:
    """All checks of a record-level claim."""
    desk = Desk(node=node, claim=claim, runs=runs, rng=rng)
    return [o for name, check in RECORD.items() if not only or name in only for o in check(desk)]


def _require_kind(found: Any, claim: DeclaredClaim) -> None:
    """A claim about the wrong kind of object is a mistake that is easily made."""

    def is_a(kind: type) -> bool:
        return isinstance(found, kind) or (isinstance(found, type) and issubclass(found, kind))

    if is_a(ClientApp) and claim.level == "client":
        raise ConfigError(
            'a ClientApp has no client-level claim: declare level = "record", or name the Strategy'
        )
    if is_a(Strategy) and claim.level == "record":
        raise ConfigError(
            'a Strategy has no record-level claim: declare level = "client", or name the ClientApp'
        )
