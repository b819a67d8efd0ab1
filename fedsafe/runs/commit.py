"""What a round leaves on the disk, in an order that a crash at any moment can be resumed from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fedsafe.engine import AvailabilityGrid
from fedsafe.federation import RoundOutcome
from fedsafe.findings import Finding
from fedsafe.params import Vector, fingerprint
from fedsafe.privacy.chain import Head
from fedsafe.records import Round
from fedsafe.runs.acceptance import Acceptance
from fedsafe.runs.audit import AUDIT, RunAudit
from fedsafe.runs.callbacks import Callback
from fedsafe.runs.judge import Assessment, Judge
from fedsafe.runs.period import Period
from fedsafe.store import RunFolder, checkpoint_name

# Metrics of a round that the clients evaluated, beside the ones on the evaluation records: their mean score, and the
# largest standard deviation that noise and the cohort's size give it.
FEDERATED_SCORE, FEDERATED_DEVIATION = "federated_score", "federated_score_deviation"


@dataclass(frozen=True, kw_only=True)
class Commit:
    """Writes rounds.

    Args:
        folder: Of the run.
        judge: Measures each round's model.
        acceptance: Keeps the last accepted model.
        period: Says when the assessors are due.
        clock: Wall time of the run so far, in seconds.
        spend: Planned epsilon of each unit after each round.
        callbacks: Told once a round is on the disk.
        score_deviation: Of the clients' mean score; None where nothing is added to it.
        audit: Trains beside the run, with canaries; None where none is configured.
        figures: Of the aggregator after the round, for its record: they follow from what was released.
    """

    folder: RunFolder
    judge: Judge
    acceptance: Acceptance
    period: Period
    clock: Callable[[], float]
    spend: Mapping[str, Sequence[float | None]]
    callbacks: Sequence[Callback]
    score_deviation: float | None = None
    audit: RunAudit | None = None
    figures: Callable[[], Mapping[str, float]] = dict

    def save(self, outcome: RoundOutcome, elapsed: float, there: AvailabilityGrid | None = None) -> None:
        """The private timing and state, then the checkpoint: from here on the round is never repeated.

        Args:
            outcome: Of the round.
            elapsed: Wall time of the run so far, in seconds.
            there: Says who was missing, and how long the round took under its virtual clock.
        """
        also: dict[str, float | str | list[str]] = {}
        if outcome.aborted is not None:
            also["aborted"] = outcome.aborted
        if outcome.refused:
            also["refused"] = list(outcome.refused)
        if there is not None:
            realised = there.take_realised()
            also |= {
                "missing": realised.missing,
                "virtual_seconds": realised.seconds,
                "virtual_elapsed": there.now,
            }
        self.folder.append_timing(
            round=outcome.round,
            seconds=outcome.seconds,
            cpu_seconds=outcome.cpu_seconds,
            failures=outcome.failures,
            elapsed=elapsed,
            **also,
        )
        if outcome.aggregator_state is not None:
            self.folder.write_aggregator_state(
                outcome.round, outcome.aggregator_state, {"parameters": fingerprint(outcome.parameters)}
            )
        metadata = {"sequence": str(outcome.head.sequence), "head": outcome.head.hash}
        if outcome.evaluation is not None:
            metadata["evaluation"] = repr(outcome.evaluation)
        self.folder.write_checkpoint(
            outcome.round, {"parameters": outcome.parameters, **outcome.optimizer_state}, metadata
        )

    def record(
        self,
        number: int,
        parameters: Vector,
        head: Head,
        evaluation: float | None,
        spent: str | None = None,
    ) -> str | None:
        """Findings, verdicts, and last the line that makes the round count.

        Args:
            number: The round.
            parameters: Its model.
            head: The ledger after it.
            evaluation: The clients' mean score of its model, if they evaluated it.
            spent: Why the budget ends the run with this round; None where it does not.

        Returns:
            Why the run ends with this round; None where it goes on.
        """
        audited = self.audit.after(number) if self.audit is not None else []
        stopped = self.audit.stops(audited) if self.audit is not None else None
        stopped = stopped or spent
        assessment = self._assess(number, parameters, audited, last=stopped is not None)
        if assessment is not None and assessment.accepted is not None:
            failed = self.acceptance.take(assessment)
            stopped = stopped or failed
        metrics: dict[str, float | None] = {**self.judge.metrics(parameters), **self.figures()}
        if evaluation is not None:
            metrics[FEDERATED_SCORE] = evaluation
            if self.score_deviation is not None:
                metrics[FEDERATED_DEVIATION] = self.score_deviation
        line = Round(
            round=number,
            metrics=metrics,
            spend={unit: values[number - 1] for unit, values in self.spend.items()},
            ledger={"sequence": head.sequence, "head": head.hash},
            checkpoint=checkpoint_name(number),
            parameters_sha256=fingerprint(parameters),
            accepted=self.acceptance.round,
            assess_every=self.period.every,
        )
        self.folder.append_record(line)
        for callback in self.callbacks:
            callback.on_round(line)
            if assessment is not None:
                callback.on_assessment(assessment)
        return stopped

    def _assess(
        self, number: int, parameters: Vector, audited: list[Finding], *, last: bool
    ) -> Assessment | None:
        """The assessment of a round, on the disk, with what its audit found; None where neither is due."""
        also = {AUDIT: audited} if audited else {}
        if not self.period.due(number) and not last:
            if not audited:
                return None
            assessment = Assessment(round=number, findings=also, verdicts=())
        else:
            seconds: dict[str, float] = {}
            previous, earlier = self.acceptance.baseline()
            assessment = self.judge.assess(
                number, parameters, previous, also, earlier=earlier, timed=seconds.__setitem__
            )
            self.period.took(number, seconds, self.clock())
        findings = [
            {"round": number, "assessor": name, **finding.to_json()}
            for name, group in assessment.findings.items()
            for finding in group
        ]
        self.folder.append("findings.jsonl", *findings)
        self.folder.append("requirements.jsonl", *(v.to_json(number) for v in assessment.verdicts))
        return assessment
