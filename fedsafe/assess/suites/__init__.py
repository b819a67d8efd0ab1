"""Named suites: assessors and the requirements on what they find, for a pipeline that releases models.

=================  ==============================================================================================
``adversarial``    what is left of accuracy under FGSM, PGD and lies in categories, and how near C&W's errors are
``bias``           gaps between groups: sex, race, age and every other group column; decisions that a column turns
``privacy``        the accounted budget, attacks on membership, and audits of the run that accuse it
``alignment``      principles that decisions must keep to, and a learned reward against people's judgement
``all``            all of them
=================  ==============================================================================================

The thresholds, each with its reason, are the TOML files of this folder; a file of requirements replaces any of them. A
suite of one's own is a file of the same form, an import path of a function that returns a `Suite`, or an entry point of
the group ``fedsafe.suites``.
"""

from fedsafe.assess.suites.judging import CaseResult, judge_suites, override, verdicts_of
from fedsafe.assess.suites.naming import ALL, SUITES, assessors_of, find_suites
from fedsafe.assess.suites.suite import Case, Suite

__all__ = [
    "ALL",
    "SUITES",
    "Case",
    "CaseResult",
    "Suite",
    "assessors_of",
    "find_suites",
    "judge_suites",
    "override",
    "verdicts_of",
]
