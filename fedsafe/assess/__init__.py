"""Assessors measure a model; requirements say what the measurements must meet."""

import sys

from fedsafe.assess.base import Assessor, Cost, Subject, Tier
from fedsafe.assess.calling import CallableModule
from fedsafe.assess.clients import ClientRecords, Federation
from fedsafe.assess.comparing import COMPARISON, evidence_of
from fedsafe.assess.principle import Principle
from fedsafe.assess.requirements import Requirement, Verdict, judge, parse_requirements
from fedsafe.assess.running import (
    ASSESSORS,
    DEFAULT,
    READS_CLIENTS,
    assess_model,
    find_assessor,
    plan_assessors,
    ready_assessors,
    run_assessors,
)

__all__ = [
    "ASSESSORS",
    "COMPARISON",
    "DEFAULT",
    "READS_CLIENTS",
    "Assessor",
    "ClientRecords",
    "Cost",
    "Federation",
    "Principle",
    "Requirement",
    "Subject",
    "Tier",
    "Verdict",
    "assess_model",
    "evidence_of",
    "find_assessor",
    "judge",
    "parse_requirements",
    "plan_assessors",
    "ready_assessors",
    "run_assessors",
]

# ``fedsafe.assess(model, data)``; a module's class is the documented way to make it callable.
sys.modules[__name__].__class__ = CallableModule
