"""The full lines of training under attack: robust objectives, Byzantine clients, the grid, and what updates leak.

    python benchmarks/accept_attack.py                           # everything, about forty minutes
    python benchmarks/accept_attack.py accept_byzantine_grid     # this part again, the others as they were last run

Writes ``results/attack.json``; reads MNIST through ``FEDSAFE_DATA_DIR``.
"""

import sys

from parts import chosen, gather

PARTS = (
    "accept_robust_training",
    "accept_byzantine_adult",
    "accept_byzantine_grid",
    "accept_byzantine_skewed",
    "accept_privacy_attacks",
)

if __name__ == "__main__":
    sys.exit(gather("attack", PARTS, again=chosen(PARTS, sys.argv[1:])))
