"""The noise that was chosen for each round, and what is left of the budget that pays for it.

In the adaptive regime the plan fixes a budget, a Rényi divergence at one order, and each round's noise is chosen from
what was released before it. The ledger writes the choice down before any message leaves, and lets it through only if
the budget pays for it; what is spent follows from these events alone.
"""

from collections.abc import Sequence
from typing import Any

from fedsafe.errors import BudgetSpent, LedgerError, PlanViolation
from fedsafe.privacy.accounting import RdpFilter
from fedsafe.privacy.chain import Event
from fedsafe.privacy.levels import FILTERED
from fedsafe.privacy.plan import PrivacyPlan

# In an event of a round.
NOISE = "noise"


def is_adaptive(plan: PrivacyPlan) -> bool:
    """Whether each round's noise is chosen, inside a filter."""
    return plan.client.private and plan.client.mechanism == FILTERED


def opening(plan: PrivacyPlan) -> dict[str, Any]:
    """What the first event of a ledger says besides the hash of the plan: the filter, with nothing spent."""
    return {"filter": plan.client.filter().to_json()} if is_adaptive(plan) else {}


def require_filter(plan: PrivacyPlan, first: Event) -> None:
    """Refuse a ledger that was opened with another filter than the plan's.

    Raises:
        LedgerError: Its order, budget or delta differ.
    """
    if first.body.get("filter") != opening(plan).get("filter"):
        raise LedgerError(
            f"the ledger was opened with the filter {first.body.get('filter')!r}, the plan has "
            f"{opening(plan).get('filter')!r}: it was edited; restore it from a backup"
        )


def filter_after(plan: PrivacyPlan, trained: Sequence[Event]) -> RdpFilter:
    """The filter once these rounds have spent what they cost.

    Args:
        plan: Of the adaptive regime.
        trained: Events of rounds, oldest first.

    Raises:
        LedgerError: One has no noise, or one that the plan has no room for, or overspends.
    """
    budget = plan.client.filter()
    for event in trained:
        try:
            budget.spend([plan.client.chosen(event.body.get(NOISE))])
        except PlanViolation as error:
            raise LedgerError(
                f"event {event.sequence}, round {event.round}, breaks the plan: {error}; it was edited"
            ) from error
    return budget


def require_paid(plan: PrivacyPlan, trained: Sequence[Event], round: int, noise: float | None) -> None:
    """Refuse a round whose noise is not chosen where it has to be, or chosen where it is planned, or overspends.

    Args:
        plan: Of either regime.
        trained: Events of the rounds before, oldest first.
        round: The one asked for.
        noise: Its noise multiplier; None where the plan fixes it.

    Raises:
        BudgetSpent: What is left does not pay for it.
        PlanViolation: It is no choice that the plan has room for.
    """
    if not is_adaptive(plan):
        if noise is not None:
            raise PlanViolation(
                f"a noise multiplier of {noise!r} was chosen for round {round}, and the plan fixes "
                f"{plan.client.noise:g}: leave the choice out"
            )
        return
    if noise is None:
        raise PlanViolation(
            f"no noise multiplier was chosen for round {round}: the plan is adaptive, so choose one before it is "
            "reserved"
        )
    release, budget = plan.client.chosen(noise), filter_after(plan, trained)
    try:
        budget.spend([release])
    except BudgetSpent as error:
        raise BudgetSpent(f"the budget of privacy.client is spent before round {round}: {error}") from error
