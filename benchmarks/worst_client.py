"""The worst client of 10,000, timed: writes ``results/worst_client.json``.

Every line is measured here; a line that falls short is printed as such, and the exit code is 1.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from lines import Lines

from fedsafe.privacy.accounting import ClientSpend, SampledGaussian, epsilon, worst_client

CLIENTS, ROUNDS, BATCH, LIMIT, RANDOM = 10_000, 100, 32, 30.0, 60
COMMAND = "python benchmarks/worst_client.py"


def sizes() -> np.ndarray:
    """10,000 different numbers of records, from 100 to about 21,000, log-normal as those of real federations."""
    quantiles = (np.arange(CLIENTS) + 0.5) / CLIENTS
    from scipy.stats import norm

    wanted = np.round(np.exp(np.log(1500) + 0.75 * norm.ppf(quantiles))).astype(int)
    different = np.maximum.accumulate(np.maximum(wanted, 100) - np.arange(CLIENTS)) + np.arange(CLIENTS)
    assert np.unique(different).size == CLIENTS
    return different


def federations() -> dict[str, list[ClientSpend]]:
    records = sizes()
    return {
        "the same batch of 32 and 10 steps a round": [
            ClientSpend(rate=BATCH / n, noise=1.0, steps=ROUNDS * 10) for n in map(int, records)
        ],
        "the same batch of 32 and one epoch a round": [
            ClientSpend(rate=BATCH / n, noise=1.0, steps=ROUNDS * -(-n // BATCH)) for n in map(int, records)
        ],
        "the same rate of 0.05 and 10 steps a round": [
            ClientSpend(rate=0.05, noise=1.0, steps=ROUNDS * 10) for _ in records
        ],
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        for name, clients in federations().items():
            start = time.perf_counter()
            found = worst_client(clients, 1e-5)
            seconds = time.perf_counter() - start
            plain = found.to_json()
            lines.add(
                f"10,000 clients of 10,000 sizes, 100 rounds, {name}: under {LIMIT:g} s",
                COMMAND,
                f"{seconds:.1f} s; epsilon {found.epsilon:.4f}, median {plain['quantiles']['median']:.4f}; "
                f"{plain['exact']} clients exact, {plain['front']} on the front",
                met=seconds < LIMIT,
            )
        bounds_hold(lines)
        return lines.write("worst_client")


def bounds_hold(lines: Lines) -> None:
    """Random clients of random federations, each against its own exact figure."""
    rng = np.random.default_rng(7)
    clients = [
        ClientSpend(
            rate=float(np.exp(rng.uniform(np.log(0.001), np.log(0.3)))),
            noise=float(rng.uniform(0.6, 4.0)),
            steps=int(np.exp(rng.uniform(np.log(10), np.log(20_000)))),
        )
        for _ in range(RANDOM)
    ]
    clients += [
        client for federation in federations().values() for client in rng.choice(federation, RANDOM // 3)
    ]
    found = worst_client(clients, 1e-5)
    exact = np.array(
        [epsilon(SampledGaussian(rate=c.rate, noise=c.noise, count=c.steps), 1e-5) for c in clients]
    )
    above = found.bounds / exact - 1.0
    lines.add(
        f"{len(clients)} random clients: bounds at most 2 % above their exact figures, and never below",
        COMMAND,
        f"from {100 * above.min():.4f} % to {100 * above.max():.4f} % above; {int(found.exact.sum())} exact",
        met=bool(above.max() <= 0.02 and (found.bounds >= exact * (1 - 1e-4) - 1e-6).all()),
    )


if __name__ == "__main__":
    sys.exit(main())
