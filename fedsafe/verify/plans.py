"""The claims of a planned run of FedSafe, in the terms in which any target declares its own."""

import math
from collections.abc import Mapping
from typing import Any

from fedsafe.aggregation import (
    AdaptiveClip,
    Aggregator,
    BandedMean,
    CappedMean,
    DistributedMean,
    LocalGaussian,
    NoisyMean,
)
from fedsafe.errors import ConfigError
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.runs.compose import Parts, aggregator_of
from fedsafe.verify.declared import DeclaredClaim, make_claim
from fedsafe.verify.plan_node import PlanNode
from fedsafe.verify.server import LAYOUT

_MOST_RECORDS = 4000


def client_claim(parts: Parts, plan: PrivacyPlan) -> DeclaredClaim | str:
    """The client level's claim, or why it is not checked here."""
    level = plan.client
    if not level.private:
        return "the plan makes no client-level claim"
    spec = parts.config.server.aggregator
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    aggregator = aggregator_of(parts, plan)
    if aggregator.needs_groups:
        return (
            f"the aggregator {aggregator.name} weighs groups of clients, and the clients that are scripted here have "
            "none: not checked; its noise is that of noisy_mean, which is"
        )
    described = _described(aggregator, options, plan)
    if described is None:
        return (
            f"the aggregator {aggregator.name} releases no noised sum whose noise is known: not checked here"
        )
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
            "participations": plan.record.max_participations,
            "epsilon": plan.spend(plan.rounds)["client"],
            "delta": level.delta,
            **described,
        }
    )


def _described(
    aggregator: Aggregator, options: Mapping[str, Any], plan: PrivacyPlan
) -> dict[str, Any] | None:
    """What a rule claims besides the numbers that all have; None for one that is not known here."""
    if isinstance(aggregator, NoisyMean):
        return {}
    if isinstance(aggregator, CappedMean):
        if aggregator.cap != int(aggregator.cap):
            return None
        mean = options.get("mean_weight", 1.0)
        return {"weights": "capped", "cap": int(aggregator.cap), "mean_weight": mean}
    if isinstance(aggregator, AdaptiveClip):
        clip = {
            "quantile": options.get("quantile", 0.5),
            "learning_rate": options.get("pace", 0.2),
            "noise": aggregator.indicator_noise,
        }
        # The clip of the next round is announced: it follows from noisy indicators.
        return {"metrics": ["clip"], "adaptive_clip": clip}
    if isinstance(aggregator, LocalGaussian):
        return {"mechanism": "local"}
    if isinstance(aggregator, BandedMean):
        bands = {"bands": int(options["bands"]), "separation": plan.client.separation}
        return {"mechanism": "banded", "banded": bands}
    if isinstance(aggregator, DistributedMean):
        client, values = aggregator.client, LAYOUT.total
        unit = math.ldexp(client.clip, client.bits)
        # The share is a whole number: what is really added is a little more than planned.
        noise = client.share(values) * math.sqrt(client.honest) / client.bound(values)
        together = {
            "minimum": client.minimum,
            "corrupt": client.corrupt,
            "rounded": max(1.0, client.bound(values) / unit),
        }
        return {"mechanism": "distributed", "noise": noise, "distributed": together}
    return None


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
    if plan.record.local_steps:
        return (
            "clients find parameters of their own first, and what remains of that noise follows no known law"
        )
    if parts.task.train.x.dtype.kind != "f":
        return "the records are tokens, which cannot be made long"
    if not any(len(shape) >= 2 for shape in parts.layout.shapes):
        raise ConfigError("the model has no weights that multiply a record")
    return PlanNode(parts, plan)
