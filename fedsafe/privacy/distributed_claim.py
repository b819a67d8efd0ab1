"""Against whom noise that clients add together holds.

===============================  =================================  ===========================================
the server                       sees                               does not know
===============================  =================================  ===========================================
alone                            the sum of each round              the shares of all that survive
with corrupt clients             the sum, and the corrupt shares    the shares of the honest ones that survive
that sees through the masks      each update with its own share     the share of the client in question
===============================  =================================  ===========================================

The plan is calibrated for the second. The third is what is left if secure aggregation fails: one share of the noise
alone, as local differential privacy, which for many clients is next to nothing.
"""

import math
from dataclasses import replace

from fedsafe.privacy.accounting.distributed import DistributedNoise, distributed_epsilon
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.claim import Claim
from fedsafe.privacy.client_claim import SERVER, client_claim
from fedsafe.privacy.levels import DISTRIBUTED
from fedsafe.privacy.plan import PrivacyPlan

COLLUDING, UNMASKED = "server with corrupt clients", "server that sees through the masks"
_SUMS = "secure aggregation"  # how the assumption begins that this server breaks


def servers(plan: PrivacyPlan) -> tuple[str, ...]:
    """The kinds of server that a plan tells apart: one, unless clients add the noise together."""
    level = plan.client
    if not level.private or level.mechanism != DISTRIBUTED or level.shares is None:
        return (SERVER,)
    return (SERVER, *((COLLUDING,) if level.shares.corrupt else ()), UNMASKED)


def claim_against_servers(
    plan: PrivacyPlan, about: Circumstances, adversary: str, unit: str = "client"
) -> Claim | None:
    """What distributed noise protects a unit with against one of :func:`servers`; None without a bound."""
    claim = client_claim(plan, about, SERVER, unit)
    shares = plan.client.shares
    if claim is None or shares is None:
        return claim
    if adversary == COLLUDING:
        return replace(
            claim,
            adversary="the server, who sees the sum of each round and every cohort, with at most "
            f"{shares.corrupt} of each round's clients, who tell it their shares of the noise",
        )
    noise = plan.client.distributed(plan.clients, min(plan.record.max_participations, plan.rounds))
    if adversary == SERVER:
        whole = replace(noise, honest=shares.minimum)
        whole = whole.replaced() if claim.adjacency.startswith("replace-one") else whole
        return _with(claim, whole)
    return _with(
        replace(
            client_claim(plan, about, SERVER, "record") or claim,
            unit=unit,
            adjacency="replace-one (one client's updates replaced by any others; the registered population is public)"
            if unit == "client"
            else claim.adjacency,
            adversary="the server, who sees each client's update with its own share of the noise alone, as if there "
            "were no masks",
            release="every update that one client uploads, and so every model",
            delta=claim.delta,
            assumptions=tuple(text for text in claim.assumptions if not text.startswith(_SUMS)),
            fallback_epsilon=None,
        ),
        noise.alone(),
    )


def _with(claim: Claim, noise: DistributedNoise) -> Claim | None:
    epsilon = distributed_epsilon(noise, claim.delta)
    counted = f"{noise.honest} survivors" if noise.honest > 1 else "one client's own share"
    found = replace(claim, epsilon=epsilon, accountant=f"RDP of the {noise.law} mechanism for {counted}")
    return found if math.isfinite(epsilon) else None
