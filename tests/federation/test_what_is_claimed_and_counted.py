"""A reply counts once; a claim says when it is simulated, and what private figures it does not cover."""

import numpy as np
from tiny_federation import CLIENTS, apps, config, parts, plan, play

from fedsafe.engine import InlineGrid
from fedsafe.privacy.circumstances import Circumstances
from fedsafe.privacy.matrix import planned_claims
from fedsafe.runs import run


class Twice(InlineGrid):
    """Delivers every reply two times."""

    def exchange(self, messages, timeout):
        replies = super().exchange(messages, timeout)
        return [*replies, *replies]


def test_a_second_answer_to_one_message_counts_for_nothing(tmp_path):
    of = parts()
    by = plan(of)
    once = play(of, by, InlineGrid(clients=CLIENTS, apps=apps(of, by)()), tmp_path / "once")
    twice = play(of, by, Twice(clients=CLIENTS, apps=apps(of, by)()), tmp_path / "twice")
    for one, other in zip(once, twice, strict=True):
        np.testing.assert_array_equal(one.parameters, other.parameters)


def test_a_simulated_claim_begins_with_its_caveat():
    by = plan(parts())
    for claim in planned_claims(by, Circumstances(key_from_seed=True)):
        assert claim.statement().startswith("Simulated: no guarantee against anyone who knows the seed.")
    for claim in planned_claims(by, Circumstances(key_from_seed=False)):
        assert not claim.statement().startswith("Simulated")


def test_figures_on_private_records_are_named_in_both_claims(tmp_path):
    values = config(data__evaluation="validation")
    for claim in run(values, out=tmp_path / "run").claims:
        assert "private records without noise" in claim["not_covered"][0]
        assert "for these only" in claim["release"]
