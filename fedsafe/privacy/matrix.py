"""What may be claimed against whom: one claim, or the reason why there is none, for each adversary and unit.

==============  ====================================  ==============================================================
adversary       sees                                  what a claim about a client can rest on
==============  ====================================  ==============================================================
server          every update, and every cohort        noise that the client adds before it sends; nothing is amplified
other clients   every model, and their own cohorts    Poisson cohorts: being chosen says nothing about anyone else
outsider        every model                           secret cohorts
==============  ====================================  ==============================================================

Where clients add the noise together, three kinds of server are told apart: see
:mod:`fedsafe.privacy.distributed_claim`.

A record is protected by the noise of its own client against everyone; and, since changing one record replaces one
update, by the client level under replace-one adjacency where that one counts. The smaller bound is the claim.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from fedsafe.privacy.circumstances import Circumstances, adapted
from fedsafe.privacy.claim import Claim
from fedsafe.privacy.client_claim import CLIENTS, OUTSIDER, SERVER, client_claim, headline
from fedsafe.privacy.distributed_claim import COLLUDING, UNMASKED, claim_against_servers, servers
from fedsafe.privacy.levels import ADAPTIVE, BANDED, CENTRAL, DISTRIBUTED, FILTERED, GROUPED, LOCAL
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.privacy.record_claim import record_claim

_NOISE_OF = {
    CENTRAL: "the server's noise",
    ADAPTIVE: "the server's noise",
    GROUPED: "the server's noise",
    BANDED: "the server's noise, correlated over rounds",
    FILTERED: "the server's noise, chosen round by round inside a Rényi filter",
    LOCAL: "each client's own noise",
    DISTRIBUTED: "the noise of all clients of a round together",
}


_NOISE_OF_DISTRIBUTED = {
    COLLUDING: "the noise of the honest clients of a round together",
    UNMASKED: "the share of the noise that the client added itself",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is claimed for one unit against one adversary.

    Args:
        adversary: ``"server"``, ``"other clients"`` or ``"outsider"``, or another kind of server.
        unit: ``"record"`` or ``"client"``.
        claim: None where nothing may be claimed.
        reason: Why not, or what the claim comes from.
    """

    adversary: str
    unit: str
    claim: Claim | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; without a claim, epsilon is null."""
        claim = None if self.claim is None else self.claim.to_json()
        return {
            "adversary": self.adversary,
            "unit": self.unit,
            "epsilon": claim and claim["epsilon"],
            "delta": claim and claim["delta"],
            "reason": self.reason,
            "claim": claim,
        }


def planned_claims(plan: PrivacyPlan, about: Circumstances) -> tuple[Claim, Claim]:
    """The headline claim of each unit: a record against the server, a client against whom its level is for.

    They hold for the plan as a whole: the realised spend is never larger.
    """
    record, client = record_claim(plan, about), headline(plan, about)
    return adapted(plan, about, record), adapted(plan, about, client)


def claim_matrix(plan: PrivacyPlan, about: Circumstances) -> tuple[Cell, ...]:
    """A cell for each adversary and unit, for the plan as a whole."""
    cells = [*_records(plan, about), *_clients(plan, about)]
    return tuple(
        cell if cell.claim is None else replace(cell, claim=adapted(plan, about, cell.claim))
        for cell in cells
    )


def _records(plan: PrivacyPlan, about: Circumstances) -> Iterator[Cell]:
    own = record_claim(plan, about) if plan.record.private else None
    for adversary in (*servers(plan), CLIENTS, OUTSIDER):
        through = _through_level(plan, about, adversary, "record")
        candidates = [claim for claim in (own, through) if claim is not None]
        best = min(candidates, key=lambda claim: claim.epsilon, default=None)
        if best is None:
            reason = f"clients add no noise of their own{_and_not(plan, adversary)}"
        elif best is own:
            reason = "DP-SGD at its client"
        else:
            reason = "the client level under replace-one: changing a record replaces its client's update"
            best = replace(best, not_covered=(*best.not_covered, "persons with records in several clients"))
        yield Cell(adversary=adversary, unit="record", claim=best, reason=reason)


def _through_level(plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str) -> Claim | None:
    if adversary in servers(plan):
        return claim_against_servers(plan, about, adversary, unit)
    return client_claim(plan, about, adversary, unit)


def _and_not(plan: PrivacyPlan, adversary: str) -> str:
    if not plan.client.private:
        return ", and neither does the server"
    if adversary == SERVER:
        return ", and this adversary sees what the server's noise hides"
    if plan.client.mechanism == FILTERED:
        return ", and the filter of the client level counts under zero-out, where changing a record replaces an update"
    return ""


def _clients(plan: PrivacyPlan, about: Circumstances) -> Iterator[Cell]:
    for adversary in (*servers(plan), CLIENTS, OUTSIDER):
        claim = _through_level(plan, about, adversary, "client")
        if claim is not None:
            reason = _NOISE_OF_DISTRIBUTED.get(adversary) or _NOISE_OF[plan.client.mechanism]
        elif not plan.client.private:
            reason = "no noise is added to updates or to their average"
        elif adversary == SERVER and not plan.client.server_learns_nothing:
            reason = "it sees each update before noise is added"
        else:
            reason = "the noise that this adversary does not know gives no finite bound"
        yield Cell(adversary=adversary, unit="client", claim=claim, reason=reason)
