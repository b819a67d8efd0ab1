"""Runs assessors by name, each with its own random numbers, and none able to stop the others."""

import copy
import difflib
import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, get_args

import torch

from fedsafe.assess.base import Assessor, Subject, Tier
from fedsafe.errors import ConfigError
from fedsafe.findings import Finding, not_measured
from fedsafe.rng import public_generator

ASSESSORS: Mapping[str, str] = MappingProxyType(
    {
        "performance": "fedsafe.assess.performance:Performance",
        "fairness": "fedsafe.assess.fairness:Fairness",
        "robustness": "fedsafe.assess.robustness:Robustness",
        "interpretability": "fedsafe.assess.interpretability:Interpretability",
        "privacy": "fedsafe.assess.privacy:Privacy",
    }
)
"""The built-in assessors: name to import path, imported when asked for."""

_LOG = logging.getLogger(__name__)


def find_assessor(spec: str) -> Assessor:
    """The assessor of that name.

    Args:
        spec: A key of `ASSESSORS`, or ``"package.module:attribute"`` naming a class that needs no arguments,
            or an instance.

    Raises:
        ConfigError: Nothing is found there, or what is found is no assessor.
    """
    path = ASSESSORS.get(spec, spec)
    module, colon, attribute = path.partition(":")
    if not colon:
        near = difflib.get_close_matches(spec, ASSESSORS, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(ASSESSORS)};"
        raise ConfigError(f"no assessor is named {spec!r}; {remedy} or give 'package.module:attribute'")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
        assessor = found() if isinstance(found, type) else found
    except Exception as error:  # a user's own code may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"assessor {spec!r} cannot be imported or made: {reason}") from error
    if not isinstance(assessor, Assessor):
        raise ConfigError(f"{spec!r} is no assessor: it needs a name, plan(subject, tier) and __call__")
    return assessor


def run_assessors(
    subject: Subject, assessors: Sequence[str | Assessor], *, rng_seed: int, tier: Tier
) -> dict[str, list[Finding]]:
    """Runs every assessor on its own copy of the model.

    An assessor's random numbers depend on the seed, the round and its name alone, so that adding one does not
    change what another finds. One that raises, or returns anything but findings, is reported as a failed
    finding of ``assess.completed`` that names it; the others run on.

    Args:
        subject: What is judged.
        assessors: Names, import paths (see `find_assessor`) or instances.
        rng_seed: Seed of the public randomness.
        tier: "cheap" or "full".

    Returns:
        The findings of each assessor, by its name, in the order given.

    Raises:
        ConfigError: An assessor cannot be found, two share a name, or the tier is unknown.
    """
    if tier not in get_args(Tier):
        raise ConfigError(f"tier {tier!r} is unknown; it is one of {', '.join(get_args(Tier))}")
    found = [find_assessor(entry) if isinstance(entry, str) else entry for entry in assessors]
    names = [assessor.name for assessor in found]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ConfigError(f"two assessors are named {repeated[0]!r}; their findings could not be told apart")
    return {assessor.name: _run(subject, assessor, rng_seed, tier) for assessor in found}


def _run(subject: Subject, assessor: Assessor, seed: int, tier: Tier) -> list[Finding]:
    purpose = f"assess {subject.round} {assessor.name}"
    own = replace(subject, model=copy.deepcopy(subject.model))
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            # Third-party code may draw from torch's global generator: that too follows from the seed.
            torch.default_generator.manual_seed(
                int(public_generator(seed, f"{purpose} torch").integers(2**63))
            )
            findings: object = assessor(own, rng=public_generator(seed, purpose), tier=tier)
        return _checked(findings)
    except Exception as error:
        _LOG.debug("assessor %s failed", assessor.name, exc_info=True)
        reason = f"assessor {assessor.name!r} failed: {type(error).__name__}: {error}"
        where = {"assessor": assessor.name}
        return [not_measured("assess.completed", reason, status="failed", where=where, **subject.provenance)]


def _checked(findings: object) -> list[Finding]:
    if not isinstance(findings, list):
        raise TypeError(f"it returned a {type(findings).__name__}, not a list of findings")
    for position, finding in enumerate(findings):
        if not isinstance(finding, Finding):
            raise TypeError(f"entry {position} of its list is a {type(finding).__name__}, not a Finding")
    return findings
