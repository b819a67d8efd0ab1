"""Client level: numbers that are released beside the model, as metrics or in the next round's messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.bench import Bench
from fedsafe.verify.result import Outcome, judged
from fedsafe.verify.server import ClientReply

_REPEATS = 4


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """One round: what the clients said, and every number that came out."""

    facts: Mapping[str, float]
    numbers: Mapping[str, float]


def check_released(bench: Bench) -> list[Outcome]:
    """Numbers that are an exact function of what clients sent, or that one client's words can move at will."""
    name = "metrics and counts"
    allowed = {*bench.claim.metrics, bench.claim.epsilon_metric}
    claimed = "nothing but the model is released" + (
        f", and {', '.join(sorted(bench.claim.metrics))}" if bench.claim.metrics else ""
    )
    usual = [_trial(bench, 1.0, 10) for _ in range(_REPEATS)]
    moved = [_trial(bench, 1000.0, 100_000) for _ in range(_REPEATS)]
    names = {key for trial in (*usual, *moved) for key in trial.numbers}
    found = []
    for key in sorted(names):
        if _base(key) in allowed:
            continue
        exact = _exact(key, [*usual, *moved])
        if exact:
            found.append(f"{key} is exactly the {exact}")
        elif _apart(key, usual, moved):
            found.append(f"{key} follows what one client sends")
    return [
        judged(
            name,
            holds=not found,
            claimed=claimed,
            seen="; ".join(found)
            if found
            else f"{len(names)} numbers beside the model, none of which follows a client",
            source=sources.METRICS,
        )
    ]


def _trial(bench: Bench, loss: float, examples: int) -> _Trial:
    """The first member's loss and examples are given; everybody else's are drawn."""
    update = bench.update(bench.direction(), 0.1)
    told: list[ClientReply] = []

    def script(members: int) -> Sequence[ClientReply]:
        drawn = [
            bench.reply(
                update,
                examples=int(bench.rng.integers(5, 15)),
                loss=float(bench.rng.uniform(0.5, 1.5)),
            )
            for _ in range(members)
        ]
        told[:] = [bench.reply(update, examples=examples, loss=loss), *drawn[1:]][:members]
        return told

    session, round = bench.server.fresh(bench.rng)
    measured = bench.round(script, session=session, round=round)
    numbers = {f"{key}": value for key, value in measured.numbers.items()}
    if round < bench.claim.rounds:
        following = session.ask(round + 1, bench.model())
        numbers |= {key: value for key, value in following.numbers.items() if key != "server-round"}
    sizes, losses = np.array([r.examples for r in told], float), np.array([r.loss for r in told])
    facts = {"number of replies": float(len(told)), "number of examples": float(sizes.sum())}
    if told:
        facts |= {
            "sum of the losses": float(losses.sum()),
            "mean loss": float(losses.mean()),
            "mean loss, weighted by examples": float(losses @ sizes / sizes.sum()),
            "largest loss": float(losses.max()),
            "mean number of examples": float(sizes.mean()),
        }
    return _Trial(facts=facts, numbers=numbers)


def _exact(key: str, trials: Sequence[_Trial]) -> str:
    """The fact that a number equals in every trial, if that says something."""
    seen = [(trial, trial.numbers[key]) for trial in trials if key in trial.numbers]
    for fact in trials[0].facts:
        values = [(trial.facts.get(fact, np.nan), value) for trial, value in seen]
        varies = len({round(value, 9) for _, value in values}) > 1
        if varies and all(np.isclose(expected, value, rtol=1e-5, atol=1e-9) for expected, value in values):
            return fact
    return ""


def _apart(key: str, usual: Sequence[_Trial], moved: Sequence[_Trial]) -> bool:
    """Whether one client's extreme words move the number out of its usual range by far."""
    a = [trial.numbers[key] for trial in usual if key in trial.numbers]
    b = [trial.numbers[key] for trial in moved if key in trial.numbers]
    if not a or not b:
        return False
    width = max(max(a) - min(a), 1e-9)
    return min(b) > max(a) + 3.0 * width or max(b) < min(a) - 3.0 * width


def _base(key: str) -> str:
    return key.split("[")[0]
