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
    from torch import nn

    from fedsafe.data import Task


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
    def accepted(self) -> int | None:
        """Round of the accepted model so far, which is the one to release; None where no model met every `must`."""
        rounds = self._rounds()
        return rounds[-1].accepted if rounds else None

    @property
    def metrics(self) -> dict[str, float | None]:
        """Metrics of the accepted model on the evaluation records, or of the newest where none is accepted."""
        rounds, accepted = self._rounds(), self.accepted
        return dict(rounds[accepted - 1 if accepted else -1].metrics) if rounds else {}

    @property
    def accuracy(self) -> float | None:
        """Accuracy of the model of `metrics` on the evaluation records; None for regression."""
        return self.metrics.get("accuracy")

    def model(
        self, round: int | None = None, *, module: "nn.Module | None" = None, data: "Task | None" = None
    ) -> "nn.Module":
        """A model of the run, in evaluation mode, on the processor.

        Args:
            round: Whose; the accepted one if left out.
            module: The module, if the run was started with one.
            data: The task, if the run was started with one.

        Raises:
            RecordError: No model was accepted, or the round has no checkpoint.
            ConfigError: The run was started with a module or a task, and none is given.
        """
        from fedsafe.runs.assessing import open_subject

        return open_subject(self.path, round, model=module, data=data).model

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
