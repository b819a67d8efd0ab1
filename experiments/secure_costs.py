"""What secure aggregation costs: CPU, traffic and exchanges of a round, and accuracy against bits per coordinate.

    python experiments/secure_costs.py --out comparisons/secure            # all: minutes of one processor
    python experiments/secure_costs.py --out comparisons/secure --part accuracy

Costs are those of the protocol's two sides as a deployment has them; of large rounds, of a sample of the clients, since
the others only have to be there. Accuracy is that of ``experiments/adult.toml``, whose claim is the same for any
modulus; its sums are taken without masks, which changes no bit of the model where streams are the same (a test). Writes
``OUT/PART.json``.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

CLIENTS = (10, 30, 100, 300, 1000)
PARAMETERS = (1_000, 10_000, 100_000, 1_000_000)
# Values of each model of the first list, and clients of each round of the second one.
FEW_PARAMETERS, FEW_CLIENTS = 1_000, 30
MODULI = (12, 14, 16, 18, 20, 24, 32)
# Clients of a round whose processor time is taken.
SAMPLED = 10
DROPOUTS, CORRUPT = 0.1, 0.05


def main(
    out: Annotated[Path, typer.Option(help="Folder of the results.")],
    part: Annotated[
        list[str] | None, typer.Option(help="clients, parameters or accuracy; all by default.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each modulus.")] = 2,
) -> None:
    """Measure, and write what was found."""
    out.mkdir(parents=True, exist_ok=True)
    made = {
        "clients": lambda: [cost(clients, FEW_PARAMETERS) for clients in CLIENTS],
        "parameters": lambda: [cost(FEW_CLIENTS, parameters) for parameters in PARAMETERS],
        "accuracy": lambda: [accuracy(modulus, seeds) for modulus in MODULI],
    }
    for name in part or list(made):
        if name not in made:
            raise typer.BadParameter(f"{name}: there are {', '.join(made)}", param_hint="--part")
        rows = made[name]()
        for row in rows:
            typer.echo(json.dumps(row))
        (out / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def cost(clients: int, parameters: int) -> dict[str, Any]:
    """One round behind masks, and one of the plain noisy average."""
    from fedsafe.aggregation.secure import (
        STAGES,
        RoundId,
        SecureClient,
        SecureParameters,
        SecureServer,
        simulated_identities,
        simulated_seed,
    )
    from fedsafe.federation import SimulatedKeys
    from fedsafe.privacy.mechanisms import DistributedMechanism
    from fedsafe.rng import key_from_seed

    key, drawn = key_from_seed(12), np.random.default_rng(0)
    corrupt = int(CORRUPT * clients)
    mechanism = DistributedMechanism(
        clip=1.0, noise=1.0, bits=0, modulus=32, minimum=max(4, clients // 2), corrupt=corrupt
    ).on_finest_grid(clients)
    agreed = SecureParameters.of(mechanism, parameters, dropouts=DROPOUTS)
    graph, round = agreed.require_room(clients), RoundId(run="costs", round=1)
    identities = simulated_identities(key, range(clients))
    # Those whose time is not taken are spared what others of this process have verified.
    spared = SimulatedKeys(key, clients)
    sampled = set(drawn.permutation(clients)[:SAMPLED].tolist())
    own = {
        client: SecureClient(
            client,
            signing_key=identities.signing[client],
            pinned=identities.pinned if client in sampled else spared,
            parameters=agreed,
            round=round,
            values=lambda: np.zeros(agreed.values, np.int64),
            seed=simulated_seed(key, client, 1, b"costs"),
        )
        for client in range(clients)
    }
    server = SecureServer(pinned=identities.pinned, parameters=agreed, round=round)
    spent, at_server, asked = 0.0, 0.0, dict.fromkeys(own, b"")
    for stage in STAGES:
        for client, message in asked.items():
            if stage == "mask" and client < int(DROPOUTS * clients / 2):
                continue  # so many are lost after they have dealt shares: their masks have to be recovered
            began = time.process_time()
            answer = own[client].handle(message) if message else own[client].advertise()
            between = time.process_time()
            server.receive(answer, client)
            spent += (between - began) if client in sampled else 0.0
            at_server += time.process_time() - between
        began = time.process_time()
        asked = server.advance()
        at_server += time.process_time() - began
    found = server.result()
    return {
        "clients": clients,
        "parameters": parameters,
        "values": agreed.values,
        "neighbours": graph.neighbours,
        "exchanges": len(STAGES),
        "client_seconds": spent / len(sampled),
        "server_seconds": at_server,
        "up_bytes": sum(found.received.values()) / clients,
        "down_bytes": sum(found.sent.values()) / clients,
        "plain": plain(clients, parameters, drawn),
    }


def plain(clients: int, parameters: int, drawn: np.random.Generator) -> dict[str, float]:
    """The noisy average: each client's update on the grid, all of them added."""
    from fedsafe.aggregation import NoisyMean, Updates
    from fedsafe.rng import Stream, StreamId, key_from_seed

    rule = NoisyMean(clip=1.0, noise=1.0, bits=30, divisor=float(clients))
    row: NDArray[np.float64] = drawn.normal(size=(1, parameters))
    updates = Updates(clients=np.zeros(1, np.int64), rows=row, examples=np.ones(1))
    began = time.process_time()
    for _ in range(SAMPLED):
        fold = rule.add(rule.zero(parameters), updates)
    between = time.process_time()
    total = rule.zero(parameters)
    for _ in range(clients):
        total = rule.merge(total, fold)
    rule.finish(
        total, Stream(key_from_seed(1), StreamId(purpose="client noise", client=0, round=1, digest=b""))
    )
    return {
        "client_seconds": (between - began) / SAMPLED,
        "server_seconds": time.process_time() - between,
        "up_bytes": float(sum(array.nbytes for array in fold.arrays.values())),
    }


def accuracy(modulus: int, seeds: int) -> dict[str, Any]:
    """Accuracy of Adult with so many bits for each coordinate of the sum, one claim for all."""
    from fedsafe.errors import FedSafeError
    from fedsafe.runs import run
    from fedsafe.runs.config import read_config

    reached: list[float] = []
    bound = None
    for seed in range(seeds):
        changes = [
            f"seed={seed}",
            'privacy.noise_key="seed"',
            f'server.aggregator={{name="distributed_mean",modulus={modulus}}}',
            "assess.every=40",
            'assess.assessors=["performance"]',
            "assess.require=[]",
            'engine.name="inline"',
        ]
        try:
            with tempfile.TemporaryDirectory() as folder:
                done = run(
                    read_config(Path(__file__).parent / "adult.toml", changes), out=Path(folder) / "run"
                )
                reached.append(float(done.metrics["accuracy"]))
                bound = next(claim["epsilon"] for claim in done.claims if claim["unit"] == "client")
        except FedSafeError as error:
            return {"modulus": modulus, "refused": str(error)}
    return {"modulus": modulus, "epsilon": bound, "accuracy": reached}


if __name__ == "__main__":
    typer.run(main)
