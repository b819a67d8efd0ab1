"""What a client agrees to in a run, before it releases anything."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fedsafe.privacy.plan import PrivacyPlan


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """What a client agreed to in one run.

    Args:
        run: The server's name of the run, which stays the same when the run is resumed.
        plan: What may be released.
        experiment: Digest of everything else that decides a release, but records and key.
        epsilon: What all of it costs this client.
        key: Fingerprint of the run's noise key.
        data: Keyed fingerprint of the client's records.
        versions: Of what computes a release.
    """

    run: str
    plan: PrivacyPlan
    experiment: str
    epsilon: float
    key: str
    data: str
    versions: Mapping[str, str]

    @property
    def delta(self) -> float:
        """Probability that the bound fails."""
        return self.plan.record.delta


def plain(agreement: Agreement) -> dict[str, Any]:
    """An agreement for the ledger, but its run."""
    return {
        "plan": json.dumps(agreement.plan.numbers()),
        "experiment": agreement.experiment,
        "epsilon": agreement.epsilon,
        "key": agreement.key,
        "data": agreement.data,
        "versions": dict(agreement.versions),
    }


def agreement_of(body: Mapping[str, Any]) -> Agreement:
    """What :func:`plain` was given.

    Raises:
        PlanViolation: The numbers of the plan do not give the hash that stands beside them.
    """
    return Agreement(
        run=body["run"],
        plan=PrivacyPlan.from_numbers(json.loads(body["plan"])),
        experiment=body["experiment"],
        epsilon=float(body["epsilon"]),
        key=body["key"],
        data=body["data"],
        versions=body["versions"],
    )
