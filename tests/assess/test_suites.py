"""Suites: what passes, fails, is in error or skipped, and that skipping everything is no pass."""

from dataclasses import replace

import pytest

from fedsafe.assess import ASSESSORS, Requirement, find_assessor
from fedsafe.assess.suites import (
    SUITES,
    Case,
    Suite,
    assessors_of,
    find_suites,
    judge_suites,
    override,
)
from fedsafe.errors import ConfigError
from fedsafe.findings import estimate, not_measured, proportion
from fedsafe.privacy.claim import SEED_KEY

ACCURACY = Requirement(metric="performance.accuracy", op=">=", threshold=0.5)
GAP = Requirement(
    metric="fairness.equalised_odds_difference", where={"attribute": "sex"}, op="<=", threshold=0.2
)


def suite(*cases, name="mine"):
    return Suite(name=name, assessors=("performance",), cases=cases)


def case(requirement=ACCURACY, name="only", **more):
    return Case(name=name, requirement=requirement, **more)


def results(cases, findings, **more):
    return [result.result for result in judge_suites([suite(*cases)], findings, **more)]


@pytest.mark.parametrize(("right", "of", "result"), [(90, 100, "pass"), (10, 100, "fail"), (52, 100, "fail")])
def test_a_case_passes_only_where_its_requirement_does(right, of, result):
    found = judge_suites([suite(case())], [proportion("performance.accuracy", right, of)])
    assert [each.result for each in found] == [result]
    assert found[0].blocks == (result == "fail")


def test_a_should_never_blocks():
    soft = replace(ACCURACY, severity="should")
    found = judge_suites([suite(case(soft))], [proportion("performance.accuracy", 10, 100)])
    assert (found[0].result, found[0].blocks) == ("fail", False)


def test_unmeasured_is_an_error_and_not_applicable_is_skipped_where_the_case_says_so():
    other = proportion("performance.accuracy", 90, 100)
    gap = case(GAP, name="gap", absent="skip")
    for_age = estimate("fairness.equalised_odds_difference", 0.4, where={"attribute": "age"})
    few = not_measured(GAP.metric, "too few", status="insufficient", where={"attribute": "sex"})
    unfit = not_measured(GAP.metric, "a regression", status="not_applicable")
    assert results([case(), gap], [other, for_age]) == ["pass", "skip"]
    assert results([case(), gap], [other, unfit]) == ["pass", "skip"]
    assert results([case(), gap], [other, few]) == ["pass", "error"]
    assert results([case(), case(GAP, name="gap")], [other, for_age]) == ["pass", "error"]
    # What was not measured on all records is not skipped either.
    assert results([case(), gap], [other, replace(few, where={})]) == ["pass", "error"]


def test_nothing_is_skipped_where_an_assessor_failed():
    broke = not_measured("assess.completed", "it broke", status="failed", where={"assessor": "fairness"})
    found = judge_suites(
        [suite(case(), case(GAP, name="gap", absent="skip"))],
        [proportion("performance.accuracy", 90, 100), broke],
    )
    assert [each.result for each in found] == ["pass", "error"]
    assert found[1].blocks
    assert "it broke" in found[1].verdict.reason


def test_a_suite_of_which_everything_is_skipped_is_not_passed():
    skipped = case(GAP, absent="skip")
    found = judge_suites([suite(skipped)], [])
    assert [each.result for each in found] == ["skip", "error"]
    assert found[1].blocks
    # As a part of all it is enough that something is judged.
    parts = [suite(skipped), suite(case(), name="other")]
    measured = [proportion("performance.accuracy", 90, 100)]
    assert [each.result for each in judge_suites(parts, measured, together=True)] == ["skip", "pass"]
    assert [each.result for each in judge_suites(parts, measured)] == ["skip", "pass", "error"]
    assert judge_suites(parts[:1], [], together=True)[-1].blocks


def test_the_best_of_several_is_enough_where_the_case_says_so():
    rule = Requirement(metric="privacy.epsilon", op="<=", threshold=10.0)
    client = estimate("privacy.epsilon", 3.0, bound="upper", where={"unit": "client"})
    none = not_measured("privacy.epsilon", "no claim", status="not_applicable", where={"unit": "record"})
    assert results([case(rule, match="best")], [client, none]) == ["pass"]
    assert results([case(rule)], [client, none]) == ["error"]
    assert results([case(rule, match="best")], [none]) == ["error"]
    assert results([case(rule, match="best")], []) == ["error"]


def claimed(epsilon, unit="record", delta=1e-5, randomness="keyed by the operating system"):
    detail = {"claim": {"delta": delta, "randomness": randomness}}
    return estimate("privacy.epsilon", epsilon, bound="upper", where={"unit": unit}, detail=detail)


@pytest.mark.parametrize(
    ("findings", "result"),
    [
        ([claimed(3.0)], "pass"),
        ([claimed(0.0, delta=0.9)], "fail"),
        ([claimed(3.0, delta=1e-3)], "fail"),  # enough for a client, not for a record
        ([claimed(3.0, "client", delta=1e-3)], "pass"),
        ([claimed(3.0, "client", delta=9e-3)], "fail"),  # not below one over the 200 clients
        ([claimed(3.0, randomness=SEED_KEY)], "fail"),
        ([claimed(3.0), claimed(50.0, "client", 1e-3)], "fail"),  # each unit that is claimed
        ([claimed(3.0), claimed(50.0)], "pass"),  # the headline of its unit
        ([claimed(50.0), claimed(3.0)], "fail"),
        ([replace(claimed(3.0), detail={})], "fail"),
    ],
)
def test_a_claim_that_promises_nothing_passes_no_privacy_suite(findings, result):
    none = not_measured("privacy.epsilon", "no claim", status="not_applicable", where={"unit": "client"})
    [privacy] = find_suites("privacy")
    population = {"client": 200, "record": 30_000}
    found = judge_suites([privacy], [*findings, none], population=population)
    first = next(each for each in found if each.case.name == "accounted epsilon")
    assert first.result == result, first.verdict.reason
    assert first.blocks == (result == "fail")


def test_group_columns_are_judged_however_they_are_spelt_and_named():
    def gap(attribute, value):
        return estimate(
            "fairness.equalised_odds_difference",
            value,
            interval=(value - 0.02, value + 0.02),
            method="bootstrap",
            n=5000,
            unit="examples",
            where={"attribute": attribute},
        )

    def failed(*findings):
        found = judge_suites(find_suites("bias"), findings)
        return {each.case.name for each in found if each.blocks and each.result == "fail"}

    assert failed(gap("Sex", 0.6)) == {"sex equalised odds", "every group column equalised odds"}
    assert failed(gap("gender_identity", 0.6)) == {"every group column equalised odds"}
    assert not failed(gap("Sex", 0.1), gap("Sex & Race", 0.6))  # few of each; asked for by a should


def test_a_requirement_takes_the_place_of_the_case_that_it_names():
    harder = replace(ACCURACY, threshold=0.95)
    changed = override([suite(case(), case(GAP, name="gap"))], [harder])
    assert changed[0].cases[0].requirement == harder
    assert changed[0].cases[1].requirement == GAP
    with pytest.raises(ConfigError, match="in the place of no case"):
        override([suite(case())], [GAP])
    with pytest.raises(ConfigError, match="in the place of no case"):
        override([suite(case())], [replace(ACCURACY, op="<=")])


@pytest.mark.parametrize("name", SUITES)
def test_every_threshold_that_ships_has_a_reason_and_every_assessor_is_there(name):
    shipped = SUITES[name]()
    assert shipped.name == name
    assert shipped.description
    assert all(each.because for each in shipped.cases)
    assert any(each.requirement.severity == "must" for each in shipped.cases)
    for spec in assessors_of([shipped]):
        assert (spec if isinstance(spec, str) else spec["name"]) in ASSESSORS
        find_assessor(spec)


def test_all_is_every_suite_and_their_assessors_do_not_contradict_each_other():
    assert [each.name for each in find_suites("all")] == list(SUITES)
    assert [each.name for each in find_suites("bias, all")] == ["bias", *(n for n in SUITES if n != "bias")]
    assert len(assessors_of(find_suites("all"))) > len(SUITES) - 1


def made():
    return suite(case(), name="from_python")


def not_made():
    return "a suite"


def test_suites_of_ones_own(tmp_path):
    file = tmp_path / "house.toml"
    file.write_text(
        'assessors = ["performance"]\n[[require]]\ncase = "right"\nmetric = "performance.accuracy"\nop = ">="\n'
        'threshold = 0.7\nbecause = "we say so"\n'
    )
    found = find_suites(f"{file},{__name__}:made")
    assert [each.name for each in found] == ["house", "from_python"]
    assert found[0].cases[0].requirement.threshold == 0.7


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("", "names no suite"),
        ("biass", "did you mean 'bias'"),
        ("nowhere.toml", "cannot be read"),
        (f"{__name__}:not_made", "returned a str, not a Suite"),
        (f"{__name__}:made,{__name__}:made", None),
    ],
)
def test_a_wrong_name_is_one_clear_line(named, message):
    if message is None:
        assert len(find_suites(named)) == 1
        return
    with pytest.raises(ConfigError, match=message):
        find_suites(named)


RIGHT = {"case": "a", "metric": "performance.accuracy", "op": ">=", "threshold": 0.5}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"requires": []}, "no key 'requires'"),
        ({"assessors": ["performance"]}, "has no require"),
        ({"require": [RIGHT]}, "has no assessors"),
        ({"assessors": "performance", "require": [RIGHT]}, "is a list"),
        ({"assessors": ["performance"], "require": [1]}, "not a table"),
        ({"assessors": ["performance"], "require": [RIGHT, RIGHT]}, "two cases named 'a'"),
        ({"assessors": ["performance"], "require": [{**RIGHT, "case": ""}]}, "give it a name"),
        ({"assessors": ["performance"], "require": [{**RIGHT, "absent": "pass"}]}, "one of error, skip"),
        ({"assessors": ["performance"], "require": [{**RIGHT, "match": 3}]}, "one of worst, best"),
        ({"assessors": ["performance"], "require": [{**RIGHT, "metrik": 1}]}, "did you mean 'metric'"),
    ],
)
def test_a_wrong_file_is_one_clear_line(table, message):
    with pytest.raises(ConfigError, match=message):
        Suite.parse("mine", table)


def test_two_suites_that_want_one_assessor_differently_are_refused():
    cheap = Suite(name="cheap", assessors=({"name": "fairness", "minimum": 50},), cases=(case(),))
    with pytest.raises(ConfigError, match="run them apart"):
        assessors_of([SUITES["bias"](), cheap])
