"""The lines of the tests over time: planted changes are found within the stated delay, and hardly anything else is.

    python benchmarks/accept_serve_streams.py            # some minutes on a quiet core
    python benchmarks/accept_serve_streams.py planted    # this part again (planted, unchanged, Adult)

A stream has 20,000 decisions with scores of the monitor, outputs, groups and late labels; a change comes at 10,000. The
delays are those of `docs/serving.md`. Streams are drawn, and cut from Adult records that no part saw before.
"""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from accept_serve_monitor import trained
from lines import Lines
from parts import again

from fedsafe.data import load_task
from fedsafe.serve import Monitor
from fedsafe.serve.detectors.synthetic import shuffled
from fedsafe.serve.opening import split_public
from fedsafe.serve.streams import Expected, StreamMonitor, open_stream

COMMAND = "python benchmarks/accept_serve_streams.py"
LENGTH, CHANGE = 20_000, 10_000
DELAYS = {"drift": 500, "predictions": 500, "rates": 1500, "calibration": 1000}
RATES = {"group": {"a": 0.3, "b": 0.2, "c": 0.5}}


def known(rng: np.random.Generator) -> Expected:
    return Expected(
        scores=rng.exponential(size=5000),
        predictions=rng.normal(size=5000),
        rates={
            column: {group: (round(rate * 4000), 4000) for group, rate in rates.items()}
            for column, rates in RATES.items()
        },
        codes={"group": tuple(RATES["group"])},
    )


def play(seed: int, planted: str = "") -> tuple[StreamMonitor, dict[str, list[int]]]:
    """A stream with a planted change, and at which decisions each test raised an alarm."""
    rng = np.random.default_rng(seed)
    stream, alarms = StreamMonitor(known(rng), seed=seed), {}
    shares = np.array(list(RATES["group"].values()))
    for start in range(0, LENGTH, 500):
        late = start >= CHANGE
        codes = rng.integers(0, 3, 500)
        rates = shares[codes] + (0.3 * (codes == 0) if late and planted == "rates" else 0.0)
        scores = rng.exponential(2.0 if late and planted == "drift" else 1.0, 500)
        outputs = rng.normal(0.7 if late and planted == "predictions" else 0.0, 1.0, 500)
        stream.observe(scores, outputs, rng.random(500) < rates, {"group": codes})
        for at, confidence in enumerate(rng.uniform(0.6, 1.0, 500).tolist(), start=start):
            right = rng.random() < confidence - (0.2 if late and planted == "calibration" else 0.0)
            if stream.outcome(confidence, bool(right)):
                alarms.setdefault("calibration", []).append(at)
    for event in stream.events:
        if event["kind"] != "calibration":
            alarms.setdefault(event["kind"], []).append(event["decision"])
    return stream, alarms


def planted_changes(lines: Lines) -> None:
    for planted, delay in DELAYS.items():
        delays, early = [], 0
        for seed in range(10):
            _, alarms = play(2000 + seed, planted)
            found = [at for at in alarms.get(planted, []) if at >= CHANGE]
            early += sum(at < CHANGE for places in alarms.values() for at in places)
            delays.append(found[0] - CHANGE if found else LENGTH)
        lines.add(
            f"a change of {planted} planted at 10,000 of 20,000 raises an alert within {delay} decisions",
            f"{COMMAND}, planted",
            f"delays in ten streams: {', '.join(map(str, sorted(delays)))}; alerts before the change: {early}",
            met=max(delays) <= delay and early == 0,
        )


def unchanged(lines: Lines) -> None:
    began, counted = time.process_time(), Counter()
    for seed in range(100):
        _, alarms = play(seed)
        counted.update({kind: len(places) for kind, places in alarms.items()})
    each = (time.process_time() - began) / (100 * LENGTH)
    lines.add(
        "100 streams without drift raise at most 5 alerts in all",
        f"{COMMAND}, unchanged",
        f"{sum(counted.values())} alerts in 2,000,000 decisions, tests of drift, predictions, rates and calibration "
        f"together (alpha 0.01 a stream: 1 expected at most); {1e6 * each:.0f} microseconds a decision, its drawing "
        "included",
        met=sum(counted.values()) <= 5,
    )


def real(lines: Lines) -> None:
    task = load_task("adult")
    model = trained(task, {"name": "mlp", "hidden": [64]}, records=10_000, epochs=5)
    reference, test = split_public(task, 0)
    monitor = Monitor.fit(model, task, reference)
    rest = task.train.take(np.arange(10_000, len(task.train)))
    alerts, delays, before = 0, [], 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        rows = rng.permutation(len(rest))[:LENGTH]
        for change in (False, True):
            stream = open_stream(None, monitor, task, test, seed=seed)
            x = rest.x[rows].copy()
            if change:
                x[CHANGE:] = shuffled(x[CHANGE:], task.schema, rng)
            for start in range(0, LENGTH, 500):
                part = x[start : start + 500]
                stream.observe(*stream.reader.read(part, monitor.check(part)))
            places = [event["decision"] for event in stream.events]
            if not change:
                alerts += len(places)
            else:
                before += sum(at < CHANGE for at in places)
                late = [event["decision"] for event in stream.events if event["kind"] == "drift"]
                delays.append(next((at - CHANGE for at in late if at >= CHANGE), LENGTH))
    lines.add(
        "Adult: columns from different records from 10,000 on raise an alert within 500 decisions",
        f"{COMMAND}, Adult",
        f"delays in ten streams: {', '.join(map(str, sorted(delays)))}; alerts before the change: {before}",
        met=max(delays) <= 500,
    )
    lines.add(
        "Adult: ten streams of 20,000 unseen records in random order raise no more than one alert",
        f"{COMMAND}, Adult",
        f"{alerts} alerts; rates of groups are held to those of {len(test)} known records within 0.1",
        met=alerts <= 1,
    )


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        lines = Lines(Path(folder))
        run = {"planted": planted_changes, "unchanged": unchanged, "Adult": real}
        for part in again(lines, "serve_streams", tuple(run), sys.argv[1:]):
            with lines.section(f"streams, {part}", f"{COMMAND}, {part}"):
                run[part](lines)
        return lines.write("serve_streams")


if __name__ == "__main__":
    sys.exit(main())
