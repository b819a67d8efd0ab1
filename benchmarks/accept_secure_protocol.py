"""The lines of the secure aggregation protocol: dropouts, attacks, uniform masks, cost, a thousand clients, noise.

python benchmarks/accept_secure_protocol.py      # about ten minutes; writes results/secure_protocol.json
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from lines import ROOT, Lines
from numpy.typing import NDArray
from scipy import stats

from fedsafe.aggregation.secure import (
    STAGES,
    RoundId,
    SecureClient,
    SecureParameters,
    SecureServer,
    SecureSum,
    simulated_identities,
    simulated_seed,
)
from fedsafe.aggregation.secure.encoding import decode
from fedsafe.privacy.mechanisms import DistributedMechanism, wrap
from fedsafe.rng import Stream, StreamId, key_from_seed

KEY = key_from_seed(12)
ROUND = RoundId(run="acceptance", round=1)
PARAMETERS = 26_010  # of Opacus's network for MNIST
TESTS = {
    "20 clients, 5 of them dropping before each stage in turn; below the threshold nothing and a clear error": (
        "tests/aggregation/test_secure_round.py"
    ),
    "replayed, mixed, forged, copied and small-subgroup keys, an equivocating server, garbage: each refused": (
        "tests/aggregation/test_secure_hostile.py"
    ),
    "shares, streams and graphs against slow oracles": (
        "tests/aggregation/test_secure_primitives.py tests/aggregation/test_secure_graph.py"
    ),
    "accounted epsilon against the published formulas to 1e-6, for three kinds of server": (
        "tests/privacy/test_distributed_accounting.py tests/aggregation/test_secure_noise.py"
    ),
}


@dataclass
class Played:
    """A round and what it cost."""

    found: SecureSum
    exact: bool
    client_seconds: float
    most_seconds: float
    server_seconds: float
    sent: int
    received: int
    masked: list[NDArray[np.uint32]]


def play(
    inputs: Mapping[int, NDArray[np.int64]],
    parameters: SecureParameters,
    lost: Mapping[str, set[int]],
    keep: int = 0,
) -> Played:
    """A round in one process, with the CPU of clients and server apart; the first clients' masked values are kept."""
    identities = simulated_identities(KEY, inputs)
    server = SecureServer(pinned=identities.pinned, parameters=parameters, round=ROUND)
    clients = {
        client: SecureClient(
            client,
            signing_key=identities.signing[client],
            pinned=identities.pinned,
            parameters=parameters,
            round=ROUND,
            values=lambda client=client: inputs[client],
            seed=simulated_seed(KEY, client, 1, b"acceptance"),
        )
        for client in inputs
    }
    spent, at_server, masked = dict.fromkeys(inputs, 0.0), 0.0, []
    gone: set[int] = set()
    asked: Mapping[int, bytes] = dict.fromkeys(inputs, b"")
    for stage in STAGES:
        gone |= lost.get(stage, set())
        for client, message in asked.items():
            if client in gone:
                continue
            began = time.process_time()
            answer = clients[client].handle(message) if message else clients[client].advertise()
            between = time.process_time()
            server.receive(answer, client)
            spent[client] += between - began
            at_server += time.process_time() - between
            if stage == "mask" and len(masked) < keep:
                masked.append(np.frombuffer(decode(answer)[1].values, "<u4"))
        began = time.process_time()
        asked = server.advance()
        at_server += time.process_time() - began
    found = server.result()
    expected = np.zeros(parameters.values, np.int64)
    for client in found.clients:
        expected = wrap(expected + inputs[client], parameters.modulus)
    return Played(
        found=found,
        exact=bool((found.total == expected).all()),
        client_seconds=sum(spent.values()) / len(spent),
        most_seconds=max(spent.values()),
        server_seconds=at_server,
        sent=sum(found.sent.values()),
        received=sum(found.received.values()),
        masked=masked,
    )


def inputs_of(clients: int, values: int) -> dict[int, NDArray[np.int64]]:
    drawn = np.random.default_rng(0)
    return {client: drawn.integers(-(2**20), 2**20, values) for client in range(clients)}


def _tests(lines: Lines) -> None:
    for line, files in TESTS.items():
        command = f"pytest -q {files}"
        with lines.section(line, command):
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", *files.split()],
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            lines.add(line, command, done.stdout.strip().splitlines()[-1], met=done.returncode == 0)


def _uniform(lines: Lines) -> None:
    line = "masked entries are uniform over 10^6 values (chi-square, 1,024 bins), and the same entries unmasked are not"
    command = "4 clients, 262,144 values modulo 2^32, of which each is the client's number"
    with lines.section(line, command):
        inputs = {client: np.full(2**18, client) for client in range(4)}
        played = play(inputs, SecureParameters(values=2**18, modulus=32, minimum=2), {}, keep=4)
        masked, bare = np.concatenate(played.masked), np.concatenate(list(inputs.values()))
        high, low = (
            float(stats.chisquare(np.bincount(part, minlength=1024)).pvalue)
            for part in (masked >> 22, masked & 1023)
        )
        without = float(stats.chisquare(np.bincount(bare & 1023, minlength=1024)).pvalue)
        value = (
            f"{len(masked):,} values: p = {high:.3f} (top), {low:.3f} (bottom bits); unmasked {without:.1g}"
        )
        lines.add(
            line, command, value,
            met=min(high, low) > 1e-3 and without < 1e-9 and len(masked) > 10**6,
        )  # fmt: skip


def _cost(
    lines: Lines, clients: int, corrupt: int, dropouts: float, lost: int, line: str, least: float
) -> None:
    values = DistributedMechanism(clip=1.0, noise=1.0, bits=8, modulus=32, minimum=2).length(PARAMETERS)
    parameters = SecureParameters(
        values=values, modulus=32, minimum=clients // 2, corrupt=corrupt, dropouts=dropouts
    )
    graph = parameters.require_room(clients)
    command = f"{clients} clients, {corrupt} corrupt, {PARAMETERS:,} parameters rotated to {values:,}, {lost} drop out"
    with lines.section(line, command):
        played = play(inputs_of(clients, values), parameters, {"mask": set(range(lost))})
        both = played.client_seconds + played.server_seconds / clients
        lines.add(
            line, command,
            f"{'exact' if played.exact else 'WRONG'} sum of {len(played.found.clients)}; {graph.neighbours} "
            f"neighbours, {graph.threshold} shares, {graph.signatures} signatures; CPU a client and round "
            f"{played.client_seconds:.3f} s (the dearest {played.most_seconds:.3f}), {both:.3f} with its part of the "
            f"server's {played.server_seconds:.1f}; traffic a client {played.received / clients / 1e3:.0f} kB up, "
            f"{played.sent / clients / 1e3:.0f} kB down, of which the values are {4 * values / 1e3:.0f} kB",
            met=played.exact and both < least and len(played.found.clients) == clients - lost,
        )  # fmt: skip


def _noise(lines: Lines) -> None:
    for law in ("discrete gaussian", "skellam"):
        line = f"the noise of the sum is the planned one within 1 % over 10^6 samples ({law}); two thirds of it is not"
        command = "5 clients, 4 survive, 3 of them counted as honest; 2^20 values of zero"
        with lines.section(line, command):
            ratios = []
            for factor in (1.0, 2 / 3):
                planned = DistributedMechanism(
                    clip=1.0, noise=1.5, bits=0, modulus=26, minimum=4, corrupt=1, law=law
                ).on_finest_grid(5)
                used = DistributedMechanism(
                    clip=1.0, noise=1.5 * factor, bits=planned.bits, modulus=26, minimum=4, corrupt=1, law=law
                )
                zeros = np.zeros(2**20)
                sent = {
                    c: used.sent(
                        zeros, Stream(KEY, StreamId(purpose="client draws", client=c, round=1, digest=b""))
                    )
                    for c in range(5)
                }
                played = play(sent, SecureParameters.of(used, 2**20, dropouts=0.2), {"mask": {2}})
                deviation = float(played.found.total.std())
                ratios.append(deviation / (1.5 * planned.bound(2**20) * np.sqrt(4 / 3)))
            lines.add(
                line, command, f"measured over planned {ratios[0]:.4f}; with two thirds {ratios[1]:.4f}",
                met=bool(abs(ratios[0] - 1) < 0.01 < abs(ratios[1] - 1)),
            )  # fmt: skip


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        _tests(lines)
        _uniform(lines)
        _noise(lines)
        cost = "100 clients and 26k parameters cost under 2 s of CPU per client and round"
        _cost(lines, 100, 5, 0.2, 10, cost, 2.0)
        _cost(
            lines, 1000, 50, 0.1, 50, "1,000 simulated clients run, on a sparse graph, with 50 dropouts", 2.0
        )
        return lines.write("secure_protocol")


if __name__ == "__main__":
    sys.exit(main())
