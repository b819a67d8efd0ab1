"""What a node holds each request to, once it has come to the plan by itself."""

from typing import cast

from fedsafe.aggregation import Rule
from fedsafe.errors import PlanViolation
from fedsafe.federation.messages import EVALUATE, TRAIN, Instruction, announced_digest, release_digest
from fedsafe.params import Vector, input_digest
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts, aggregator_of


def require_as_planned(
    parts: Parts, plan: PrivacyPlan, kind: str, instruction: Instruction, correction: Vector | None
) -> None:
    """Refuse what a server that follows the plan would not send.

    Args:
        parts: Of the run.
        plan: That this node agreed to.
        kind: Type of the message.
        instruction: That it carries.
        correction: That it carries, if any.

    Raises:
        PlanViolation: It follows another plan, or sends what the aggregator of this one does not.
    """
    if instruction.plan != plan.hash:
        raise PlanViolation(
            f"the server follows plan {instruction.plan[:12]}, this client agreed to {plan.hash[:12]}"
        )
    if correction is not None and not (kind == TRAIN and _corrects(parts, plan)):
        raise PlanViolation(
            f"a {kind} message carries a correction, and the aggregator of the plan gives it none"
        )
    told = set(aggregator_of(parts, plan).announce()) if kind == TRAIN else set()
    if set(instruction.announced) != told:
        raise PlanViolation(
            f"a {kind} message announces {sorted(instruction.announced)}, and the plan of this node has {sorted(told)}"
        )


def inputs_digest(plan: PrivacyPlan, instruction: Instruction, correction: Vector | None) -> bytes:
    """Digest of everything that a release depends on besides records and key."""
    shared = announced_digest(input_digest(instruction.parameters, plan.hash), instruction.announced)
    return release_digest(shared, correction)


def most_releases(kind: str, round: int, plan: PrivacyPlan, client: int) -> int:
    """How often the plan lets one client release something of this kind; 0 for a round outside."""
    if type(round) is not int or not 1 <= round <= plan.rounds:
        return 0
    if kind == TRAIN:
        return plan.record.cap_of(client)
    planned = plan.evaluation if kind == EVALUATE else None
    return plan.rounds // planned.every if planned is not None and planned.due(round) else 0


def planned_releases(plan: PrivacyPlan, client: int) -> dict[str, int]:
    """How often the plan lets one client release something of each kind, in all rounds together."""
    evaluations = 0 if plan.evaluation is None else plan.rounds // plan.evaluation.every
    return {TRAIN: plan.record.cap_of(client), EVALUATE: evaluations}


def least_apart(kind: str, plan: PrivacyPlan) -> int:
    """The least distance of two rounds that the plan lets one client take part in."""
    return plan.client.separation if kind == TRAIN else 1


def _corrects(parts: Parts, plan: PrivacyPlan) -> bool:
    """Whether the plan lets a client be sent a correction."""
    aggregator, none = aggregator_of(parts, plan), cast("object", Rule.correction)
    if type(aggregator).correction is none:
        return False
    # Of a rule that remembers, a new instance cannot tell what the server's will give.
    return aggregator.remembers or aggregator.correction(0, parts.layout.total) is not None
