"""Train a run with canaries in it, and compare what they prove with what was accounted for."""

from collections.abc import Callable

from fedsafe.audit.looks import Look
from fedsafe.audit.report import AuditReport
from fedsafe.audit.setting import Setting
from fedsafe.audit.training import AuditedTraining, Kind
from fedsafe.findings import confidence_of_look, due_rounds


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

    Args:
        setting: The run, as it is executed.
        kind: ``"gradient"`` and ``"input"`` audit the record level, ``"client"`` the client level.
        canaries: How many.
        every: Rounds between two looks; None looks at the end alone.
        confidence: That no look's bound exceeds the truth, in (0, 1); see
            :func:`~fedsafe.audit.looks.confidence_of_look`.
        delta: At which bounds are compared, see :class:`~fedsafe.audit.training.AuditedTraining`.
        seed: Of what is public about the canaries.
        key: Secret of coins, batches, cohorts and noise; a new one if left out.
        on_look: Told of each look at once.

    Raises:
        ConfigError: The kind is unknown, there are too few canaries, or the aggregator needs the clients' losses.
        EngineError: A client failed.
    """
    due = due_rounds(setting.plan.rounds, every)
    looks: list[Look] = []
    with AuditedTraining(setting, kind=kind, canaries=canaries, delta=delta, seed=seed, key=key) as training:
        for round in due:
            training.until(round)
            looks.append(training.look(confidence_of_look(round, due, confidence)))
            if on_look is not None:
                on_look(looks[-1])
        return training.report(tuple(looks), confidence)
