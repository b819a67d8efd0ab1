"""What the claims of a run depend on besides its plan, and what all of them say."""

from dataclasses import dataclass, replace

from fedsafe.privacy.claim import SEED_KEY, Claim
from fedsafe.privacy.levels import EvaluationPlan
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import GENERATOR

OS_KEY = f"{GENERATOR} streams keyed by 256 bits from the operating system"
_OWN_KEYS = f"{GENERATOR} streams, each client's keyed by 256 bits from its own operating system"

# What noise that clients add together rests on, without masks and with them.
SUMS_ASSUMED = "secure aggregation shows the server nothing but the sum of a round; this run simulates it"
_MASKED = (
    "masks show the server nothing but the sum of a round: they hold while X25519, ChaCha20-Poly1305, HKDF-SHA256 and "
    "the signatures do, and while no more than {tolerates} of a cohort of the expected size work with the server; "
    "these know their own shares of the noise, which reckons with {corrupt}; the server draws cohorts, so that the "
    "worst one counts"
)
_PLAYED = "one program plays all parties of this simulation: here the masks hide nothing from whoever runs it"
_PINNED = "each client has had the keys of the others' nodes from somebody else than the server"

NEVER_COVERED = (
    "other runs on the same records, each of which has a budget of its own",
    "the choice of hyper-parameters, if earlier runs on the same records guided it",
    "timing, memory and other side channels of the machines",
    "what is already known from public data",
)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What the claims of a run depend on besides its plan.

    Args:
        key_from_seed: Whether the noise follows from the seed.
        uncovered: What else is let out of private records, without noise.
        own_nodes: Whether each client is a node of its own, with its own key, that another runtime sends messages to.
        assumed: What else the claims rest on, such as a model of who is there.
        secure: Whether updates are summed behind masks.
        tolerates: How many clients of a round the masks stand against; as many as the noise reckons with if None.
    """

    key_from_seed: bool
    uncovered: tuple[str, ...] = ()
    own_nodes: bool = False
    assumed: tuple[str, ...] = ()
    secure: bool = False
    tolerates: int | None = None


def adapted(plan: PrivacyPlan, about: Circumstances, claim: Claim) -> Claim:
    """A claim with what its circumstances change."""
    claim = replace(claim, assumptions=(*claim.assumptions, *about.assumed))
    if about.secure:
        claim = _behind_masks(plan, about, claim)
    if about.own_nodes:
        claim = _on_nodes(claim)
    uncovered = about.uncovered
    if plan.evaluation and not plan.evaluation.noised:
        uncovered = (*uncovered, "the score of each client that is evaluated, on its own validation records")
    if not uncovered:
        return claim
    return replace(
        claim,
        release=f"{claim.release}, and for these only",
        not_covered=(*uncovered, *claim.not_covered),
    )


def _behind_masks(plan: PrivacyPlan, about: Circumstances, claim: Claim) -> Claim:
    """A claim that rests on masks, where it rests on secure aggregation at all."""
    if SUMS_ASSUMED not in claim.assumptions:
        return claim
    others = tuple(text for text in claim.assumptions if text != SUMS_ASSUMED)
    corrupt = plan.client.shares.corrupt if plan.client.shares else 0
    masked = _MASKED.format(
        tolerates=corrupt if about.tolerates is None else about.tolerates,
        corrupt="none" if corrupt == 0 else corrupt,
    )
    return replace(claim, assumptions=(masked, _PINNED if about.own_nodes else _PLAYED, *others))


def _on_nodes(claim: Claim) -> Claim:
    """A claim where clients are nodes of Flower's own runtimes."""
    if claim.cohort_secret:
        assumption = "Flower's SuperLink and its database belong to the server"
    else:
        assumption = "each node keeps its Flower context, which remembers the rounds that it has answered"
        if claim.randomness != SEED_KEY:
            claim = replace(claim, randomness=_OWN_KEYS)
    times = "when each client replied, and how long it took"
    return replace(
        claim, assumptions=(*claim.assumptions, assumption), not_covered=(*claim.not_covered, times)
    )


def noised_evaluation(plan: PrivacyPlan, noise: str) -> EvaluationPlan | None:
    """The evaluation, if its scores are noised at this level."""
    evaluation = plan.evaluation
    return evaluation if evaluation and evaluation.noised and getattr(evaluation, noise) else None


def evaluations(plan: PrivacyPlan, joint: str, noise: str) -> str:
    """The part of a horizon that federated evaluation adds, or nothing."""
    evaluation = noised_evaluation(plan, noise)
    if evaluation is None:
        return ""
    count, multiplier = plan.rounds // evaluation.every, getattr(evaluation, noise)
    return f"; {joint} {count} evaluations with cohorts of their own, noise multiplier {multiplier:g}"
