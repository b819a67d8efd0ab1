"""A round of the default experiment against the stacked engine alone on the same clients: what the platform adds.

    python benchmarks/round_overhead.py

The engine is timed by its CPU seconds in one process, and two workers share them: a perfect platform would take half.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from comparing import Comparison, Limit, run_json, script
from our_rounds import WORKERS

import fedsafe
from fedsafe.client import ClientJob
from fedsafe.privacy.chain import read_events
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.rng import Stream, StreamId
from fedsafe.runs.compose import client_runtime, compose
from fedsafe.runs.config import read_config
from fedsafe.runs.keys import read_key

MOST_MS = 20.0


def one_run() -> dict[str, list[float]]:
    """Seconds of each round; and CPU seconds of the engine alone on the cohort of each, afterwards."""
    torch.set_num_threads(1)
    config = read_config(None, [f"engine.workers={WORKERS}"])
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        run = fedsafe.run(config, out=out)
        timings = [json.loads(line) for line in (out / "private" / "timings.jsonl").read_text().splitlines()]
        parts, plan = compose(config), PrivacyPlan.from_numbers(run.start.plan)
        trainer = client_runtime(parts, plan, read_key(out / "private")).trainer
        cohorts = [
            (event.round, event.body["cohort"])
            for event in read_events(out / "private" / "ledger.sqlite")
            if "cohort" in event.body
        ]
    engine = []
    for number, cohort in cohorts:
        jobs = [
            ClientJob(
                client=client,
                records=parts.records[client],
                batches=_stream("batches", client, number),
                noise=_stream("record noise", client, number),
                round=number,
            )
            for client in cohort
        ]
        began = time.process_time()
        trainer.train(parts.initial, jobs)
        engine.append(time.process_time() - began)
    elapsed = [line["elapsed"] for line in timings]
    return {
        "round": [line["seconds"] for line in timings],
        "engine": engine,
        "worker": [line["cpu_seconds"] for line in timings],
        "between": np.diff(elapsed).tolist(),
    }


def _stream(purpose: str, client: int, number: int) -> Stream:
    return Stream(bytes(32), StreamId(purpose=purpose, client=client, round=number, digest=b""))


def runs(repeats: int) -> Iterator[dict[str, list[float]]]:
    """Each in a process of its own."""
    for _ in range(repeats):
        yield run_json([sys.executable, __file__, "run"])


def measure(repeats: int) -> Sequence[Comparison]:
    found = list(runs(repeats))
    walls, engine, worker, between = (
        [second for one in found for second in one[key]] for key in ("round", "engine", "worker", "between")
    )
    half = [second / WORKERS for second in engine]
    excess = sorted(1e3 * (wall - alone) for wall, alone in zip(walls, half, strict=True))
    return [
        Comparison(
            work="a round of the default experiment, after Ray has started",
            peer=f"the stacked engine alone, CPU seconds over {WORKERS}",
            unit="s per round",
            ours=walls,
            theirs=half,
            paired=True,
            limits=[
                Limit(
                    name="a round above the engine, median",
                    value=statistics.median(excess),
                    most=MOST_MS,
                    unit="ms",
                )
            ],
            notes=f"95 % of {len(excess)} rounds within {excess[int(0.95 * len(excess))]:.1f} ms; the workers' own CPU "
            f"seconds {statistics.median(worker) / statistics.median(engine):.2f} times the engine's; with measuring "
            f"and writing the model {statistics.median(between):.3f} s",
        )
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["run"]:
        print(json.dumps(one_run()))
    else:
        script(measure)
