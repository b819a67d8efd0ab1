"""The privacy plan of a run and its claims: seconds of accounting, before anything is released."""

import math
from dataclasses import dataclass
from typing import Any

from fedsafe.aggregation import released_by
from fedsafe.assess import ASSESSORS, READS_CLIENTS, find_assessor
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.matrix import claim_matrix, planned_claims
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import headline_metric
from fedsafe.runs.adversaries import simulated
from fedsafe.runs.availability import assumptions
from fedsafe.runs.compose import Parts, calibrate
from fedsafe.runs.grouping import grouped
from fedsafe.runs.judge import assessor_names
from fedsafe.runs.secure import secure_graph


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What is fixed before the first round.

    Args:
        plan: The calibrated plan.
        claims: The headline claim of each unit, as plain values.
        matrix: What is claimed for each unit against each adversary, as plain values.
    """

    plan: PrivacyPlan
    claims: list[dict[str, Any]]
    matrix: list[dict[str, Any]]


def plan_and_claims(parts: Parts, *, key_from_seed: bool) -> Planned:
    """The plan of a run and what it lets one claim.

    Raises:
        CalibrationError: A target cannot be met.
    """
    plan, graph = calibrate(parts), secure_graph(parts.config, len(parts.records))
    about = Circumstances(
        key_from_seed=key_from_seed,
        uncovered=uncovered(parts),
        own_nodes=parts.config.engine.name == "flower",
        secure=parts.config.aggregation.secure,
        tolerates=None if graph is None else graph.tolerates,
        assumed=(
            *assumptions(parts.availability),
            *simulated(parts.config, len(parts.records)),
            *grouped(parts.config, parts.groups),
        ),
    )
    return Planned(
        plan=plan,
        claims=[claim.to_json() for claim in planned_claims(plan, about)],
        matrix=[cell.to_json() for cell in claim_matrix(plan, about)],
    )


def uncovered(parts: Parts) -> tuple[str, ...]:
    """What a run lets out of private records without noise: phrases for what its claims do not cover."""
    task = parts.task
    phrases = []
    if not task.evaluation_public:
        figures = f"{headline_metric(task.kind)}, loss and findings on {task.evaluation_name}"
        phrases.append(
            f"{figures}, and which round's model is accepted or ends the run by them: they leave private records "
            "without noise"
        )
    for spec in assessor_names(parts.config.assess):
        named = spec if isinstance(spec, str) else str(spec["name"])
        if named in READS_CLIENTS or named not in ASSESSORS:
            name = find_assessor(spec).name
            phrases.append(
                f"findings of the assessor {name}, which may read the clients' records, and what requirements on them "
                "decide: the simulator's view, not for release"
            )
        elif not isinstance(spec, str) and spec.get("reference"):
            phrases.append(
                f"findings of the assessor {named} beside its reference {spec['reference']!r}, and what requirements "
                "on them decide: they tell of that model, too"
            )
        elif not isinstance(spec, str) and spec.get("shift"):
            phrases.append(
                f"findings of the assessor {named} on its second domain, unless these records are public, and what "
                "requirements on them decide"
            )
    if parts.config.audit is not None:
        phrases.append(
            "findings of the audit, where they end the run, and what requirements on them decide: they come from a "
            "second training on the same records, with canaries: the simulator's view, not for release"
        )
    if parts.config.privacy.paired:
        phrases.append(
            "anyone at all, once there is another run of this seed with privacy.paired: the two share their noise, and "
            "their difference gives the updates away"
        )
    private = math.isfinite(parts.config.privacy.client.epsilon)
    return (*phrases, *released_by(parts.config.server.aggregator, client_private=private))
