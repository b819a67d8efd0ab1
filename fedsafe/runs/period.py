"""How often a run is assessed: every few rounds, and more rarely where that takes too much of its time."""

from collections.abc import Mapping

from fedsafe.records import Round
from fedsafe.runs.config import Config
from fedsafe.store import RunFolder

ASSESSMENTS = "private/assessments.jsonl"
"""What each assessor took, in seconds, by round."""

NOTICEABLE = 10.0
"""Seconds of all assessments together below which the period stays: a short run has nothing to gain."""


class Period:
    """Says when an assessment is due, and doubles the rounds between two where they take more than their share.

    The time depends on the machine, so each decision is part of the record line of its round: a resumed run goes on
    with the period that its record says, and a reproducible one never changes it.

    Args:
        config: Of the run.
        rounds: Of the plan; the last is always assessed.
        folder: Of the run; its record says the period before an interruption.
    """

    def __init__(self, config: Config, rounds: int, folder: RunFolder) -> None:
        self._share, self._rounds, self._folder = config.assess.max_share, rounds, folder
        self._fixed = config.privacy.noise_key == "seed"
        lines = [line for line in folder.record() if isinstance(line, Round)]
        recorded = lines[-1].assess_every if lines else None
        self.every = config.assess.every if recorded is None else recorded
        """Rounds between two assessments, from here on."""
        self._spent = sum(sum(line["seconds"].values()) for line in folder.read(ASSESSMENTS))

    def due(self, round: int) -> bool:
        """Whether the model of this round is assessed."""
        return round % self.every == 0 or round == self._rounds

    def took(self, round: int, seconds: Mapping[str, float], elapsed: float) -> None:
        """Writes what an assessment took, and decides on the period.

        Args:
            round: The round.
            seconds: By assessor.
            elapsed: Wall time of the run so far, in seconds, assessments included.
        """
        self._folder.append(ASSESSMENTS, {"round": round, "seconds": dict(seconds), "elapsed": elapsed})
        self._spent += sum(seconds.values())
        stays = self._fixed or round == self._rounds
        if not stays and self._spent > max(NOTICEABLE, self._share * elapsed):
            self.every *= 2
