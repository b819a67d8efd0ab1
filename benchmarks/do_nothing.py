"""A Flower app whose clients do nothing: FedSafe's grid against Flower's simulation, and against calls in process.

python benchmarks/do_nothing.py
"""

import json
import statistics
import sys
from collections.abc import Sequence

from comparing import Comparison, Limit, run_json, script
from flower_rounds import flower_rounds, seconds_between

NODES, COHORT, ROUNDS = 1000, 100, 10
PEER_ROUNDS = 4
WORKERS = 2
# Above the same app called in process.
MOST_MS = 0.4


def ours(grid: str, nodes: int) -> list[float]:
    """Seconds of each round but the first on a grid of FedSafe's, in this process."""
    from nothing import server

    from fedsafe.engine import InlineGrid
    from fedsafe.engine.ray_grid import RayGrid

    if grid == "inline":
        on = InlineGrid(clients=nodes, apps=make_apps())
        return seconds_between(_clocks(server.play(on, nodes, rounds=ROUNDS, fraction=COHORT / nodes)))
    ray = RayGrid(clients=nodes, make_apps=make_apps, workers=WORKERS)
    try:
        ray.wait_until_ready()
        return seconds_between(_clocks(server.play(ray, nodes, rounds=ROUNDS, fraction=COHORT / nodes)))
    finally:
        ray.close()


def make_apps():
    from nothing import client

    from fedsafe.engine import ClientApps

    return ClientApps(one=client.app)


def _clocks(result) -> list[dict[str, float]]:
    metrics = result.evaluate_metrics_serverapp
    return [dict(metrics[number]) for number in sorted(metrics)]


def compare(*, nodes: int, peer_rounds: int) -> Comparison:
    """Seconds of a round on both, and how much more than in process each client costs."""
    theirs = flower_rounds(
        "nothing.server", "nothing.client", nodes, rounds=peer_rounds + 1, fraction=COHORT / nodes
    )
    grid, in_process = (run_json([sys.executable, __file__, name, str(nodes)]) for name in ("ray", "inline"))
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
    if sys.argv[1:2] in (["ray"], ["inline"]):
        import do_nothing as imported

        print(json.dumps(imported.ours(sys.argv[1], int(sys.argv[2]))))
    else:
        script(measure)
