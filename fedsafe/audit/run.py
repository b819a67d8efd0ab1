"""Train a run with canaries in it, and compare what they prove with what was accounted for."""

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from fedsafe.audit.canaries import Canaries
from fedsafe.audit.client_canaries import CanaryClients
from fedsafe.audit.input_canaries import InputCanaries
from fedsafe.audit.record_canaries import RecordCanaries
from fedsafe.audit.report import AuditReport, Look
from fedsafe.audit.setting import Setting
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError, EngineError
from fedsafe.federation import ClientRuntime, NoisyAverage, RoundOutcome, make_server_app, server_context
from fedsafe.privacy.audit import (
    GUESSES,
    gaussian_one_run_epsilon,
    membership_epsilon,
    one_run_bound,
)
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import new_key, public_generator

Kind = Literal["gradient", "input", "client"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_MAKERS: dict[Kind, type[RecordCanaries] | type[CanaryClients]] = {
    "gradient": RecordCanaries,
    "input": InputCanaries,
    "client": CanaryClients,
}
_ADVERSARIES = {
    "record": "the server, which sees every upload of each client, and knows the other records and their batches",
    "client": "an outsider who sees every broadcast model, and knows what the other clients sent",
}
_FEWEST = 20


def audit_run(
    setting: Setting,
    *,
    kind: Kind = "gradient",
    canaries: int = 1000,
    every: int | None = None,
    confidence: float = 0.95,
    delta: float | None = None,
    seed: int = 0,
    key: bytes | None = None,
    on_look: Callable[[Look], None] | None = None,
) -> AuditReport:
    """Train the run with canaries in it, in this process, and look at it every few rounds.

    Half of the allowed error is for the look at the end, the other half is shared evenly by those before it.

    Args:
        setting: The run, as it is executed.
        kind: ``"gradient"`` and ``"input"`` audit the record level, ``"client"`` the client level.
        canaries: How many.
        every: Rounds between two looks; None looks at the end alone.
        confidence: That no look's bound exceeds the truth, in (0, 1).
        delta: At which bounds are compared; by default the plan's, but at most ``0.01 / canaries``, beyond which so
            many canaries prove little. The accounted figure is that of the same plan at this delta.
        seed: Of what is public about the canaries.
        key: Secret of coins, batches, cohorts and noise; a new one if left out.
        on_look: Told of each look at once.

    Raises:
        ConfigError: The kind is unknown, there are too few canaries, or the aggregator needs the clients' losses.
        EngineError: A client failed.
    """
    if kind not in KINDS:
        raise ConfigError(f"an audit has no kind {kind!r}: use one of {', '.join(KINDS)}")
    if canaries < _FEWEST:
        raise ConfigError(f"{canaries} canaries prove nothing: use {_FEWEST} or more, such as 1000")
    key = new_key() if key is None else key
    unit = "client" if kind == "client" else "record"
    made: Canaries = _MAKERS[kind](setting, canaries, key, seed)
    claimed = made.plan.client.delta if unit == "client" else made.plan.record.delta
    delta = min(claimed, 0.01 / canaries) if delta is None else delta
    # Another program than the released one, under another hash: its streams meet no input of that one's.
    described = f"audit {kind} {canaries} {seed} {made.plan.program}".encode()
    plan = replace(made.plan, program=hashlib.sha256(described).hexdigest(), evaluation=None)
    at_delta = replace(
        plan, record=replace(plan.record, delta=delta), client=replace(plan.client, delta=delta)
    )
    looks: list[Look] = []
    due = _due(plan.rounds, every)

    def on_round(outcome: RoundOutcome) -> bool:
        if outcome.failures:
            raise EngineError(
                f"{outcome.failures} clients failed in round {outcome.round} of the audited run"
            )
        made.see(outcome)
        if outcome.round in due:
            spent = 1.0 - _share_of_look(outcome.round, due) * (1.0 - confidence)
            accounted = at_delta.spend(outcome.round)[unit]
            looks.append(look_at(made, outcome.round, accounted, delta, spent, seed))
            if on_look is not None:
                on_look(looks[-1])
        return True

    _train(setting, made, plan, key, on_round)
    return AuditReport(
        kind=kind,
        unit=unit,
        canaries=canaries,
        included=int(made.included.sum()),
        adversary=_ADVERSARIES[unit],
        confidence=confidence,
        delta=delta,
        claimed_delta=claimed,
        looks=tuple(looks),
        parameters=len(made.initial),
    )


def look_at(
    made: Canaries, round: int, accounted: float | None, delta: float, confidence: float, seed: int
) -> Look:
    """What the scores prove now.

    Args:
        made: The canaries.
        round: After which round.
        accounted: The upper bound to set beside it.
        delta: Of both.
        confidence: What this look may spend.
        seed: Orders equal scores.
    """
    rng = public_generator(seed, f"audit look {round}")
    bound = one_run_bound(made.scores, made.included, delta=delta, confidence=confidence, rng=rng)
    each = 1.0 - (1.0 - confidence) / len(GUESSES)
    order = rng.permutation(len(made.scores))
    order = order[np.argsort(-made.scores[order], kind="stable")]
    inside = made.included[order]
    gaussian = membership = 0.0
    for first_share, last_share in GUESSES:
        first, last = int(first_share * len(inside)), int(last_share * len(inside))
        right = int(inside[:first].sum() + (~inside[len(inside) - last :]).sum())
        gaussian = max(gaussian, gaussian_one_run_epsilon(right, first + last, len(inside), delta, each))
        found = int(inside[:first].sum())
        membership = max(
            membership,
            membership_epsilon(
                true_positives=found,
                members=int(inside.sum()),
                false_positives=first - found,
                others=int((~inside).sum()),
                delta=delta,
                confidence=each,
            ),
        )
    return Look(
        round=round,
        accounted=accounted,
        bound=bound,
        gaussian=gaussian,
        membership=membership,
        cosines=made.cosines(delta, confidence),
    )


def _train(
    setting: Setting,
    made: Canaries,
    plan: PrivacyPlan,
    key: bytes,
    on_round: Callable[[RoundOutcome], bool],
) -> None:
    aggregator = setting.aggregator(plan)
    if aggregator.needs_losses:
        raise ConfigError(
            f"the aggregator {aggregator.name} steers by the clients' exact losses, and nothing can be claimed for it "
            "that an audit could test: use another rule"
        )
    runtime = ClientRuntime(
        trainer=made.trainer, aggregator=aggregator, records=made.records, key=key, plan=plan.hash
    )
    grid = InlineGrid(clients=plan.clients, apps=ClientApps(one=runtime.answer, batch=runtime.answer_chunk))
    with tempfile.TemporaryDirectory(prefix="fedsafe-audit-") as folder:
        ledger = Ledger.create(Path(folder) / "ledger.sqlite", plan, key_fingerprint="audit")
        try:
            strategy = NoisyAverage(
                plan=plan,
                aggregator=setting.aggregator(plan),
                layout=made.trainer.layout,
                optimizer=setting.optimizer,
                ledger=ledger,
                key=key,
            )
            app = make_server_app(
                strategy, made.initial, first_round=1, last_round=plan.rounds, on_round=on_round
            )
            app(grid, server_context())
        finally:
            ledger.close()


def _due(rounds: int, every: int | None) -> list[int]:
    """Rounds after which to look, ascending, the last one always."""
    if every is not None and every < 1:
        raise ConfigError(f"every = {every}: look every 1 or more rounds")
    return sorted({rounds, *(range(every, rounds, every) if every else ())})


def _share_of_look(round: int, due: list[int]) -> float:
    """What part of the allowed error a look may spend."""
    if len(due) == 1:
        return 1.0
    return 0.5 if round == due[-1] else 0.5 / (len(due) - 1)
