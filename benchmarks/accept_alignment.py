"""The full lines of alignment: preferences, groups, trajectories, poisoning, guarded generation and ratification.

    python benchmarks/accept_alignment.py                              # everything
    python benchmarks/accept_alignment.py accept_alignment_guard       # this part again, the others as they were

Writes ``results/alignment.json``; reads the offensiveness ratings, the response pairs and the story model through
``FEDSAFE_DATA_DIR``.
"""

import sys

from parts import chosen, gather

PARTS = (
    "accept_alignment_preferences",
    "accept_alignment_groups",
    "accept_alignment_trajectories",
    "accept_alignment_poisoning",
    "accept_alignment_guard",
    "accept_alignment_ratification",
)

if __name__ == "__main__":
    sys.exit(gather("alignment", PARTS, again=chosen(PARTS, sys.argv[1:])))
