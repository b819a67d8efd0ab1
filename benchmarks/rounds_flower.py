"""A whole round of DP-SGD with 100 of 1,000 clients, against Flower's simulation with Opacus in its clients: wall time.

python benchmarks/rounds_flower.py
"""

from collections.abc import Sequence

from comparing import Comparison, script
from flower_rounds import flower_rounds
from our_rounds import our_rounds
from workloads import CLIENTS, COHORT, WORKS, stored

# Flower takes up to 40 s for one of these rounds.
PEER_ROUNDS = {"mlp": 3, "cnn": 2}
OUR_ROUNDS = 10
LEAST = {"mlp": 120.0, "cnn": 10.0}
PEER = "peers.flower_opacus"


def compare(name: str, *, clients: int, cohort: int, peer_rounds: int) -> Comparison:
    """Seconds of a round on both."""
    with stored(*WORKS[name].data(clients)) as folder:
        theirs = flower_rounds(
            PEER,
            PEER,
            clients,
            work=name,
            data=str(folder),
            rounds=peer_rounds + 1,
            fraction=cohort / clients,
        )
        ours = our_rounds(name, folder, clients=clients, cohort=cohort, rounds=OUR_ROUNDS, private=True)
    return Comparison(
        work=f"{name.upper()} as above, a whole round with {cohort} of {clients:,} clients, DP-SGD",
        peer="Flower's simulation with Opacus as documented",
        unit="s per round",
        ours=ours,
        theirs=theirs,
        least=LEAST[name],
    )


def measure(repeats: int) -> Sequence[Comparison]:
    return [
        compare(name, clients=CLIENTS, cohort=COHORT, peer_rounds=min(PEER_ROUNDS[name], repeats))
        for name in WORKS
    ]


if __name__ == "__main__":
    script(measure)
