"""Assessors measure a model; requirements say what the measurements must meet."""

from fedsafe.assess.base import Assessor, Cost, Subject, Tier
from fedsafe.assess.requirements import Requirement, Verdict, judge, parse_requirements
from fedsafe.assess.running import ASSESSORS, find_assessor, run_assessors

__all__ = [
    "ASSESSORS",
    "Assessor",
    "Cost",
    "Requirement",
    "Subject",
    "Tier",
    "Verdict",
    "find_assessor",
    "judge",
    "parse_requirements",
    "run_assessors",
]
