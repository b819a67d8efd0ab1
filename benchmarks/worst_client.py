"""The worst client of 10,000, timed: writes ``results/worst_client.json``.

Every line is measured here; a line that falls short is printed as such, and the exit code is 1.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from lines import Lines

from fedsafe.privacy.accounting import ClientSpend, worst_client

CLIENTS, ROUNDS, BATCH, LIMIT = 10_000, 100, 32, 30.0
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
        return lines.write("worst_client")


if __name__ == "__main__":
    sys.exit(main())
