"""What a person sees while a run goes on: a live line in a terminal, plain lines in a pipe."""

import time
from collections.abc import Sequence
from decimal import ROUND_FLOOR
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.live import Live
from rich.padding import Padding
from rich.text import Text

from fedsafe.records import headline_metric
from fedsafe.report.formats import epsilon

if TYPE_CHECKING:
    from fedsafe.records import End, Round, Start
    from fedsafe.report import ClosingRow
    from fedsafe.runs.judge import Assessment

_PIPED_WIDTH = 110
_SIMULATED = (
    "simulated: the noise follows from the seed, and nothing is guaranteed against anyone who knows it"
)
_AUDITED = "privacy.audited_epsilon"
_MARKS = {"pass": "green", "completed": "green", "fail": "red", "undecided": "yellow", "unmeasured": "yellow"}


class Progress:
    """Observes a run and shows it.

    Args:
        stream: Where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        live = stream.isatty()
        self._console = Console(file=stream, width=None if live else _PIPED_WIDTH, highlight=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=live) if live else None
        self._path: Path | None = None
        self._metric = ""
        self._targets: dict[str, float | None] = {}
        self._rounds = self._first = 0
        self._began = 0.0
        self._every: int | None = None
        if self._live:
            self._live.start()

    def say(self, text: str) -> None:
        """What is going on before the first round."""
        if self._live:
            self._live.update(Text(f"{text} ..."), refresh=True)
        else:
            self._console.print(f"{text} ...")

    def on_start(self, path: Path, start: "Start", first_round: int) -> None:
        """Print what was fixed."""
        self._path, self._first, self._rounds = path, first_round, start.plan["rounds"]
        self._metric = headline_metric(start.task["kind"])
        self._began = time.perf_counter()
        self._every = start.assessment.get("every") if first_round == 1 else None
        self._targets = {claim["unit"]: claim["epsilon"] for claim in start.claims}
        self._console.print(
            f"{start.task['name']}: {start.federation['clients']} clients, {start.task['train_records']:,} records, "
            f"{start.model['name']} with {start.model['parameters']:,} parameters ({start.trainer} engine), "
            f"{self._rounds} rounds"
        )
        if start.reproducible:
            self._console.print(f"  {_SIMULATED}")
        for claim in start.claims:
            bound = "no guarantee" if claim["epsilon"] is None else f"epsilon {epsilon(claim['epsilon'])}"
            self._console.print(f"  {claim['unit']:6s} {bound} at delta {claim['delta']:g}")

    def on_round(self, line: "Round") -> None:
        """Move the bar, or print every tenth of the way."""
        if line.assess_every is not None and self._every is not None and line.assess_every != self._every:
            self._console.print(
                f"round {line.round}: assessed every {line.assess_every} rounds from here on, since assessments take "
                "more than assess.max_share of the time",
                soft_wrap=True,
            )
        self._every = line.assess_every
        if line.round == self._first:
            self._began = time.perf_counter()  # what came before is the workers' start
        timed = max(1, line.round - self._first)
        left = (time.perf_counter() - self._began) / timed * (self._rounds - line.round)
        ahead = f"  {left:3.0f} s left" if line.round > self._first else ""
        spent = ", ".join(
            f"{unit} {epsilon(value)}" + ("" if value is None else f" of {epsilon(self._targets[unit])}")
            for unit, value in line.spend.items()
        )
        value = line.metrics.get(self._metric)
        shown = "-" if value is None else f"{value:.4f}"
        text = f"round {line.round:3d}/{self._rounds}  {self._metric} {shown}  epsilon {spent}{ahead}"
        if self._live:
            width = 10
            filled = round(width * line.round / self._rounds)
            self._live.update(Text("█" * filled + "░" * (width - filled) + "  " + text), refresh=True)
        elif line.round % max(1, self._rounds // 10) == 0 or line.round == self._rounds:
            self._console.print(text)

    def on_assessment(self, assessment: "Assessment") -> None:
        """Say what was judged; failures at once."""
        everything = [finding for findings in assessment.findings.values() for finding in findings]
        for finding in everything:
            if finding.metric == "assess.completed" and finding.status == "failed":
                self._console.print(f"round {assessment.round}: {finding.reason}", soft_wrap=True)
            if finding.metric == _AUDITED and finding.value is not None:
                upper = epsilon(finding.anchors.get("accounted"))
                self._console.print(
                    f"round {assessment.round}: canaries ({finding.where['canaries']}) prove epsilon > "
                    f"{epsilon(finding.value, ROUND_FLOOR)} per {finding.where['unit']}, accounted {upper}",
                    soft_wrap=True,
                )
        count = len(everything)
        bad = [verdict for verdict in assessment.verdicts if verdict.verdict != "pass"]
        verdicts = f", {len(assessment.verdicts) - len(bad)} of {len(assessment.verdicts)} requirements pass"
        if any(verdict.blocks for verdict in assessment.verdicts):
            verdicts += ": its model is not accepted"
        self._console.print(
            f"round {assessment.round}: {count} findings{verdicts if assessment.verdicts else ''}",
            soft_wrap=True,
        )

    def on_end(self, end: "End") -> None:
        """Take the live line away."""
        self.stop()

    def stop(self) -> None:
        """Leave the terminal as it was."""
        if self._live:
            self._live.stop()

    def resume_hint(self) -> str:
        """How to go on after an interruption."""
        if self._path is None:
            return "nothing was started"
        return f"finished rounds are kept; go on with: fedsafe run --resume {self._path}"

    def table(self, rows: "Sequence[ClosingRow]") -> None:
        """The closing table: a line for each row, its detail on a line below where both do not fit."""
        names = max(len(row.name) for row in rows)
        values = max(len(row.value) for row in rows)
        section = ""
        self._console.print()
        for row in rows:
            if row.section != section:
                section = row.section
                self._console.print(Text(section, style="bold"))
            line = Text.assemble(
                f"  {row.name:<{names}}  ",
                (f"{row.value:<{values}}", _MARKS.get(row.status, "")),
            )
            detail = Text(row.detail, style="dim")
            if len(line) + 2 + len(detail) <= self._console.width or not self._live:
                self._console.print(Text.assemble(line, "  ", detail), soft_wrap=not self._live)
            else:
                self._console.print(line)
                self._console.print(Padding(detail, (0, 0, 0, 4)))
        self._console.print()
