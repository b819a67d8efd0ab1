"""Runs assessors by name, each with its own random numbers, and none able to stop the others."""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import nn

from fedsafe.assess.base import Assessor, Cost, Subject, Tier
from fedsafe.assess.comparing import COMPARISON, compare
from fedsafe.assess.invariants import hold_to_each_other
from fedsafe.data import Task
from fedsafe.errors import ConfigError
from fedsafe.extensions import one_line, resolve, unknown_option
from fedsafe.findings import BUILT_IN_METRICS, Finding, not_measured
from fedsafe.rng import public_generator

ASSESSORS: Mapping[str, str] = MappingProxyType(
    {
        "performance": "fedsafe.assess.performance.assessor:Performance",
        "fairness": "fedsafe.assess.fairness.assessor:Fairness",
        "alignment": "fedsafe.assess.alignment.assessor:Alignment",
        "principles": "fedsafe.assess.principles.assessor:Principles",
        "robustness": "fedsafe.assess.robustness.assessor:Robustness",
        "certified": "fedsafe.assess.certified.assessor:Certified",
        "corruptions": "fedsafe.assess.corruptions.assessor:Corruptions",
        "interpretability": "fedsafe.assess.interpretability.assessor:Interpretability",
        "surrogate": "fedsafe.assess.interpretability.surrogate:Surrogate",
        "consistency": "fedsafe.assess.interpretability.consistency:Consistency",
        "generalisation": "fedsafe.assess.generalisation.assessor:Generalisation",
        "personalisation": "fedsafe.assess.generalisation.personalisation:Personalisation",
        "membership": "fedsafe.assess.privacy.membership:Membership",
        "personal_alignment": "fedsafe.assess.alignment.personal:PersonalAlignment",
        "preference_poisoning": "fedsafe.assess.alignment.poisoning:PreferencePoisoning",
        "client_membership": "fedsafe.assess.privacy.client_attacks:ClientMembership",
        "inversion": "fedsafe.assess.privacy.inversion:Inversion",
        "privacy": "fedsafe.assess.privacy.assessor:Privacy",
    }
)
"""The built-in assessors: name to import path, imported when asked for."""

DEFAULT: tuple[str, ...] = (
    "performance",
    "fairness",
    "alignment",
    "principles",
    "robustness",
    "certified",
    "corruptions",
    "interpretability",
    "surrogate",
    "consistency",
    "privacy",
)
"""What runs where nothing is said: affordable, and of no records but those that the model is judged on.

Those of `READS_CLIENTS` run in a simulation when they are named.
"""

READS_CLIENTS: frozenset[str] = frozenset(
    {
        "client_membership",
        "generalisation",
        "inversion",
        "membership",
        "personal_alignment",
        "personalisation",
        "preference_poisoning",
    }
)
"""Built-in assessors whose findings are functions of the clients' own records: a simulation's, not for release."""

_LOG = logging.getLogger(__name__)


def find_assessor(spec: str | Mapping[str, Any]) -> Assessor:
    """The assessor that is named.

    Args:
        spec: A key of `ASSESSORS`, the name of an installed package's entry point, or
            ``"package.module:attribute"`` of a class, a function that makes one, or an instance; or a table of such
            a ``name`` and options, for example ``{"name": "robustness", "attacks": ["fgsm", "my_package:attack"]}``.

    Raises:
        ConfigError: Nothing is found there, an option is wrong, or what is found is no assessor.
    """
    options = {} if isinstance(spec, str) else {key: value for key, value in spec.items() if key != "name"}
    name = spec if isinstance(spec, str) else spec.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"the assessor {spec!r} is neither a name nor a table with a `name`")
    found: Any = resolve("assessor", name, ASSESSORS)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    ready = not isinstance(found, type) and isinstance(found, Assessor)
    if ready and given:
        raise ConfigError(
            f"The assessor {name!r} is made already, and takes no options: leave out {', '.join(given)}."
        )
    wrong = unknown_option(found, given)
    if wrong:
        raise ConfigError(f"The assessor {name!r} cannot be made: {wrong}.")
    try:
        assessor = found if ready else found(**given)
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        raise ConfigError(f"The assessor {name!r} cannot be made: {one_line(error)}.") from error
    if not isinstance(assessor, Assessor):
        raise ConfigError(
            f"The assessor {name!r} is none: it needs a name, plan(subject, tier) and __call__."
        )
    return assessor


def assess_model(
    model: nn.Module,
    task: Task,
    *,
    assessors: Sequence[str | Mapping[str, Any] | Assessor] | str | Mapping[str, Any] | None = None,
    tier: Tier = "full",
    seed: int = 0,
) -> dict[str, list[Finding]]:
    """Judges a model on the evaluation records of a task, outside any run.

    Args:
        model: From ``(n, *inputs)`` to ``(n, *outputs)`` of the task's signature; it is copied, and not changed.
        task: With the public schema. Its training records are taken for those that the model was trained on.
        assessors: See `find_assessor`; one, or several; those of `DEFAULT` where None.
        tier: "cheap" or "full".
        seed: Of the public randomness.

    Returns:
        The findings of each assessor, by its name.

    Raises:
        ConfigError: An assessor cannot be found, two share a name, or the tier is unknown.
    """
    subject = Subject.outside(model, task)
    chosen = [assessors] if isinstance(assessors, str | Mapping) else assessors
    return run_assessors(subject, DEFAULT if chosen is None else chosen, rng_seed=seed, tier=tier)


def run_assessors(
    subject: Subject,
    assessors: Sequence[str | Mapping[str, Any] | Assessor],
    *,
    rng_seed: int,
    tier: Tier,
    timed: Callable[[str, float], None] | None = None,
) -> dict[str, list[Finding]]:
    """Runs every assessor on its own copy of the model, and holds what they found to each other.

    An assessor's random numbers depend on the seed, the round and its name alone, so that adding one does not
    change what another finds. One that raises, or returns anything but findings, or two of one metric and slice, or
    one of a built-in metric without being built in, is reported as a failed finding of ``assess.completed`` that
    names it; the others run on. Findings that contradict each other become unreliable, see
    `fedsafe.assess.invariants`, and in a run all are compared with the last accepted model, see
    `fedsafe.assess.comparing`.

    Args:
        subject: What is judged.
        assessors: Names, import paths or tables (see `find_assessor`), or instances.
        rng_seed: Seed of the public randomness.
        tier: "cheap" or "full".
        timed: Told the name of each assessor that is done, and the seconds that it took.

    Returns:
        The findings of each assessor, by its name, in the order given; in a run, those of ``comparison`` last.

    Raises:
        ConfigError: An assessor cannot be found, two share a name, or the tier is unknown.
    """
    found: dict[str, list[Finding]] = {}
    for assessor in ready_assessors(assessors, tier):
        began = time.perf_counter()
        found[assessor.name] = _run(subject, assessor, rng_seed, tier)
        if timed is not None:
            timed(assessor.name, time.perf_counter() - began)
    began = time.perf_counter()
    found = hold_to_each_other(found, len(subject.evaluation))
    changes = compare(replace(subject, seed=rng_seed), found, tier)
    if changes:
        found[COMPARISON] = changes
        if timed is not None:
            timed(COMPARISON, time.perf_counter() - began)
    return found


def plan_assessors(
    subject: Subject, assessors: Sequence[str | Mapping[str, Any] | Assessor], tier: Tier
) -> dict[str, Cost]:
    """What each assessor would spend on a subject, before anything is spent.

    Args:
        subject: What would be judged.
        assessors: See `run_assessors`.
        tier: "cheap" or "full".

    Returns:
        The cost by the assessor's name; of one that cannot say, a description with the reason.

    Raises:
        ConfigError: See `run_assessors`.
    """
    costs = {}
    for assessor in ready_assessors(assessors, tier):
        try:
            cost: object = assessor.plan(subject, tier)
            if not isinstance(cost, Cost):
                raise TypeError(f"plan returned a {type(cost).__name__}, not a Cost")
            costs[assessor.name] = cost
        except (Exception, SystemExit) as error:  # a user's own code may raise anything
            costs[assessor.name] = Cost(description=f"not planned: {one_line(error)}")
    return costs


def ready_assessors(
    assessors: Sequence[str | Mapping[str, Any] | Assessor], tier: Tier = "cheap"
) -> list[Assessor]:
    """The assessors that are meant, each with a name of its own.

    Raises:
        ConfigError: An assessor cannot be found, two share a name, or the tier is unknown.
    """
    if tier not in get_args(Tier):
        raise ConfigError(f"tier {tier!r} is unknown; it is one of {', '.join(get_args(Tier))}")
    found = [find_assessor(entry) if isinstance(entry, str | Mapping) else entry for entry in assessors]
    names = [assessor.name for assessor in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"two assessors are named {repeated[0]!r}; their findings could not be told apart")
    if COMPARISON in names:
        raise ConfigError(f"an assessor is named {COMPARISON!r}, as the comparison of rounds is; rename it")
    return found


def _run(subject: Subject, assessor: Assessor, seed: int, tier: Tier) -> list[Finding]:
    purpose = f"assess {subject.round} {assessor.name}"
    own = replace(
        subject,
        model=copy.deepcopy(subject.model),
        previous=copy.deepcopy(subject.previous),
        seed=seed,
    )
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            # Third-party code may draw from torch's global generator: that too follows from the seed.
            torch.default_generator.manual_seed(
                int(public_generator(seed, f"{purpose} torch").integers(2**63))
            )
            findings: object = assessor(own, rng=public_generator(seed, purpose), tier=tier)
        return _checked(findings, assessor)
    except (Exception, SystemExit) as error:  # a user's own code may raise anything
        _LOG.debug("assessor %s failed", assessor.name, exc_info=True)
        reason = f"assessor {assessor.name!r} failed: {one_line(error)}"
        where = {"assessor": assessor.name}
        return [not_measured("assess.completed", reason, status="failed", where=where, **subject.provenance)]


def _checked(findings: object, assessor: Assessor) -> list[Finding]:
    if not isinstance(findings, list):
        raise TypeError(f"it returned a {type(findings).__name__}, not a list of findings")
    kind = type(assessor)
    own = f"{kind.__module__}:{kind.__qualname__}" in ASSESSORS.values()
    seen = set()
    for position, finding in enumerate(findings):
        if not isinstance(finding, Finding):
            raise TypeError(f"entry {position} of its list is a {type(finding).__name__}, not a Finding")
        if finding.metric in BUILT_IN_METRICS and not own:
            raise ConfigError(
                f"{finding.metric!r} is a metric of FedSafe's own assessors, and requirements trust it; register one "
                f"of your own with register_metric"
            )
        place = (finding.metric, frozenset(finding.where.items()))
        if place in seen:
            raise ConfigError(
                f"it returned two findings of {finding.metric!r} with the same where, {finding.where}"
            )
        seen.add(place)
    return findings
