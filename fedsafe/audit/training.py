"""The training of a run with canaries in it, round by round, and a look at it whenever one is due."""

import hashlib
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, get_args

import numpy as np

from fedsafe.audit.canaries import Canaries
from fedsafe.audit.client_canaries import CanaryClients
from fedsafe.audit.input_canaries import InputCanaries
from fedsafe.audit.looks import Look, look_at
from fedsafe.audit.record_canaries import RecordCanaries
from fedsafe.audit.report import AuditReport
from fedsafe.audit.setting import Setting
from fedsafe.engine import ClientApps, InlineGrid
from fedsafe.errors import ConfigError, EngineError
from fedsafe.federation import ClientRuntime, NoisyAverage, RoundOutcome, make_server_app, server_context
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.levels import FILTERED
from fedsafe.rng import new_key

Kind = Literal["gradient", "input", "client"]
KINDS: tuple[Kind, ...] = get_args(Kind)
FEWEST = 20
"""Canaries that an audit needs: fewer prove nothing, whatever was run."""

_MAKERS: dict[Kind, type[RecordCanaries] | type[CanaryClients]] = {
    "gradient": RecordCanaries,
    "input": InputCanaries,
    "client": CanaryClients,
}
_ADVERSARIES = {
    "record": "the server, which sees every upload of each client, and knows the other records and their batches",
    "client": "an outsider who sees every broadcast model, and knows what the other clients sent",
}


class AuditedTraining:
    """A run's training with canaries in it, in this process. Its model is never a release.

    The same setting, key and seed give the same looks, wherever the training paused between them. Use it as a context
    manager: its ledger is in a temporary folder.

    Args:
        setting: The run, as it is executed.
        kind: ``"gradient"`` and ``"input"`` audit the record level, ``"client"`` the client level.
        canaries: How many.
        delta: At which bounds are compared; by default the plan's, but at most ``0.01 / canaries``, beyond which so
            many canaries prove little. The accounted figure is that of the same plan at this delta.
        seed: Of what is public about the canaries.
        key: Secret of coins, batches, cohorts and noise; a new one if left out.

    Raises:
        ConfigError: The kind is unknown, there are too few canaries, or the aggregator needs the clients' losses.
    """

    def __init__(
        self,
        setting: Setting,
        *,
        kind: Kind = "gradient",
        canaries: int = 1000,
        delta: float | None = None,
        seed: int = 0,
        key: bytes | None = None,
    ) -> None:
        if kind not in KINDS:
            raise ConfigError(f"an audit has no kind {kind!r}: use one of {', '.join(KINDS)}")
        if canaries < FEWEST:
            raise ConfigError(f"{canaries} canaries prove nothing: use {FEWEST} or more, such as 1000")
        key = new_key() if key is None else key
        self._kind, self._seed = kind, seed
        self._unit = "client" if kind == "client" else "record"
        self._made: Canaries = _MAKERS[kind](setting, canaries, key, seed)
        claimed = self._made.plan.client.delta if kind == "client" else self._made.plan.record.delta
        self._claimed_delta = claimed
        self._delta = min(claimed, 0.01 / canaries) if delta is None else delta
        # Another program than the released one, under another hash: its streams meet no input of that one's.
        described = f"audit {kind} {canaries} {seed} {self._made.plan.program}".encode()
        plan = replace(self._made.plan, program=hashlib.sha256(described).hexdigest(), evaluation=None)
        self._at_delta = replace(
            plan,
            record=replace(plan.record, delta=self._delta),
            client=replace(plan.client, delta=self._delta),
        )
        self.round, self._parameters = 0, self._made.initial
        aggregator = setting.aggregator(plan)
        if aggregator.needs_losses:
            raise ConfigError(
                f"the aggregator {aggregator.name} steers by the clients' exact losses, and nothing can be claimed for "
                "it that an audit could test: use another rule"
            )
        if aggregator.mechanism == FILTERED:
            raise ConfigError(
                f"the aggregator {aggregator.name} chooses each round's noise from what was released, and an audit "
                "trains another run, which would choose other noise: use another rule"
            )
        trainer = self._made.trainer
        runtime = ClientRuntime(
            trainer=trainer, aggregator=aggregator, records=self._made.records, key=key, plan=plan.hash
        )
        self._grid = InlineGrid(
            clients=plan.clients, apps=ClientApps(one=runtime.answer, batch=runtime.answer_chunk)
        )
        self._open = ExitStack()
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="fedsafe-audit-"))
        ledger = Ledger.create(Path(folder) / "ledger.sqlite", plan, key_fingerprint="audit")
        self._open.callback(ledger.close)
        self._strategy = NoisyAverage(
            plan=plan,
            aggregator=setting.aggregator(plan),
            layout=trainer.layout,
            optimizer=setting.optimizer,
            ledger=ledger,
            key=key,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove what the training left on the disk; it cannot go on."""
        self._open.close()

    def until(self, round: int) -> None:
        """Train up to a round, from where it stands.

        Raises:
            EngineError: A client failed.
        """
        app = make_server_app(
            self._strategy,
            self._parameters,
            first_round=self.round + 1,
            last_round=round,
            on_round=self._on_round,
        )
        app(self._grid, server_context())

    def _on_round(self, outcome: RoundOutcome) -> bool:
        if outcome.failures:
            raise EngineError(
                f"{outcome.failures} clients failed in round {outcome.round} of the audited run"
            )
        self._made.see(outcome)
        self.round, self._parameters = outcome.round, outcome.parameters
        return True

    def look(self, confidence: float) -> Look:
        """What the canaries prove of the rounds so far. Looking changes nothing.

        Args:
            confidence: What this look may spend.
        """
        accounted = self._at_delta.spend(self.round)[self._unit]
        return look_at(self._made, self.round, accounted, self._delta, confidence, self._seed)

    def report(self, looks: tuple[Look, ...], confidence: float) -> AuditReport:
        """What looks found.

        Args:
            looks: In the order of rounds.
            confidence: That none of their bounds exceeds the truth.
        """
        included = np.asarray(self._made.included)
        return AuditReport(
            kind=self._kind,
            unit=self._unit,
            canaries=len(included),
            included=int(included.sum()),
            adversary=_ADVERSARIES[self._unit],
            confidence=confidence,
            delta=self._delta,
            claimed_delta=self._claimed_delta,
            looks=looks,
            parameters=len(self._made.initial),
        )
