"""From targets to a plan: the noise that meets them, or, where the noise is given, how long it lasts."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from fedsafe.errors import CalibrationError
from fedsafe.privacy.accounting import (
    Adjacency,
    SampledGaussian,
    calibrate_noise,
    noise_that_costs,
    order_for,
    require_whole,
)
from fedsafe.privacy.accounting.distributed import calibrate_distributed
from fedsafe.privacy.levels import (
    DISTRIBUTED,
    FILTERED,
    MOST_CHOSEN,
    ClientPlan,
    EvaluationPlan,
    Mechanics,
    RecordPlan,
)
from fedsafe.privacy.mechanisms import grid_bits
from fedsafe.privacy.plan import PrivacyPlan, of_group

_LEAST, _MOST = 0.3, 1e5
_CENTRAL = Mechanics()


def make_plan(
    *,
    clients: int,
    rounds: int,
    cohort_rate: float,
    record_epsilon: float,
    record_delta: float,
    record_clip: float,
    record_rate: float,
    steps: int,
    max_participations: int | None,
    client_epsilon: float,
    client_delta: float,
    client_clip: float,
    program: str = "",
    evaluate_every: int | None = None,
    evaluation_epsilon: float = math.inf,
    record_noise: float | None = None,
    client_noise: float | None = None,
    record_group: int = 1,
    client_group: int = 1,
    record_grid_bits: int | None = None,
    record_batch: int | None = None,
    least_records: int | None = None,
    budgets: Mapping[int, float] | None = None,
    mechanics: Mechanics = _CENTRAL,
    local_steps: int = 0,
) -> PrivacyPlan:
    """A plan that meets both targets: by its noise, or, where that is given, by its length.

    The arguments are those of the plan's parts, and ``evaluate_every`` None means no federated evaluation; an infinite
    ``evaluation_epsilon`` sends its scores without noise, outside of the claims. Where ``record_noise`` or
    ``client_noise`` is given, that level's target is a budget: a client takes part in as many rounds as its own pays
    for, and the run ends before the other is overspent. ``budgets`` are epsilons of the clients that have smaller
    record-level budgets of their own, by client. ``local_steps`` are those of the ``steps`` whose result stays at the
    client.

    Raises:
        CalibrationError: A target cannot be met.
    """
    cap = min(rounds, rounds if max_participations is None else max_participations)
    evaluation: EvaluationPlan | None = None
    if evaluate_every is not None:
        evaluation = _plan_evaluation(
            every=evaluate_every,
            target=evaluation_epsilon,
            rounds=rounds,
            rate=cohort_rate,
            record=(record_epsilon, record_delta),
            client=(client_epsilon, client_delta),
        )
    record = RecordPlan(
        epsilon=record_epsilon,
        delta=record_delta,
        clip=record_clip,
        rate=record_rate,
        steps=steps,
        max_participations=cap,
        noise=0.0,
        group=record_group,
        grid_bits=record_grid_bits if math.isfinite(record_epsilon) else None,
        batch_size=record_batch,
        least_records=least_records if record_batch is not None else None,
        local_steps=local_steps,
    )
    client = ClientPlan(
        epsilon=client_epsilon,
        delta=client_delta,
        clip=client_clip,
        rate=cohort_rate,
        noise=0.0,
        grid_bits=0,
        mechanism=mechanics.mechanism,
        cohort_size=mechanics.cohort_size,
        separation=mechanics.separation,
        shares=mechanics.shares,
        group=client_group,
    )
    if client.private and client.mechanism == FILTERED:
        client = _filtered(client, rounds, mechanics.order, given=client_noise)
    plan = PrivacyPlan(
        clients=clients, rounds=rounds, record=record, client=client, program=program, evaluation=evaluation
    )
    _require_composable(plan, budgets or {})
    if client.private and client.mechanism != FILTERED:
        plan = _noised_client(plan, client_noise)
    if record.private:
        # After the client level, whose budget may have made the run shorter.
        plan = replace(plan, record=_noised_record(plan.record, record_noise, budgets or {}))
    _require_uncapped(plan)
    widest = plan.client.noise * (MOST_CHOSEN if client.mechanism == FILTERED else 1.0)
    bits = grid_bits(client_clip, clients, widest)
    return replace(plan, client=replace(plan.client, grid_bits=bits))


def _filtered(level: ClientPlan, rounds: int, order: float | None, given: float | None) -> ClientPlan:
    """A budget, the order of its filter, and the noise that spends it evenly.

    Raises:
        CalibrationError: The order leaves nothing to spend, or the filter does not count what is asked for.
    """
    reasons = {
        "privacy.client.noise": given is not None,
        "cohorts of a fixed size": level.cohort_size is not None,
        "max_clients_per_person above 1": level.group > 1,
    }
    for reason, there in reasons.items():
        if there:
            raise CalibrationError(
                f"a noise multiplier that is chosen for each round is not accounted for together with {reason}: "
                "leave it out"
            )
    if order is None:
        order = order_for(level.epsilon, level.delta, rate=level.rate, count=rounds)
    level = replace(level, order=require_whole(order))
    budget = level.filter().budget
    noise = noise_that_costs(budget, order=order, rate=level.rate, count=rounds)
    if math.isinf(noise):
        raise CalibrationError(
            f"privacy.client: no noise multiplier keeps {rounds} rounds inside a Rényi divergence of {budget:.3g} at "
            f"order {order:g}: raise epsilon or delta, plan fewer rounds, or leave the order out"
        )
    return replace(level, noise=noise)


def _noised_record(level: RecordPlan, noise: float | None, budgets: Mapping[int, float]) -> RecordPlan:
    if noise is None:
        count = level.max_participations * level.steps
        if level.batch_size is not None:
            found = _search("record", level.epsilon, lambda noise: _record_cost(level, noise))
        else:
            found = _calibrate("record", level.epsilon, level.delta, level.rate, count)
            if level.group > 1:
                found = _search(
                    "record", level.epsilon, lambda noise: _record_cost(level, noise), level.group * found
                )
        level = replace(level, noise=found)
    else:
        level = replace(level, noise=noise)
        level = replace(level, max_participations=_lasting(level))
    caps = []
    for client, budget in sorted(budgets.items()):
        cap = _affordable(level, budget)
        if cap < level.max_participations:
            caps.append((client, cap))
    return replace(level, caps=tuple(caps))


def _require_composable(plan: PrivacyPlan, budgets: Mapping[int, float]) -> None:
    """Refuse what is not accounted for together with the noised scores of a federated evaluation, and lost rounds."""
    level, record = plan.client, plan.record
    noised = plan.evaluation is not None and plan.evaluation.noised
    reasons = {
        f"the mechanism {level.mechanism!r} of the client level": level.private
        and (level.mechanism == FILTERED or not level.cohorts_count),
        "client.batch_size": record.private and record.batch_size is not None,
        "max_records_per_person above 1": record.private and record.group > 1,
        "max_clients_per_person above 1": level.private and level.group > 1,
        "privacy.record.budgets": record.private and bool(budgets),
    }
    for reason, there in reasons.items():
        if noised and there:
            raise CalibrationError(
                f"federation.evaluation with noised = true is not accounted for together with {reason}: leave one of "
                "them out, or set noised = false"
            )
    if level.private and level.mechanism == DISTRIBUTED:
        if level.group > 1:
            raise CalibrationError(
                "privacy.client.max_clients_per_person above 1 is not accounted for with noise that clients add "
                "together: leave it at 1"
            )
        least = level.shares.minimum if level.shares else 0
        largest = level.cohort_size or plan.clients
        if least > largest:
            raise CalibrationError(
                f"server.aggregator: minimum = {least} clients must survive a round, and {largest} can be in one: "
                "every round would be aborted; lower it"
            )


def _require_uncapped(plan: PrivacyPlan) -> None:
    """Refuse to leave clients out of cohorts of a fixed size.

    That a cap keeps the amplified bound is shown given who else took part, which in such a cohort says who did
    (``docs/decisions/0002-participation-cap.md``).
    """
    level, record = plan.client, plan.record
    amplified = level.private and level.cohorts_count and level.cohort_size is not None
    if amplified and (record.max_participations < plan.rounds or record.caps):
        raise CalibrationError(
            f"privacy.client with cohorts of a fixed size cannot leave a client out after {record.max_participations} "
            f"of {plan.rounds} rounds: leave privacy.record.max_participations, noise and budgets out, or draw Poisson "
            "cohorts"
        )


def _record_cost(level: RecordPlan, noise: float) -> float:
    return of_group(replace(level, noise=noise).mechanism(), level)


def _affordable(level: RecordPlan, budget: float) -> int:
    """In how many rounds a client can take part."""
    return _most(level.max_participations, lambda rounds: of_group(level.mechanism(rounds), level) <= budget)


def _lasting(level: RecordPlan) -> int:
    lasting = _affordable(level, level.epsilon)
    if lasting == 0:
        once = of_group(level.mechanism(1), level)
        raise CalibrationError(
            f"privacy.record: one round with noise = {level.noise:g} costs epsilon {once:.3g}, more than the budget of "
            f"{level.epsilon:g}: raise the noise or the budget"
        )
    return lasting


def _noised_client(plan: PrivacyPlan, noise: float | None) -> PrivacyPlan:
    level, cap = plan.client, plan.record.max_participations
    if noise is None and level.mechanism == DISTRIBUTED:
        found = calibrate_distributed(
            level.epsilon,
            level.delta,
            lambda noise: replace(level, noise=noise).distributed(plan.clients, min(plan.rounds, cap)),
        )
        return replace(plan, client=replace(level, noise=found))
    if noise is None:
        return replace(plan, client=replace(level, noise=_client_noise(plan)))
    plan = replace(plan, client=replace(level, noise=noise))
    rounds = _most(plan.rounds, lambda n: plan.client_epsilon(n, min(n, cap)) <= level.epsilon)
    if rounds == 0:
        raise CalibrationError(
            f"privacy.client: one round with noise = {noise:g} costs epsilon {plan.client_epsilon(1, 1):.3g}, more "
            f"than the budget of {level.epsilon:g}: raise the noise or the budget"
        )
    record = replace(plan.record, max_participations=min(cap, rounds))
    return replace(plan, rounds=rounds, record=record)


def _client_noise(plan: PrivacyPlan) -> float:
    level, cap, start = plan.client, plan.record.max_participations, 2.0
    release = level.release(clients=plan.clients, rounds=plan.rounds, cap=cap)
    if isinstance(release, SampledGaussian):
        noised = plan.evaluation if plan.evaluation and plan.evaluation.noised else None
        also = () if noised is None else (noised.of_client(plan.rounds, release.adjacency),)
        found = _calibrate(
            "client", level.epsilon, level.delta, release.rate, release.count, also, release.adjacency
        )
        if level.group == 1:
            return found
        start = level.group * found

    def cost(noise: float) -> float:
        return replace(plan, client=replace(level, noise=noise)).client_epsilon(plan.rounds, cap)

    return _search("client", level.epsilon, cost, start)


def _most(limit: int, affordable: Callable[[int], bool]) -> int:
    """The largest number up to ``limit`` that is affordable; what a larger one costs is never less."""
    low, high = 0, limit + 1
    if affordable(limit):
        return limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if affordable(middle) else (low, middle)
    return low


def _search(unit: str, target: float, cost: Callable[[float], float], start: float = 2.0) -> float:
    """A noise multiplier that costs no more than ``target``, and within 0.5 % of it, from one that is near.

    Epsilon falls about as a power of the noise, so the secant of their logarithms finds it in a few evaluations of a
    slow accountant; whatever it does, the step stays between what was too little and what was enough.
    """
    low, high = math.log(_LEAST), math.log(_MOST)
    at, slope = math.log(start), -1.5
    last: tuple[float, float] | None = None
    while high - low > 1e-4:
        excess = math.log(max(cost(math.exp(at)), 1e-12) / target)
        if -0.005 <= excess <= 0.0:
            return math.exp(at)
        low, high = (at, high) if excess > 0.0 else (low, at)
        if last is not None and math.isfinite(excess) and at != last[0]:
            slope = min((excess - last[1]) / (at - last[0]), -0.1)
        last = (at, excess) if math.isfinite(excess) else None
        step = at - (excess + 0.002) / slope if math.isfinite(excess) else at + math.log(2.0)
        at = step if low < step < high else (low + high) / 2.0
    if high > math.log(_MOST) - 1e-3:
        raise CalibrationError(
            f"privacy.{unit}: no noise multiplier up to {_MOST:g} reaches epsilon {target:g}; raise epsilon or "
            "delta, or plan fewer rounds"
        )
    return math.exp(high)


def _plan_evaluation(
    *,
    every: int,
    target: float,
    rounds: int,
    rate: float,
    record: tuple[float, float],
    client: tuple[float, float],
) -> EvaluationPlan:
    noised = math.isfinite(target)
    noise = {"record": 0.0, "client": 0.0}
    for level, (whole, delta), sampled in (("record", record, 1.0), ("client", client, rate)):
        if not noised or not math.isfinite(whole):
            continue
        if target > whole or (level == "client" and target == whole):
            raise CalibrationError(
                f"evaluation may cost epsilon {target:g}, all of privacy.{level}.epsilon = {whole:g} or more: lower it"
            )
        if rounds >= every:
            noise[level] = _calibrate(f"{level} (evaluation)", target, delta, sampled, rounds // every)
    return EvaluationPlan(
        every=every,
        noised=noised,
        epsilon=target if noised else 0.0,
        rate=rate,
        noise_record=noise["record"],
        noise_client=noise["client"],
    )


def _calibrate(
    level: str,
    target: float,
    delta: float,
    rate: float,
    count: int,
    also: tuple[SampledGaussian, ...] = (),
    adjacency: Adjacency = "zero-out",
) -> float:
    try:
        return calibrate_noise(target, delta, rate=rate, count=count, adjacency=adjacency, also=also)
    except CalibrationError as error:
        raise CalibrationError(f"privacy.{level}: {error}") from error
