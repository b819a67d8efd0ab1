"""Which model of a run is the accepted one: the last that met every `must`; the others were broadcast all the same."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from fedsafe.assess.base import Share
from fedsafe.errors import RecordError
from fedsafe.findings import Evidence
from fedsafe.params import Vector
from fedsafe.records import Round
from fedsafe.runs.config import AssessConfig
from fedsafe.runs.judge import Assessment
from fedsafe.store import RunFolder

_FILES = "evidence-*.safetensors"


class Acceptance:
    """Takes assessments as they come, and remembers the last accepted model.

    Training goes on from the newest model whatever is accepted: going back would refund nothing, and every model that
    is broadcast is covered by the claims.

    What was found of the accepted model example by example is kept in ``private/``, so that a resumed run compares with
    it as well.

    Args:
        config: The section of the configuration.
        folder: Of the run; its record says what was accepted before an interruption.
    """

    def __init__(self, config: AssessConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        lines = [line for line in folder.record() if isinstance(line, Round)]
        self.round = lines[-1].accepted if lines else None
        """Round of the last accepted model; None before there is one."""

    def baseline(self) -> tuple[Vector | None, Mapping[Share, Evidence]]:
        """Parameters of the last accepted model, and what was found of it example by example.

        Both are read back, so that a resumed run compares with the same.
        """
        if self.round is None:
            return None, {}
        return self._folder.read_checkpoint(self.round)[0]["parameters"], self._evidence(self.round)

    def take(self, assessment: Assessment) -> str | None:
        """Accepts a round's model, or not.

        Args:
            assessment: Of the round, by the assessors and every requirement.

        Returns:
            Why the run ends with it; None where it goes on.
        """
        if assessment.accepted:
            self._keep(assessment)
            self.round = assessment.round
        return recorded_failure(
            self._config, [line.to_json(assessment.round) for line in assessment.verdicts]
        )

    def _keep(self, assessment: Assessment) -> None:
        """Before the round counts: the evidence of the last accepted round stays, since this one may be repeated."""
        arrays: dict[str, Any] = {}
        shares = {}
        for number, ((metric, where), evidence) in enumerate(assessment.evidence.items()):
            arrays |= {f"{number}.rows": evidence.rows, f"{number}.holds": evidence.holds}
            shares[str(number)] = [metric, list(where)]
        for path in self._folder.private.glob(_FILES):
            if path.name != _name(self.round):
                path.unlink(missing_ok=True)
        self._folder.write_private(_name(assessment.round), arrays, {"shares": json.dumps(shares)})

    def _evidence(self, round: int) -> dict[Share, Evidence]:
        try:
            arrays, metadata = self._folder.read_private(_name(round))
        except RecordError:
            return {}  # an older version kept none, and a loss and an accuracy are measured anew
        found = {}
        for number, (metric, where) in json.loads(metadata["shares"]).items():
            share = (str(metric), tuple((str(key), entry) for key, entry in where))
            rows, holds = arrays[f"{number}.rows"], arrays[f"{number}.holds"]
            found[share] = Evidence(rows=np.asarray(rows), holds=np.asarray(holds))
        return found


def recorded_failure(config: AssessConfig, lines: Iterable[Mapping[str, Any]]) -> str | None:
    """Why a failed requirement ends the run; None where none failed, or where the last accepted model just stays.

    What is undecided or unmeasured accepts no model, and ends nothing either.

    Args:
        config: The section of the configuration.
        lines: Of ``requirements.jsonl``.
    """
    if config.on_failure != "stop":
        return None
    for line in lines:
        if line["severity"] == "must" and line["verdict"] == "fail":
            return (
                f"assess.on_failure = 'stop': {line['metric']} {line['op']} {line['threshold']:g} fails in round "
                f"{line['round']} ({line['reason']})"
            )
    return None


def _name(round: int | None) -> str:
    return f"evidence-{round or 0:05d}.safetensors"
