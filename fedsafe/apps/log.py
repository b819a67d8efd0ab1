"""What ``flwr log`` shows of a run: one line for each event, in Flower's own log."""

import logging
from pathlib import Path

from fedsafe.records import End, Round, Start, headline_metric
from fedsafe.report.formats import epsilon
from fedsafe.runs.judge import Assessment

LOG = logging.getLogger("flwr")


class LogOfRun:
    """Observes a run and logs it."""

    def __init__(self) -> None:
        self._rounds, self._metric = 0, ""

    def on_start(self, path: Path, start: Start, first_round: int) -> None:
        """Where the run folder is, and what is claimed."""
        self._rounds, self._metric = start.plan["rounds"], headline_metric(start.task["kind"])
        LOG.info("run folder: %s", path.resolve())
        for claim in start.claims:
            LOG.info("%s", claim["statement"])

    def on_round(self, line: Round) -> None:
        """The round's figure and the planned spend so far."""
        value = line.metrics.get(self._metric)
        spent = ", ".join(f"{unit} {epsilon(value)}" for unit, value in line.spend.items())
        shown = "-" if value is None else f"{value:.4f}"
        LOG.info("round %d/%d: %s %s, epsilon %s", line.round, self._rounds, self._metric, shown, spent)

    def on_assessment(self, assessment: Assessment) -> None:
        """How many findings there are, and each requirement that is not met."""
        count = sum(len(findings) for findings in assessment.findings.values())
        LOG.info("round %d: %d findings", assessment.round, count)
        for verdict in assessment.verdicts:
            if verdict.verdict != "pass":
                LOG.warning(
                    "round %d: a requirement is %s: %s", assessment.round, verdict.verdict, verdict.reason
                )

    def on_end(self, end: End) -> None:
        """How the run ended."""
        LOG.info("run %s after %d rounds, %.0f s", end.status, end.rounds, end.seconds)
