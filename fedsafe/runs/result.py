"""A run as its reader sees it: the record, as data frames."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsafe.errors import RecordError
from fedsafe.records import End, Round, Start
from fedsafe.runs.audit import alarms_of
from fedsafe.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Run:
    """A run folder. Everything here is read from the shareable record.

    Args:
        path: The folder.
    """

    path: Path

    @property
    def start(self) -> Start:
        """What was fixed before round 1.

        Raises:
            RecordError: The run never started.
        """
        lines = RunFolder.open(self.path).record()
        if not lines or not isinstance(lines[0], Start):
            raise RecordError(f"{self.path} has no start line: the run never began; run it again")
        return lines[0]

    @property
    def end(self) -> End | None:
        """How the run ended; None while it is running, or was interrupted."""
        lines = RunFolder.open(self.path).record()
        return lines[-1] if lines and isinstance(lines[-1], End) else None

    @property
    def claims(self) -> list[dict[str, Any]]:
        """The headline claim of each unit, as plain values."""
        return [dict(claim) for claim in self.start.claims]

    @property
    def matrix(self) -> list[dict[str, Any]]:
        """What is claimed for each unit against each adversary, or why nothing is; as in the record."""
        return [dict(cell) for cell in self.start.matrix]

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metrics of the newest model on the evaluation records, as in a round of the record."""
        rounds = self._rounds()
        return dict(rounds[-1].metrics) if rounds else {}

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the newest model on the evaluation records; None for regression."""
        return self.metrics.get("accuracy")

    def rounds(self) -> "pd.DataFrame":
        """One row for each complete round.

        Columns: ``round``, the metrics (``loss``, and ``accuracy``, or ``r2`` and ``mae`` for regression; where the
        clients evaluated a round, ``federated_score`` and perhaps ``federated_score_deviation``),
        ``epsilon_record``, ``epsilon_client``.
        """
        import pandas as pd

        rows = [
            {
                "round": line.round,
                **line.metrics,
                **{f"epsilon_{unit}": spent for unit, spent in line.spend.items()},
            }
            for line in self._rounds()
        ]
        return pd.DataFrame(rows)

    def findings(self) -> "pd.DataFrame":
        """One row for each finding of every assessment."""
        import pandas as pd

        return pd.DataFrame(RunFolder.open(self.path).read("findings.jsonl"))

    def requirements(self) -> "pd.DataFrame":
        """One row for each requirement of every assessment."""
        import pandas as pd

        return pd.DataFrame(RunFolder.open(self.path).read("requirements.jsonl"))

    def last_findings(self) -> list[dict[str, Any]]:
        """The findings of the newest assessment, as plain values."""
        return _newest(RunFolder.open(self.path).read("findings.jsonl"))

    def last_verdicts(self) -> list[dict[str, Any]]:
        """The requirement verdicts of the newest assessment, as plain values."""
        return _newest(RunFolder.open(self.path).read("requirements.jsonl"))

    @property
    def alarms(self) -> list[str]:
        """What the alarms of the run's audit say, in their order; none without an audit."""
        return alarms_of(RunFolder.open(self.path).read("findings.jsonl"))

    def _rounds(self) -> list[Round]:
        return [line for line in RunFolder.open(self.path).record() if isinstance(line, Round)]


def _newest(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    newest = max((line["round"] for line in lines), default=0)
    return [line for line in lines if line["round"] == newest]
