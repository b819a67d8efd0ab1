"""Findings are held to each other example by example, and what breaks a rule is not believed."""

import numpy as np
import pytest

from fedsafe.assess import run_assessors
from fedsafe.assess.invariants import hold_to_each_other
from fedsafe.findings import BRACKET, Evidence, brackets, not_measured, proportion

EXAMPLES = 12
# The bound of a share says whether it is a certificate or an attack.
SHARE, CLEAN = "robustness.attacked_accuracy", "performance.accuracy"


def share(metric, holds, rows=None, bound="upper", **where):
    holds = np.asarray(holds, dtype=bool)
    rows = np.arange(len(holds)) if rows is None else np.asarray(rows)
    evidence = Evidence(rows=rows, holds=holds)
    return proportion(metric, int(holds.sum()), len(holds), bound=bound, evidence=evidence, where=where)


def certificate(holds, radius=0.1, rows=None, method="crown", norm="linf"):
    return share(SHARE, holds, rows, "lower", method=method, norm=norm, radius=radius)


def attack(holds, radius=0.1, rows=None, name="pgd", norm="linf"):
    return share(SHARE, holds, rows, "upper", attack=name, norm=norm, radius=radius)


def clean(holds):
    return share(CLEAN, holds, bound="estimate")


def first(*count):
    """Flags that hold for the first so many of twelve examples."""
    return np.arange(EXAMPLES) < count[0]


def held(*findings):
    return hold_to_each_other({"made": list(findings)}, EXAMPLES)["made"]


def test_findings_in_order_say_on_how_many_examples_they_were_held():
    proven, found, plain = held(certificate(first(4)), attack(first(7)), clean(first(10)))
    check = {"examples": EXAMPLES, "violations": 0}
    assert proven.diagnostics["certified_below_attacked"] == check
    assert found.diagnostics == {"certified_below_attacked": check, "attacked_below_clean": check}
    assert plain.diagnostics == {}
    assert [finding.status for finding in (proven, found, plain)] == ["measured"] * 3


def test_a_certificate_above_an_attack_is_believed_no_more_than_the_attack():
    flags = first(4)
    flags[11] = True  # certified, and yet broken
    proven, found, plain = held(certificate(flags), attack(first(7)), clean(np.ones(EXAMPLES)))
    for finding in (proven, found):
        assert (finding.status, finding.value, finding.interval) == ("unreliable", None, None)
        assert "1 of 12 examples are certified, and broken by an attack" in finding.reason
        assert finding.diagnostics["certified_below_attacked"]["violations"] == 1
    assert proven.detail["withdrawn_value"] == pytest.approx(5 / 12)
    assert plain.status == "measured"


def test_equal_shares_on_other_examples_are_found_out():
    # Six of twelve each: only the examples tell.
    proven, found, _ = held(certificate(first(6)), attack(~first(6)), clean(np.ones(EXAMPLES)))
    assert "6 of 12" in proven.reason
    assert found.status == "unreliable"


def test_what_withstands_an_attack_is_right_without_one():
    found, plain = held(attack(first(8)), clean(first(7)))
    assert found.status == "unreliable"
    assert "1 of 12 examples are standing under attack, and wrong as they are" in found.reason
    assert plain.status == "measured"


def test_a_larger_radius_leaves_no_more_standing():
    small, large, other = held(
        attack(first(5), 0.1), attack(first(6), 0.2), attack(first(9), 0.2, name="fgsm")
    )
    assert "at a smaller radius" in large.reason
    assert small.status == "unreliable"
    assert other.status == "measured"


def test_a_certificate_is_held_to_smaller_attacks_and_not_to_larger_ones():
    proven, smaller, larger = held(
        certificate(first(5), 0.2), attack(first(4), 0.1), attack(first(1), 0.3, name="other")
    )
    assert "broken by an attack that is no larger" in proven.reason
    assert smaller.status == "unreliable"
    assert larger.status == "measured"


def test_a_loose_certificate_at_a_small_radius_is_not_wrong():
    found = held(certificate(first(2), 0.1), certificate(first(5), 0.2), attack(first(9), 0.2))
    assert {finding.status for finding in found} == {"measured"}


@pytest.mark.parametrize("apart", [{"norm": "l2"}, {"method": "smoothing"}])
def test_other_norms_and_smoothed_classifiers_are_held_to_nothing(apart):
    proven, found = held(certificate(first(9), **apart), attack(first(3)))
    assert (proven.status, found.status) == ("measured", "measured")
    assert proven.diagnostics == {}


def test_only_shared_examples_are_compared_and_make_the_bracket():
    rows = np.array([0, 3, 5, 9])
    proven, found, plain = held(
        certificate([1, 0, 1, 0], rows=rows),
        attack([1, 1, 1, 0, 0, 0], rows=[0, 3, 5, 6, 7, 9]),
        clean(first(8)),
    )
    assert found.diagnostics["certified_below_attacked"]["examples"] == 4
    assert proven.diagnostics[BRACKET] == {"examples": 4, "certified": 0.5, "attacked": 0.75, "clean": 0.75}
    (bracket,) = brackets([finding.to_json() for finding in (proven, found, plain)])
    assert (bracket.low, bracket.high, bracket.clean, bracket.n) == (0.5, 0.75, 0.75, 4)
    assert bracket.holds
    assert bracket.by == ("crown", "pgd")


def test_a_bracket_counts_what_stands_under_all_attacks():
    proven, *_ = held(
        certificate(first(2)),
        attack(first(6)),
        attack(np.arange(EXAMPLES) % 2 == 0, name="b"),
        clean(np.ones(EXAMPLES)),
    )
    assert proven.status == "unreliable"
    proven, *_ = held(certificate(first(1)), attack(first(6)), attack(np.arange(EXAMPLES) % 2 == 0, name="b"))
    assert proven.diagnostics[BRACKET]["attacked"] == pytest.approx(3 / 12)
    assert proven.diagnostics[BRACKET]["clean"] is None


def test_brackets_of_one_end_say_so_and_are_not_zero():
    lines = [attack(first(7)).to_json(), clean(first(10)).to_json()]
    (bracket,) = brackets(lines)
    assert (bracket.low, bracket.high, bracket.clean) == (None, 7 / 12, 10 / 12)
    assert brackets([not_measured(SHARE, "lost", where={"norm": "linf", "radius": 0.1}).to_json()]) == []


def test_ends_from_different_samples_are_not_put_in_order():
    lines = [certificate(first(9), rows=np.arange(EXAMPLES) + 50).to_json(), attack(first(7)).to_json()]
    (bracket,) = brackets(lines)
    assert (bracket.low, bracket.high, bracket.n, bracket.holds) == (9 / 12, 7 / 12, None, None)


def test_epsilons_have_a_bracket_whose_crossing_is_no_broken_rule():
    def line(metric, value):
        return {"metric": metric, "value": value, "where": {"unit": "record", "canaries": "gradient"}}

    (bracket,) = brackets([line("privacy.audited_epsilon", 1.2), line("privacy.accounted_epsilon", 3.0)])
    assert (bracket.kind, bracket.low, bracket.high, bracket.holds) == ("epsilon", 1.2, 3.0, True)
    (bracket,) = brackets([line("privacy.audited_epsilon", 4.0), line("privacy.accounted_epsilon", 3.0)])
    assert not bracket.holds


@pytest.mark.parametrize(
    ("sizes", "status"), [((5, 7), "measured"), ((5, 6), "unreliable"), ((6, 7), "unreliable")]
)
def test_groups_hold_every_example_once(sizes, status):
    rates = [
        proportion("fairness.accuracy", 3, n, where={"attribute": "sex", "group": name})
        for n, name in zip(sizes, ("Female", "Male"), strict=True)
    ]
    found = held(*rates)
    assert {finding.status for finding in found} == {status}
    assert (status == "measured") == (not found[0].diagnostics["groups_add_up"]["violations"])


def test_small_groups_are_counted_as_well():
    found = held(
        proportion("fairness.accuracy", 3, 10, where={"attribute": "sex", "group": "Female"}),
        not_measured(
            "fairness.accuracy",
            "too small",
            status="insufficient",
            n=2,
            unit="examples",
            where={"attribute": "sex", "group": "Male"},
        ),
    )
    assert [finding.status for finding in found] == ["measured", "insufficient"]


def test_findings_of_real_assessors_keep_the_rules(perceptron, inputs, judged):
    x = inputs(400)
    subject = judged(perceptron(), x, (x[:, 0] > 0).astype(np.int64))
    found = run_assessors(subject, ["performance", "fairness", "robustness"], rng_seed=0, tier="cheap")
    attacked = [f for f in found["robustness"] if f.metric == SHARE and f.evidence is not None]
    for finding in attacked:
        assert finding.diagnostics["attacked_below_clean"]["violations"] == 0
    groups = [f for f in found["fairness"] if f.metric == "fairness.accuracy"]
    assert all(f.diagnostics["groups_add_up"] == {"examples": 400, "violations": 0} for f in groups)
