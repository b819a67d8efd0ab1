"""The claims of a planned run of FedSafe, in the terms in which any target declares its own."""

import math

from fedsafe.aggregation import AdaptiveClip, NoisyMean, build_aggregator
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts
from fedsafe.verify.declared import DeclaredClaim, make_claim
from fedsafe.verify.plan_node import PlanNode

_MOST_RECORDS = 4000
# Rules whose release is a noised sum in which every client counts once.
CHECKED = (NoisyMean.name, AdaptiveClip.name)


def client_claim(parts: Parts, plan: PrivacyPlan) -> DeclaredClaim | str:
    """The client level's claim, or why it is not checked here."""
    level = plan.client
    if not level.private:
        return "the plan makes no client-level claim"
    spec = parts.config.server.aggregator
    name = spec if isinstance(spec, str) else spec["name"]
    if name not in CHECKED:
        return (
            f"the aggregator {name} releases no noised sum in which each client counts once: not checked here"
        )
    aggregator = build_aggregator(spec, plan, learning_rate=parts.config.client.plain_rate)
    adaptive = {}
    if isinstance(aggregator, AdaptiveClip):
        options = {} if isinstance(spec, str) else spec
        adaptive["adaptive_clip"] = {
            "quantile": options.get("quantile", 0.5),
            "learning_rate": options.get("pace", 0.2),
            "noise": aggregator.indicator_noise,
        }
    drawn = (
        {"sampler": "fixed", "size": level.cohort_size}
        if level.cohort_size is not None
        else {"sampler": "poisson", "rate": level.rate}
    )
    return make_claim(
        {
            "level": "client",
            "adjacency": level.adjacency,
            "clip": level.clip,
            "noise": level.noise,
            **drawn,
            "population": plan.clients,
            "rounds": plan.rounds,
            "epsilon": plan.spend(plan.rounds)["client"],
            "delta": level.delta,
            # The clip of the next round is announced: it follows from noisy indicators.
            "metrics": ["clip"] if adaptive else [],
            **adaptive,
        }
    )


def record_claim(parts: Parts, plan: PrivacyPlan, node: PlanNode) -> DeclaredClaim:
    """The record level's claim, of a client with so many records that draws show beside the noise."""
    training, level = node.training, plan.record
    if training.batch_size is not None:
        population = min(_MOST_RECORDS, max(4 * training.batch_size, 40))
        drawn = {"sampler": "fixed", "size": training.batch_size, "adjacency": "replace-one"}
    else:
        share = training.rate
        wanted = 4.0 * training.noise**2 / max(1e-9, 1.0 - share) if share < 1.0 else 20.0
        population = min(_MOST_RECORDS, math.ceil(max(20.0, wanted) / share))
        drawn = {"sampler": "poisson", "rate": share}
    return make_claim(
        {
            "level": "record",
            "clip": level.clip,
            "noise": level.noise,
            **drawn,
            "population": population,
            "steps": level.steps,
            "rounds": level.max_participations,
            "learning_rate": 1.0,
            "epsilon": plan.spend(plan.rounds)["record"],
            "delta": level.delta,
            # A client that answers says so, and real ones send nothing else.
            "metrics": ["clients", "failures", "server-round"],
            "model": "the plan:model",
            "client": {"data": "the plan:data", "learning_rate_key": "learning-rate"},
        }
    )


def record_level(parts: Parts, plan: PrivacyPlan) -> PlanNode | str:
    """What the record level's checks talk to, or why there is nothing to check."""
    if not plan.record.private:
        return "the plan makes no record-level claim"
    if parts.task.train.x.dtype.kind != "f":
        return "the records are tokens, which cannot be made long"
    if not any(len(shape) >= 2 for shape in parts.layout.shapes):
        raise ConfigError("the model has no weights that multiply a record")
    return PlanNode(parts, plan)
