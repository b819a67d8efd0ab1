"""Whether a run's record says what its plan and its ledger say: the figures that a report shows are the record's."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fedsafe.errors import LedgerError
from fedsafe.privacy.chain import CANCELLED
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.claim import SEED_KEY, upper
from fedsafe.privacy.ledger import Ledger
from fedsafe.privacy.matrix import claim_matrix, planned_claims
from fedsafe.privacy.plan import PrivacyPlan
from fedsafe.records import End, RecordLine, Round, Start
from fedsafe.rng import key_from_seed

# Another version of the accountant may find a figure that is so much another one.
_TOLERANCE = 1e-3
_FIGURES = ("epsilon", "group_epsilon", "known_cohorts_epsilon", "fallback_epsilon")
_KINDS = ("delta", "regime", "cohort_secret")
# Worded by the version that wrote them.
_WORDS = ("adjacency", "adversary", "sampler", "horizon", "arithmetic")


def check_record(lines: Sequence[RecordLine], ledger: Ledger, key: bytes) -> bool:
    """Refuse a record whose claims, spend or rounds are not those of its plan and its ledger.

    Every epsilon is found again from the plan that the ledger was opened for. What a claim says besides (what it does
    not cover, for one) follows from the data and the configuration, and is not looked at.

    Args:
        lines: Of the record.
        ledger: Of the run, its events checked.
        key: The run's noise key: whether it follows from the seed decides what a claim may say of randomness.

    Returns:
        Whether the wording of the claims was compared, too: another version words them in its own way.

    Raises:
        LedgerError: Naming the first line that differs.
    """
    start = lines[0] if lines else None
    if not isinstance(start, Start):
        raise LedgerError("the record has no start line: it was cut; restore it from a backup")
    worded = start.versions.get("fedsafe") == version("fedsafe")
    _check_claims(start, ledger.plan, _WORDS if worded else (), from_seed=key == key_from_seed(start.seed))
    rounds = [line for line in lines if isinstance(line, Round)]
    spending = ledger.plan.spending()
    cancelled = {event.body["of"] for event in ledger.events if event.kind == CANCELLED}
    of_round = {
        event.sequence: event.round
        for event in ledger.events
        if event.kind not in ("plan", CANCELLED) and event.sequence not in cancelled
    }
    for expected, line in enumerate(rounds, start=1):
        if line.round != expected:
            raise _edited(f"line of round {expected}", f"round {line.round} stands in its place")
        if of_round.get(line.ledger["sequence"]) != line.round:
            raise _edited(
                f"line of round {line.round}",
                f"event {line.ledger['sequence']}, which it names as the last of that round, is another one's",
            )
        for unit, values in spending.items():
            planned, said = values[line.round - 1], line.spend.get(unit)
            if not _close(said, planned):
                raise _edited(
                    f"line of round {line.round}",
                    f"it says that a {unit} has spent epsilon {said!r}, and the plan says {planned!r}",
                )
    end = lines[-1]
    if isinstance(end, End) and end.rounds != len(rounds):
        raise _edited("last line", f"it counts {end.rounds} rounds, and there are {len(rounds)}")
    return worded


def _check_claims(start: Start, plan: PrivacyPlan, words: Sequence[str], *, from_seed: bool) -> None:
    about = Circumstances(key_from_seed=from_seed)
    units = [claim.get("unit") for claim in start.claims]
    headlines = {claim.unit: claim.to_json() for claim in planned_claims(plan, about)}
    if sorted(map(str, units)) != sorted(headlines):
        raise _edited("start line", f"its claims are for {units!r}, not one for each of {sorted(headlines)}")
    for claim in start.claims:
        _compare(f"{claim['unit']}-level claim", claim, headlines[claim["unit"]], words)
    if not start.matrix:
        return  # an older version wrote none
    cells = {(cell.adversary, cell.unit): cell.to_json() for cell in claim_matrix(plan, about)}
    if sorted((str(cell.get("adversary")), str(cell.get("unit"))) for cell in start.matrix) != sorted(cells):
        raise _edited("start line", "its matrix does not have one cell for each adversary and unit")
    for cell in start.matrix:
        fresh = cells[cell["adversary"], cell["unit"]]
        what = f"claim for a {cell['unit']} against {cell['adversary']}"
        for name in ("epsilon", "delta"):
            if not _close(cell.get(name), fresh[name]):
                raise _edited(what, f"it says {name} {cell.get(name)!r}, and the plan gives {fresh[name]!r}")
        if cell.get("claim") is not None and fresh["claim"] is not None:
            _compare(what, cell["claim"], fresh["claim"], words)
        elif cell.get("claim") != fresh["claim"]:
            raise _edited(what, "the record and the plan do not agree whether there is one")


def _compare(what: str, said: Mapping[str, Any], fresh: Mapping[str, Any], words: Sequence[str]) -> None:
    for name in _FIGURES:
        if not _close(said.get(name), fresh[name]):
            raise _edited(what, f"it says {name} {said.get(name)!r}, and the plan gives {fresh[name]!r}")
    for name in (*_KINDS, *words):
        if said.get(name) != fresh[name]:
            raise _edited(what, f"it says {name} {said.get(name)!r}, and the plan gives {fresh[name]!r}")
    if (said.get("randomness") == SEED_KEY) != (fresh["randomness"] == SEED_KEY):
        raise _edited(
            what, f"it says randomness {said.get('randomness')!r}, which is not how the key was made"
        )
    epsilon, statement = said.get("epsilon"), str(said.get("statement"))
    quoted = (
        f"No {said.get('unit')}-level" if epsilon is None else f"({upper(epsilon)}, {said.get('delta')!r})"
    )
    if quoted not in statement:
        raise _edited(what, f"its statement does not say {quoted!r}: {statement[:80]!r}")


def _close(said: Any, planned: Any) -> bool:
    if said is None or planned is None:
        return said is planned
    number = isinstance(said, int | float) and not isinstance(said, bool)
    return number and math.isclose(said, planned, rel_tol=_TOLERANCE, abs_tol=1e-12)


def _edited(what: str, why: str) -> LedgerError:
    return LedgerError(f"the {what} of the record was edited: {why}; restore record.jsonl from a backup")
