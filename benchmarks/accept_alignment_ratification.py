"""The full lines of ratification: intervals of votes under local privacy cover the truth, at every share.

python benchmarks/accept_alignment_ratification.py     # writes results/alignment_ratification.json; about two minutes
"""

import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from lines import Lines

from fedsafe.alignment import Ballot, simulate_votes, tally
from fedsafe.findings import clopper_pearson
from fedsafe.rng import key_from_seed

COMMAND = "python benchmarks/accept_alignment_ratification.py"
VOTERS, VOTES, EPSILON, COVER = 1000, 1000, 1.0, 0.93
TRUTHS = (0.02, 0.25, 0.5, 0.75, 0.98)


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        lines = Lines(Path(name))
        ballot = Ballot(questions=("principle",), digests=("its text",), epsilon=EPSILON)
        rng = np.random.default_rng(0)
        for place, truth in enumerate(TRUTHS):
            with lines.section(f"Votes with a true share of {truth}", COMMAND):
                one_share(lines, ballot, truth, place, rng)
        with lines.section("Privacy of a vote", COMMAND):
            ratio = ballot.keeping / (1 - ballot.keeping)
            lines.add(
                "No opinion makes a vote more than e^epsilon times as likely as the other",
                COMMAND,
                f"{ratio:.12f} <= e = {math.e:.12f}",
                met=ratio <= math.exp(EPSILON),
            )
        return lines.write("alignment_ratification")


def one_share(lines: Lines, ballot: Ballot, truth: float, place: int, rng: np.random.Generator) -> None:
    population, present, normal, widths, estimates = 0, 0, 0, [], []
    slope = 2 * ballot.keeping - 1
    for number in range(VOTES):
        opinions = (rng.random((VOTERS, 1)) >= truth).astype(np.int64)
        _, answers = simulate_votes(ballot, opinions, key_from_seed(place * VOTES + number))
        seen = int((answers == 0).sum())
        found = tally(seen, VOTERS, ballot)
        low, high = found.interval
        population += low <= truth <= high
        present += low <= float((opinions == 0).mean()) <= high
        widths.append(high - low)
        estimates.append(found.agree or 0.0)
        share = seen / VOTERS
        half = 1.96 * math.sqrt(share * (1 - share) / VOTERS) / slope
        middle = min(1.0, max(0.0, found.agree or 0.0))
        normal += middle - half <= truth <= middle + half
    least, most = clopper_pearson(population, VOTES)
    error = float(np.std(estimates)) / math.sqrt(VOTES)
    lines.add(
        f"{VOTERS:,} voters under local epsilon {EPSILON:g}, {truth:g} of whom agree: 95 % intervals cover in at least "
        f"93 % of {VOTES:,} votes",
        COMMAND,
        f"{population / VOTES:.3f} [{least:.3f}, {most:.3f}] of those that the voters are drawn from, "
        f"{present / VOTES:.3f} of the voters themselves; mean width {np.mean(widths):.3f}; estimates off by "
        f"{np.mean(estimates) - truth:+.4f} (standard error {error:.4f}); normal intervals would cover "
        f"{normal / VOTES:.3f}",
        met=population >= COVER * VOTES
        and present >= COVER * VOTES
        and abs(float(np.mean(estimates)) - truth) < 4 * error,
    )


if __name__ == "__main__":
    sys.exit(main())
