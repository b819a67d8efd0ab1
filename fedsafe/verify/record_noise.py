"""Record level: the noise's scale, its distribution, and that no noise is used twice."""

import math
from itertools import combinations

import numpy as np

from fedsafe.verify import sources
from fedsafe.verify.desk import Desk, Values
from fedsafe.verify.result import Outcome, judged, not_applicable
from fedsafe.verify.statistics import (
    correlation_bound,
    largest_correlation,
    normal_fits,
    scale_fits,
    scale_of,
    scale_range,
)


def check_noise(desk: Desk) -> list[Outcome]:
    """Of the weights that blank records cannot move, and the least there must be in every other tensor."""
    claimed = f"noise of {desk.claim.noise:.4g} x clip on each of {desk.claim.steps} steps' sums"
    if not desk.claim.noise:
        return [not_applicable("noise scale", "the claim is without noise")]
    rows, error = desk.sums(desk.train(desk.blank(), desk.runs))
    if error:
        return [judged("noise scale", holds=False, claimed=claimed, seen=error, source=sources.LOST)]
    noise = rows[:, desk.first]
    normal, distance = normal_fits(noise.ravel())
    return [
        judged(
            "noise scale",
            holds=scale_fits(noise.ravel(), desk.deviation),
            claimed=claimed,
            seen=f"{scale_of(noise, desk.deviation):.3f} times as much, over {noise.size} values that no record moves",
            source=sources.SCALE,
        ),
        _every_tensor(desk, rows),
        judged(
            "noise distribution",
            holds=normal,
            claimed="Gaussian noise, independent in each coordinate",
            seen=f"a distance of {distance:.4f} from the normal distribution, over {noise.size} values",
            source=sources.NORMAL,
        ),
    ]


def _every_tensor(desk: Desk, rows: Values) -> Outcome:
    layout = desk.node.layout
    # Sampling adds to the scatter of what records do move: only too little says something.
    centred = rows - rows.mean(axis=0)
    degrees = len(rows) - 1
    low = {}
    for name, part in zip(layout.names, np.split(centred, np.cumsum(layout.sizes)[:-1], axis=1), strict=True):
        count = degrees * part.shape[1]
        ratio = math.sqrt(float(np.sum(part**2)) / max(1, count)) / desk.deviation
        if part.size and ratio < scale_range(count)[0]:
            low[name] = ratio
    return judged(
        "noise in each tensor",
        holds=not low,
        claimed="the same noise in every tensor that leaves the client",
        seen=", ".join(f"{name} {ratio:.3f} times the claimed" for name, ratio in low.items())
        or "no tensor with less",
        source=sources.SCALE,
    )


def check_reuse(desk: Desk) -> list[Outcome]:
    """Two clients, two rounds, and a restart: the same records, and other models."""
    name, node = "noise reuse", desk.node
    if not desk.claim.noise:
        return [not_applicable(name, "the claim is without noise")]
    blank, rate = desk.blank(), desk.learning_rate
    one, other, third = desk.clients(3)
    last = max(2, min(3, desk.claim.rounds))
    plan = [(one, 1, False), (other, 1, False), (one, 2, False), (third, 1, False)]
    plan += [(one, last, True), (other, 1, True), (third, 1, True)]
    drawn, restarted = [], False
    for client, round, after in plan:
        if after and not restarted:
            node.restart()
            restarted = True
        trained = node.train([client], round, desk.model(still=True), blank, rate)
        rows, error = desk.sums(trained)
        if not error:
            said = f"client {client - one}, round {round}" + (
                " after a restart, from another model" if after else ""
            )
            drawn.append((said, rows[0, desk.first]))
    pairs = list(combinations(drawn, 2))
    if not pairs:
        return [not_applicable(name, "fewer than two models came back")]
    bound = correlation_bound(len(drawn[0][1]), len(pairs))
    worst = max(pairs, key=lambda pair: largest_correlation(pair[0][1], pair[1][1]))
    correlation = largest_correlation(worst[0][1], worst[1][1])
    return [
        judged(
            name,
            holds=correlation < bound,
            claimed="independent noise for every client, round and input",
            seen=f"correlation {correlation:.3f} between {worst[0][0]} and {worst[1][0]} ({len(pairs)} pairs)",
            source=sources.REUSE,
        )
    ]
