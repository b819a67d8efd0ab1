"""The claim of DP-SGD: what one record, or all records of one person in a client, is protected by."""

import math

from fedsafe.privacy.accounting import FINE, account, epsilon, group_epsilon
from fedsafe.privacy.circumstances import NEVER_COVERED, OS_KEY, Circumstances, evaluations, noised_evaluation
from fedsafe.privacy.claim import NO_ACCOUNTANT, SEED_KEY, Claim
from fedsafe.privacy.plan import PrivacyPlan

_SUMS = "the clipped sum is added in single precision before it is rounded: that it stays inside the margin is argued"
_FLOATS = "floating-point attacks: the clients' gradients and noise are rounded to single precision"


_ADJACENCY = {
    True: "zero-out (one record replaced by nothing; the number of records of each client is public)",
    False: "replace-one (one record replaced by any other; the number of records of each client is public)",
}


def record_claim(plan: PrivacyPlan, about: Circumstances) -> Claim:
    """Against everyone who sees the updates of its client; an infinite epsilon where there is none."""
    level, evaluation = plan.record, noised_evaluation(plan, "noise_record")
    bound, group = math.inf, None
    if level.private:
        bound = plan.record_epsilon(plan.rounds, level.max_participations)
        if level.group == 1:
            group = group_epsilon(level.mechanism(), level.delta, 2)
            if evaluation:
                # Both records may be in training, both in validation, or one in each.
                validation = evaluation.of_record(plan.rounds)
                one_each = epsilon(level.mechanism(), level.delta, FINE, (validation,))
                group = max(group, group_epsilon(validation, level.delta, 2), one_each)
    persons = "one record per person" if level.group == 1 else f"at most {level.group} records per person"
    on_grid = level.grid_bits is not None
    return Claim(
        unit="record",
        epsilon=bound,
        delta=level.delta,
        adjacency=_ADJACENCY[level.batch_size is None]
        + ("" if level.group == 1 else f", for all of the at most {level.group} records of one person"),
        adversary="the server and all other clients, who see each update of the client and when it took part",
        cohort_secret=False,
        release="every update that one client uploads, and so every model"
        + (", and the noised score of its validation records" if evaluation else ""),
        sampler=f"Poisson batches of rate {level.rate:g} inside the client, empty ones included"
        if level.batch_size is None
        else f"batches of {level.batch_size} records inside the client, without replacement",
        accountant=account([level.mechanism()], level.delta).accountant if level.private else NO_ACCOUNTANT,
        horizon=(
            f"{level.max_participations} participations of {level.steps} steps{_of_them(level.local_steps)}, noise "
            f"multiplier {level.noise:g} over the clip, clip {level.clip:g}; the same bound for every client, so the "
            "worst client's"
        )
        + evaluations(plan, "a validation record, which training never reads, is in", "noise_record"),
        regime="planned",
        randomness=SEED_KEY if about.key_from_seed else OS_KEY,
        arithmetic=f"Gaussian rounded to a grid of 2^-{level.grid_bits}"
        if on_grid
        else "single-precision Gaussian",
        assumptions=(
            f"{persons}, in one client",
            "each client runs this code, and keeps its batches and noise to itself",
            "preprocessing uses the public schema alone",
            "the model keeps the examples of a batch apart, which was tested on random inputs",
        ),
        not_covered=(
            *NEVER_COVERED,
            _SUMS if on_grid else _FLOATS,
            "how many records a client holds",
            "whether a client failed to train",
            "persons with records in several clients",
        ),
        group_epsilon=group,
    )


def _of_them(local_steps: int) -> str:
    """The steps whose result stays at the client, which steers what it uploads."""
    return f" ({local_steps} of them for the parameters that stay at the client)" if local_steps else ""
