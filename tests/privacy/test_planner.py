"""The planner finds what is missing, never beyond the target, and as close to it as whole numbers allow."""

import math
from dataclasses import replace

import pytest

from fedsafe.errors import CalibrationError, ConfigError
from fedsafe.privacy.accounting import (
    FINE,
    SampledGaussian,
    analytic_noise,
    epsilon,
    group_epsilon,
    rdp_epsilon,
)
from fedsafe.privacy.accounting.groups import any_group_epsilon
from fedsafe.privacy.accounting.noise import calibrate_noise
from fedsafe.privacy.planner import Question, solve, solve_both
from fedsafe.privacy.planner_claims import claim_json, claim_of, statement_of, warnings_of
from fedsafe.privacy.planner_search import largest_count, largest_rate, least_count

RECORD = Question(unit="record", delta=1e-5, epsilon=2.0, noise=3.0, rate=0.1, steps=200)
CLIENT = Question(unit="client", delta=1e-5, epsilon=1.0, noise=4.0, size=100, population=1000, rounds=100)


def without(question: Question, *names: str, **others) -> Question:
    return replace(question, **dict.fromkeys(names), **others)


class TestEvaluating:
    def test_steps_at_a_rate(self):
        plan = solve(without(RECORD, "epsilon"))
        assert plan.solved == "epsilon"
        assert plan.epsilon == epsilon(SampledGaussian(rate=0.1, noise=3.0, count=200), 1e-5)
        assert plan.group_epsilon == pytest.approx(
            group_epsilon(SampledGaussian(rate=0.1, noise=3.0, count=200), 1e-5, 2), rel=1e-3
        )

    @pytest.mark.parametrize(
        ("changes", "count"),
        [
            ({"steps": None, "rounds": 20, "per_round": 5}, 100),
            ({"steps": None, "rounds": 20, "per_round": 5, "participation": 8}, 40),
            ({"steps": None, "per_round": 5, "participation": 8}, 40),
            ({"steps": None, "epochs": 3.0}, 30),
            ({"steps": None, "epochs": 1e-12, "rounds": 5}, 5),
            ({"steps": None, "epochs": 3.0, "sampler": "none"}, 30),
            ({"steps": None, "epochs": 1.0 + 1e-12, "rounds": 1, "rate": 1.0}, 2),
            ({"steps": None, "epochs": 0.5, "rounds": 4}, 20),
            ({"steps": None, "epochs": 1.0, "rounds": 2, "rate": None, "size": 1, "population": 93}, 186),
            ({"steps": None, "epochs": 1.0, "rounds": 2, "rate": None, "size": 64, "population": 6000}, 188),
        ],
    )
    def test_every_way_to_say_how_long(self, changes, count):
        """Epochs take whole steps, none too few: 1/(1/93) is 93, and not 92."""
        question = without(RECORD, "epsilon", **changes) if "steps" not in changes else replace(
            RECORD, epsilon=None, **changes
        )  # fmt: skip
        assert solve(question).question.count == count

    def test_clients_and_what_remains_if_cohorts_become_known(self):
        plan = solve(without(CLIENT, "epsilon", noise=2.0))
        assert plan.epsilon == pytest.approx(2.34, abs=5e-3)
        assert claim_of(plan).known_cohorts_epsilon == pytest.approx(33.1, abs=0.06)
        assert claim_of(plan).cohort_secret

    def test_known_cohorts_count_participations_alone(self):
        known = without(CLIENT, "epsilon", noise=2.0, sampler="none", participation=10)
        assert solve(known).epsilon == pytest.approx(7.511, abs=1e-3)

    def test_fixed_sizes_are_under_replace_one(self):
        plan = solve(without(CLIENT, "epsilon", noise=2.0, sampler="fixed"))
        assert plan.epsilon == pytest.approx(14.05, rel=2e-3)
        assert plan.accounted.adjacency == "replace-one"
        assert claim_of(plan).accountant.startswith("RDP")

    def test_several_records_of_one_person(self):
        plan = solve(without(RECORD, "epsilon", per_person=2))
        assert plan.epsilon == group_epsilon(SampledGaussian(rate=0.1, noise=3.0, count=200), 1e-5, 2)
        assert plan.group_epsilon is None
        assert any("2 records in one client per person" in one for one in claim_of(plan).assumptions)

    def test_known_cohorts_of_a_fixed_size_are_under_replace_one_too(self):
        claim = claim_of(solve(without(CLIENT, "epsilon", noise=2.0, sampler="fixed")))
        seen = SampledGaussian(rate=1.0, noise=2.0, count=100, adjacency="replace-one")
        assert claim.known_cohorts_epsilon == epsilon(seen, 1e-5)

    def test_known_cohorts_are_for_all_clients_of_a_person(self):
        claim = claim_of(solve(without(CLIENT, "epsilon", noise=8.0, per_person=2)))
        seen = SampledGaussian(rate=1.0, noise=8.0, count=100)
        assert claim.known_cohorts_epsilon == group_epsilon(seen, 1e-5, 2)
        assert claim.known_cohorts_epsilon > epsilon(seen, 1e-5)

    @pytest.mark.parametrize(
        ("changes", "seen"),
        [
            (
                {"sampler": "fixed", "size": 990},
                SampledGaussian(rate=1.0, noise=4.0, count=100, adjacency="replace-one"),
            ),
            ({"size": 900, "participation": 2}, SampledGaussian(rate=1.0, noise=4.0, count=2)),
        ],
        ids=["fixed", "capped"],
    )
    def test_what_sampling_does_not_improve_is_not_amplified(self, changes, seen):
        plan = solve(without(CLIENT, "epsilon", **changes))
        assert plan.epsilon == epsilon(seen, 1e-5) < epsilon(plan.question.release(), 1e-5)
        claim = claim_of(plan)
        assert not claim.cohort_secret
        assert "of which the bound makes no use" in claim.sampler
        assert f"{seen.count} rounds" in claim.horizon
        assert claim.accountant.startswith("exact Gaussian")
        assert any("makes no use of sampling" in one for one in warnings_of(plan))

    def test_very_long_plans_are_counted_by_rdp_which_is_said(self):
        plan = solve(without(RECORD, "epsilon", rate=0.001, noise=2.0, steps=10**7))
        release = SampledGaussian(rate=0.001, noise=2.0, count=10**7)
        assert plan.epsilon == rdp_epsilon(release, 1e-5)
        assert plan.accounted.fallback
        assert claim_of(plan).accountant.startswith("RDP")
        assert any("takes too long, and RDP is looser" in one for one in warnings_of(plan))
        assert plan.group_epsilon > plan.epsilon

    def test_a_length_that_stops_where_rdp_begins_says_so(self):
        exact = epsilon(SampledGaussian(rate=0.001, noise=2.0, count=10**5), 1e-5)
        plan = solve(without(RECORD, "steps", rate=0.001, noise=2.0, epsilon=1.001 * exact))
        assert plan.question.steps == 10**5
        assert any("a few more may fit" in one for one in warnings_of(plan))

    def test_no_bound_is_not_no_noise(self):
        plan = solve(without(RECORD, "epsilon", rate=0.01, noise=1.0, steps=100, per_person=2000))
        assert math.isinf(plan.epsilon)
        assert "no finite bound on epsilon was found for 2000 records" in statement_of(plan)
        assert "noise is added: 100 steps, noise multiplier 1" in statement_of(plan)
        assert claim_json(plan)["statement"] == statement_of(plan)
        assert claim_json(plan)["epsilon"] is None

    def test_the_bound_of_a_large_group_does_not_underflow(self):
        """(k e, d exp(..)): an exponent that is cut off would let a delta of 1e-300 pass for all groups."""
        release = SampledGaussian(rate=0.01, noise=1.0, count=100)
        assert any_group_epsilon((release,), 1e-5, 2000, by_rdp=True) == math.inf
        two = any_group_epsilon((release,), 1e-5, 2, by_rdp=True)
        assert group_epsilon(release, 1e-5, 2) < two < math.inf


class TestSolving:
    @pytest.mark.parametrize(
        "question",
        [
            without(RECORD, "noise"),
            without(RECORD, "steps"),
            without(RECORD, "rate"),
            without(RECORD, "rate", population=600),
            without(RECORD, "steps", rounds=20),
            without(RECORD, "steps", per_round=5),
            without(RECORD, "steps", per_round=5, rounds=200),
            without(CLIENT, "rounds"),
            without(CLIENT, "size"),
            without(CLIENT, "population"),
        ],
        ids=lambda q: (
            f"{q.unit}-{q.noise}-{q.rate}-{q.size}-{q.population}-{q.steps}-{q.rounds}-{q.per_round}"
        ),
    )
    def test_what_is_found_meets_the_target_and_one_more_would_not(self, question):
        plan = solve(question)
        found, target = plan.question, question.epsilon
        assert plan.epsilon <= target
        value = getattr(found, plan.solved)
        worse = {"noise": value * 0.99, "rate": value * 1.01, "population": value - max(1, value // 100)}
        further = worse.get(plan.solved, value + max(1, value // 100) if isinstance(value, int) else None)
        assert replace(found, **{plan.solved: further}).cost() > target
        if plan.solved in ("steps", "rounds", "per_round", "participation"):
            assert replace(found, **{plan.solved: value + 1}).cost() > target

    def test_steps_of_a_published_example(self):
        """jax_privacy, accounting.py, docstring: epsilon 2 at noise 3 and rate 0.1 allows 155 steps at delta 1e-6."""
        question = Question(unit="record", delta=1e-6, epsilon=2.0, noise=3.0, rate=0.1)
        assert solve(question).question.steps == 155

    def test_noise_without_sampling_is_the_analytic_one(self):
        question = Question(unit="client", delta=1e-5, epsilon=2.0, rounds=4, sampler="none")
        noise = solve(question).question.noise
        assert noise == pytest.approx(2.0 * analytic_noise(2.0, 1e-5), rel=1e-3)

    def test_a_target_near_zero_has_noise(self):
        noise = calibrate_noise(1e-9, 1e-5, rate=0.1, count=10)
        assert epsilon(SampledGaussian(rate=0.1, noise=noise, count=10), 1e-5) <= 1e-9

    def test_participation_of_known_cohorts(self):
        question = Question(unit="client", delta=1e-5, epsilon=7.6, noise=2.0, rounds=100, sampler="none")
        plan = solve(question)
        assert plan.solved == "participation"
        assert plan.question.participation == 10

    def test_noise_for_the_records_of_one_person_together(self):
        alone = solve(without(RECORD, "noise"))
        together = solve(without(RECORD, "noise", per_person=2))
        assert together.epsilon <= 2.0
        assert 1.5 * alone.question.noise < together.question.noise < 2.5 * alone.question.noise

    def test_both_levels_take_the_rounds_that_both_can_pay_for(self):
        record = without(RECORD, "steps", per_round=5)
        client = without(CLIENT, "rounds")
        plans = solve_both(record, client)
        alone = [solve(question).question.rounds for question in (record, client)]
        assert [plan.question.rounds for plan in plans] == [min(alone)] * 2
        assert plans[0].epsilon <= 2.0
        assert plans[1].epsilon <= 1.0

    def test_both_levels_may_lack_different_things(self):
        plans = solve_both(
            without(RECORD, "noise", "steps", rounds=40, per_round=5), without(CLIENT, "epsilon", rounds=40)
        )
        assert [plan.solved for plan in plans] == ["noise", "epsilon"]


class TestRefusing:
    @pytest.mark.parametrize(
        ("question", "message"),
        [
            (without(RECORD, "noise", "steps"), "give all but one of --noise, --steps"),
            (RECORD, "nothing is missing of the record level: leave out"),
            (CLIENT, "nothing is missing of the client level: leave out"),
            (without(RECORD, "epsilon", size=64), "--rate and --batch say the same thing twice"),
            (without(RECORD, "epsilon", rounds=3), "--steps and --rounds say the same thing twice"),
            (without(RECORD, "epsilon", epochs=3.0), "--epochs and a number of steps"),
            (without(RECORD, "epsilon", rate=1.5), "is no sampling rate"),
            (without(RECORD, "epsilon", noise=0.0), "protects nothing"),
            (without(RECORD, "epsilon", delta=1.0), "is no probability"),
            (without(RECORD, "epsilon", steps=0), "1 or more"),
            (replace(RECORD, epsilon=-1.0, noise=None), "is no target"),
            (without(RECORD, "epsilon", sampler="fixed"), "give --batch and --records, not --rate"),
            (without(CLIENT, "epsilon", sampler="fixed", adjacency="zero-out"), "no zero-out bound"),
            (without(CLIENT, "epsilon", size=2000), "lower it"),
            (without(RECORD, "epsilon", "steps", rounds=3, epochs=math.inf), "--epochs inf: give a positive"),
            (without(RECORD, "epsilon", "steps", rounds=3, epochs=1e8), "more than 100000000 steps: lower"),
            (
                without(RECORD, "epsilon", noise=1e-300),
                "--noise 1e-300 is refused by runs: .* from 0.1 to 100000",
            ),
            (without(RECORD, "epsilon", rate=1e-300), "--rate 1e-300 is below what the accountant resolves"),
            (without(RECORD, "noise", epsilon=1e-9), "--epsilon 1e-09 is below what the accountant resolves"),
            (without(RECORD, "epsilon", delta=1e-13), "--delta 1e-13 is refused by runs: give 1e-12 or more"),
            (
                without(RECORD, "epsilon", steps=10**12),
                r"--steps 1e\+12 is too many: give 100000000 or fewer",
            ),
            (without(RECORD, "epsilon", per_person=0), "--per-person 0: give a whole number"),
            (
                without(CLIENT, "epsilon", sampler="fixed", participation=5),
                "cannot leave a client out after 5",
            ),
            (
                without(CLIENT, "rounds", sampler="fixed", participation=5),
                "cannot leave a client out after 5",
            ),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_a_wrong_question_says_what_to_change(self, question, message):
        with pytest.raises(ConfigError, match=message):
            solve(question)

    @pytest.mark.parametrize(
        ("question", "message"),
        [
            (
                without(RECORD, "steps", epsilon=0.01, noise=1.0),
                "no --steps will do: even one costs .* raise --noise",
            ),
            (
                without(RECORD, "noise", epsilon=1e-4, rate=1.0, steps=10**6),
                "no --noise will do: .* lower --rate",
            ),
        ],
        ids=["steps", "noise"],
    )
    def test_a_target_out_of_reach_says_how_far_and_what_to_change(self, question, message):
        with pytest.raises(CalibrationError, match=message):
            solve(question)


class TestWarnings:
    def test_delta_is_compared_with_the_population(self):
        low, high, unknown = (
            warnings_of(
                solve(without(CLIENT, "epsilon", delta=delta, population=population, size=None, rate=0.1))
            )
            for delta, population in ((1e-5, 1000), (1e-3, 1000), (1e-5, None))
        )
        assert low == []
        assert "not below 1/1000" in high[0]
        assert "take 0.0001 or less" in high[0]
        assert "delta was not checked: give --clients" in unknown[0]

    def test_a_weak_promise_and_a_loose_bound_are_named(self):
        plan = solve(without(CLIENT, "epsilon", noise=2.0, sampler="fixed"))
        assert any("weak promise" in one for one in warnings_of(plan))
        assert any("no tight bound" in one for one in warnings_of(plan))

    def test_the_claim_says_what_the_planner_cannot_know(self):
        claim = claim_of(solve(without(RECORD, "epsilon")))
        assert "own claim says what was executed" in claim.statement()
        assert math.isfinite(claim.group_epsilon)
        assert "200 steps, noise multiplier 3" in claim.horizon


class TestSearch:
    @pytest.mark.parametrize("target", [1.01, 1.5, 17.0, 1000.4, 123456.0])
    def test_it_finds_the_last_number_that_fits(self, target):
        assert largest_count(lambda n, interval: n * (1 + interval), target) == math.floor(
            target / (1 + FINE)
        )

    def test_and_the_first(self):
        assert least_count(lambda n, interval: 100.0 / n + interval, 1.0, 1) == 101
        assert least_count(lambda n, interval: 100.0 / n, 200.0, 3) == 3

    def test_and_the_largest_rate(self):
        rate = largest_rate(lambda q, interval: 20.0 * q * (1 + interval), 0.0246913)
        assert rate == 0.001234
        assert largest_rate(lambda q, interval: q, 2.0) == 1.0

    def test_it_stops_at_the_most(self):
        assert largest_count(lambda n, interval: 0.0, 1.0, 50) == 50

    def test_nothing_that_fits_is_said(self):
        with pytest.raises(CalibrationError, match="even one costs epsilon 2"):
            largest_count(lambda n, interval: 2.0 * n, 1.0)
        with pytest.raises(CalibrationError, match="even 1000 cost epsilon 2"):
            least_count(lambda n, interval: 2.0, 1.0, 1, 1000)
        with pytest.raises(CalibrationError, match="even a rate of 1e-08 costs"):
            largest_rate(lambda q, interval: 2.0, 1.0)
