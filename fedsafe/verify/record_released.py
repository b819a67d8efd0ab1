"""Record level: numbers in a client's reply, the epsilon that it reports among them."""

from fedsafe.verify import sources
from fedsafe.verify.desk import Desk
from fedsafe.verify.records import Records
from fedsafe.verify.result import Outcome, judged


def check_metrics(desk: Desk) -> list[Outcome]:
    """Numbers in a reply that depend on the records, or on how many there are."""
    name, claim = "metrics and counts", desk.claim
    allowed = {*claim.metrics, claim.epsilon_metric}
    long = desk.same(desk.length, 1)
    fewer = Records(x=long.x[:-1], y=long.y[:-1])
    cases = {
        "usual": [one.numbers for one in desk.train(desk.blank(), 4)],
        "others": [one.numbers for one in desk.train(long, 4)],
        "fewer": [one.numbers for one in desk.train(fewer, 4)],
    }
    names = sorted({key for case in cases.values() for numbers in case for key in numbers})
    found = []
    for key in names:
        usual, others, fewer_ = ([n[key] for n in case if key in n] for case in cases.values())
        public = key in allowed or key.split("[")[0] in allowed
        if not public and _apart(usual, others):
            found.append(f"{key} follows the records ({usual[0]:.4g} or {others[0]:.4g})")
        elif _counts(others, fewer_) and (not public or claim.adjacency == "add/remove"):
            found.append(f"{key} counts the records ({others[0]:g} or {fewer_[0]:g})")
    return [
        judged(
            name,
            holds=not found,
            claimed="nothing but the model leaves the client"
            + (f", and {', '.join(sorted(claim.metrics))}" if claim.metrics else ""),
            seen="; ".join(found)
            or f"{len(names)} numbers beside the model, none of which follows the records",
            source=sources.METRICS,
        )
    ]


def _apart(first: list[float], second: list[float]) -> bool:
    if not first or not second:
        return False
    width = max(max(first) - min(first), max(second) - min(second))
    return min(second) - max(first) > width or min(first) - max(second) > width


def _counts(full: list[float], fewer: list[float]) -> bool:
    """Whether a number is always the same, and another one where there is a record less."""
    return bool(full and fewer) and len(set(full)) == len(set(fewer)) == 1 and set(full) != set(fewer)


def reported_epsilon(desk: Desk) -> tuple[dict[int, float], int | None]:
    """Epsilon that one client reports after each of some rounds, with a restart on the way."""
    metric, rounds = desk.claim.epsilon_metric or "", max(2, min(6, desk.claim.rounds))
    (client,) = desk.clients(1)
    restart = rounds // 2 + 1
    reported = {}
    for round in range(1, rounds + 1):
        if round == restart:
            desk.node.restart()
        (one,) = desk.node.train([client], round, desk.model(still=True), desk.blank(), desk.learning_rate)
        if metric in one.numbers:
            reported[round] = one.numbers[metric]
    return reported, restart
