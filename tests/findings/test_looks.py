"""Looks: when they are due, and that all of them together keep the confidence."""

import pytest

from fedsafe.errors import ConfigError
from fedsafe.findings import confidence_of_look, due_rounds


@pytest.mark.parametrize("spending", ["half_last", "bonferroni"])
@pytest.mark.parametrize(("rounds", "every"), [(40, 10), (7, 2), (3, 5), (100, 1)])
def test_all_looks_together_spend_what_is_allowed(spending, rounds, every):
    due = due_rounds(rounds, every)
    spent = sum(1 - confidence_of_look(round, due, 0.95, spending) for round in due)
    assert spent == pytest.approx(0.05)
    # A period that doubles leaves looks out, and spends less.
    wider = due_rounds(rounds, 2 * every)
    assert sum(1 - confidence_of_look(round, due, 0.95, spending) for round in wider) <= 0.05 + 1e-12


def test_the_last_look_may_spend_half_also_when_it_comes_early():
    due = due_rounds(40, 10)
    assert confidence_of_look(40, due, 0.9) == pytest.approx(0.95)
    assert confidence_of_look(23, due, 0.9) == pytest.approx(0.95)
    assert confidence_of_look(10, due, 0.9) == pytest.approx(1 - 0.05 / 3)


def test_one_look_has_all_of_it_and_no_spending_gives_each_all():
    assert confidence_of_look(4, due_rounds(4, None), 0.9) == 0.9
    assert confidence_of_look(2, due_rounds(4, 2), 0.9, "none") == 0.9


def test_what_is_no_way_to_spend_is_refused():
    with pytest.raises(ConfigError, match="half_last, bonferroni or none"):
        confidence_of_look(1, [1, 2], 0.9, "all")
    with pytest.raises(ConfigError, match="every = 0"):
        due_rounds(4, 0)
