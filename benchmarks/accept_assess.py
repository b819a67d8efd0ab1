"""The full lines of the assessors: known truth, cross-checks, MNIST and its time, brackets, wrong input.

    python benchmarks/accept_assess.py                          # everything, about half an hour
    python benchmarks/accept_assess.py accept_assess_fairness   # this part again, the others as they were last run

Writes ``results/assess.json``; reads MNIST through ``FEDSAFE_DATA_DIR``, and the peers of ``make crosscheck``.
"""

import sys

from parts import chosen, gather

PARTS = (
    "accept_assess_framework",
    "accept_assess_robustness",
    "accept_assess_certified",
    "accept_assess_explanations",
    "accept_assess_fairness",
)

if __name__ == "__main__":
    sys.exit(gather("assess", PARTS, again=chosen(PARTS, sys.argv[1:])))
