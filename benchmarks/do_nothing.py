"""A Flower app whose clients do nothing: ``fedsafe simulate`` against Flower's simulation, and in process.

python benchmarks/do_nothing.py
"""

import statistics
import sys
from collections.abc import Sequence

from comparing import HERE, Comparison, Limit, run_json, script
from flower_rounds import flower_rounds, seconds_between
from our_rounds import WORKERS

NODES, COHORT, ROUNDS = 1000, 100, 20
PEER_ROUNDS = 4
# Above the same app called in process.
MOST_MS = 0.4


def simulated(engine: str, nodes: int) -> list[float]:
    """Seconds of each round but the first, by the app's own clock."""
    command = [sys.executable, "-m", "fedsafe", "simulate", str(HERE / "apps" / "nothing"), "--json"]
    command += ["--nodes", str(nodes), "--engine", engine, "--workers", str(WORKERS)]
    found = run_json([*command, "--set", f"rounds={ROUNDS + 1}", "--set", f"fraction={COHORT / nodes}"])
    if found["errors"] or found["replies"] != COHORT * (ROUNDS + 1):
        raise RuntimeError(f"{found['replies']} replies and {found['errors']} errors of {found['messages']}")
    clocks = found["evaluate_server"]
    return seconds_between([clocks[number] for number in sorted(clocks, key=int)])


def compare(*, nodes: int, peer_rounds: int) -> Comparison:
    """Seconds of a round on both, and how much more than in process each client costs."""
    theirs = flower_rounds(
        "nothing.server", "nothing.client", nodes, rounds=peer_rounds + 1, fraction=COHORT / nodes
    )
    grid, in_process = simulated("ray", nodes), simulated("inline", nodes)
    more = 1e3 * (statistics.median(grid) - statistics.median(in_process)) / COHORT
    return Comparison(
        work=f"a client that does nothing, 6,850 parameters, FedAvg, {COHORT} of {nodes:,} nodes",
        peer="Flower's simulation",
        unit="s per round",
        ours=grid,
        theirs=theirs,
        least=15.0,
        limits=[Limit(name="a client above in process", value=more, most=MOST_MS, unit="ms")],
        notes=f"in process {1e3 * statistics.median(in_process) / COHORT:.2f} ms per client",
    )


def measure(repeats: int) -> Sequence[Comparison]:
    return [compare(nodes=NODES, peer_rounds=min(PEER_ROUNDS, repeats))]


if __name__ == "__main__":
    script(measure)
