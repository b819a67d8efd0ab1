"""What is found of rewards of which the truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from preference_subjects import LENGTH, MERIT, NOTHING, FirstFeature, make_subject, make_task

from fedsafe.assess import find_assessor, run_assessors
from fedsafe.assess.alignment.accuracy import accuracy
from fedsafe.assess.alignment.judged import counted, judge, ratio, resampled
from fedsafe.assess.alignment.people import worst_people
from fedsafe.assess.resampling import Clusters
from fedsafe.findings import METRICS, Finding, remake


def found(weights, *, position=0.0, tier="cheap", seed=1, **options):
    """``{metric: finding}``, of several with one metric the first; and all of them."""
    model = FirstFeature(weights, position, ties=options.get("ties", False))
    subject = make_subject(model, make_task(**options))
    findings = find_assessor("alignment")(subject, rng=np.random.default_rng(seed), tier=tier)
    return {finding.metric: finding for finding in reversed(findings)}, findings


def test_a_perfect_reward_is_right_everywhere_and_no_interval_is_a_point():
    by_metric, _ = found(MERIT)
    for name in ("accuracy", "human_ceiling", "worst_decile_accuracy", "worst_group_accuracy"):
        finding = by_metric[f"alignment.{name}"]
        assert finding.value == 1.0
        assert finding.interval[0] < 0.97
    assert by_metric["alignment.gain_over_chance"].detail["verdict"] == "above chance"
    assert by_metric["alignment.below_chance"].value == 0.0
    assert by_metric["alignment.best_of_n_regret"].value == pytest.approx(0.0, abs=1e-9)


def test_a_model_may_know_more_than_the_few_others_who_rated():
    by_metric, _ = found(MERIT, noise=1.0, people=24, items=200, pairs=15)
    share = by_metric["alignment.share_of_ceiling"]
    assert share.value > 1.0
    assert share.interval[0] > 0.9


def test_the_reverse_of_the_preferences_is_below_chance():
    by_metric, _ = found([-value for value in MERIT], noise=0.3)
    assert by_metric["alignment.gain_over_chance"].detail["verdict"] == "below chance"
    assert by_metric["alignment.below_chance"].value == 1.0
    assert by_metric["alignment.best_of_n_gain"].value < 0


def test_a_constant_reward_is_a_coin():
    by_metric, _ = found([0.0, 0.0, 0.0])
    assert by_metric["alignment.accuracy"].value == 0.5
    assert by_metric["alignment.accuracy"].detail["equal_rewards"] == 40 * 30
    assert by_metric["alignment.gain_over_chance"].detail["verdict"] == "at chance"
    assert by_metric["alignment.nll"].value == pytest.approx(np.log(2))
    assert by_metric["alignment.brier"].value == pytest.approx(0.25)
    assert by_metric["alignment.length_correlation"].status == "insufficient"
    assert by_metric["alignment.best_of_n_gain"].value == pytest.approx(0.0, abs=1e-9)


def _intervals(seeds, **options):
    """The two intervals around the accuracy of a reward that knows nothing, for each seed."""
    both = []
    for seed in range(seeds):
        subject = make_subject(FirstFeature(NOTHING), make_task(seed=1000 + seed, **options))
        judged = judge(subject, subject.task.preferences)
        findings = accuracy(judged, np.random.default_rng(seed), 400, named=False, context={})
        both.append((findings[0].interval, findings[1].interval))
    return both


def covered(intervals, truth):
    return float(np.mean([low <= truth <= high for low, high in intervals]))


def test_a_random_reward_is_at_chance_for_people_without_a_common_taste():
    # Their readings of an item's merit are almost all noise: only the luck of the people counts.
    both = _intervals(200, noise=100.0)
    assert covered([people for people, _ in both], 0.5) >= 0.93
    assert covered([items for _, items in both], 0.0) >= 0.93


@pytest.mark.parametrize("people", [6, 12, 40])
def test_drawing_few_people_covers_as_often_as_it_says(people):
    rng, hit = np.random.default_rng(people), 0
    clusters = Clusters(codes=np.repeat(np.arange(people), 30), name="annotators")
    for _ in range(400):
        # Each has an own chance of being foretold, one half on average.
        chance = np.repeat(rng.beta(3, 3, size=people), 30)
        right = (rng.random(len(chance)) < chance).astype(np.float64)
        low, high = resampled(ratio, counted(right), clusters, rng, 400).interval
        hit += low <= 0.5 <= high
    assert 0.925 <= hit / 400 <= 0.985


def test_a_random_reward_is_at_chance_for_people_of_one_mind_only_where_items_count():
    both = _intervals(200, noise=0.0, items=40)
    assert covered([items for _, items in both], 0.0) >= 0.93
    # Drawing people alone does not see that the same items were lucky for all of them.
    assert covered([people for people, _ in both], 0.5) < 0.7


def test_people_who_are_all_alike_have_a_worst_tenth_within_luck_and_others_do_not():
    def luck(**options):
        explained, elsewhere = [], []
        for seed in range(20):
            subject = make_subject(FirstFeature(MERIT), make_task(seed=seed, noise=0.8, **options))
            judged = judge(subject, subject.task.preferences)
            worst, _ = worst_people(judged, np.random.default_rng(seed), 20, named=False, context={})
            explained.append(worst.diagnostics["explained_by_luck"])
            elsewhere.append(worst.anchors["on_other_items"])
        return np.mean(explained), np.mean(elsewhere)

    same, on_other_items = luck()
    assert same >= 0.8
    assert on_other_items > 0.75  # who was the worst by luck is not so on other items
    differ, on_other_items = luck(turned=4)
    assert differ == 0.0
    assert on_other_items < 0.4


def test_a_person_below_chance_is_found_and_named_only_where_records_are_public():
    by_metric, _ = found(MERIT, turned=3, noise=0.2)
    assert by_metric["alignment.below_chance"].value == pytest.approx(3 / 40)
    worst = by_metric["alignment.worst_decile_accuracy"]
    assert {row["annotator"] for row in worst.detail["annotators"][:3]} == {
        "person 000",
        "person 001",
        "person 002",
    }
    private, findings = found(MERIT, turned=3, noise=0.2, public=False, people=24)
    assert all(finding.released for finding in findings)
    assert "person" not in str([finding.to_json() for finding in findings])
    # The least and the most are of one person each.
    assert len(private["alignment.worst_decile_accuracy"].detail["quantiles"]) == 5
    assert len(worst.detail["quantiles"]) == 7
    assert private["alignment.worst_decile_accuracy"].value < 0.5


def test_few_people_are_told_one_by_one_and_stand_for_nobody_else():
    by_metric, findings = found(MERIT, people=3, pairs=60, ratings=False, same_pairs=True)
    names = [f.where["annotator"] for f in findings if "annotator" in f.where]
    assert names == ["person 000", "person 001", "person 002"]
    assert "these alone" in by_metric["alignment.accuracy"].diagnostics["interval"]
    assert by_metric["alignment.gain_over_chance"].interval_method == "sandwich over items"
    assert by_metric["alignment.worst_decile_accuracy"].status == "insufficient"


def test_what_needs_no_reward_is_said_where_it_does_as_well():
    # People choose the longer, and the model knows something of that, less than length itself.
    task = make_task(people=24)
    lengths = task.preferences.features[:, 0].astype(np.float64) * 20 + 100
    task = replace(task, preferences=replace(task.preferences, lengths=lengths))
    findings = find_assessor("alignment")(
        make_subject(FirstFeature([1.0, 1.0, 0.0]), task), rng=np.random.default_rng(0), tier="cheap"
    )
    by_metric = {f.metric: f for f in reversed(findings)}
    assert by_metric["alignment.accuracy"].anchors["always_the_longer"] == 1.0
    reading = by_metric["alignment.gain_over_chance"].detail["reading"]
    assert "above chance. No reward is needed for 1.000: choosing always the longer." in reading


def test_the_gain_over_chance_has_an_interval_at_other_confidences():
    gain = found(MERIT, noise=1.0)[0]["alignment.gain_over_chance"]
    wider = remake(gain, 0.99)
    assert wider.interval[0] < gain.interval[0]


def test_ties_are_left_out_of_the_accuracy_and_counted_beside_it():
    by_metric, _ = found(MERIT, ties=True)
    plain, all_three = by_metric["alignment.accuracy"], by_metric["alignment.accuracy_with_ties"]
    assert plain.value == 1.0
    assert plain.n + plain.detail["ties_left_out"] == all_three.n == 40 * 30
    assert 0.5 < all_three.value < 1.0
    assert all_three.anchors["chance"] == pytest.approx(1 / 3)


def test_a_reward_that_is_length_is_flagged_and_one_that_is_not_is_not():
    biased, _ = found(LENGTH, noise=0.5)
    assert biased["alignment.prefers_longer"].value == 1.0
    assert biased["alignment.length_excess"].diagnostics["biased"]
    assert biased["alignment.length_correlation"].value > 0.95
    fair, _ = found(MERIT, noise=0.5)
    assert not fair["alignment.length_excess"].diagnostics["biased"]
    assert abs(fair["alignment.length_correlation"].value) < 0.2
    detail = fair["alignment.prefers_longer"].detail
    assert detail["accuracy_of_always_the_longer"] + detail["accuracy_of_always_the_shorter"] == 1.0
    unknown, _ = found(MERIT, lengths=False)
    assert unknown["alignment.length_excess"].status == "not_applicable"


def test_a_leaning_to_the_first_is_seen_when_places_change():
    fair, _ = found(MERIT)
    assert fair["alignment.swap_consistency"].value == 1.0
    assert fair["alignment.swap_consistency"].detail["mean_leaning_to_the_first"] == pytest.approx(
        0.0, abs=1e-6
    )
    leaning, _ = found(MERIT, position=4.0)
    assert (
        leaning["alignment.prefers_first"].interval[0]
        > leaning["alignment.prefers_first"].anchors["the_people"]
    )
    assert leaning["alignment.swap_consistency"].value < 0.8
    detail = leaning["alignment.swap_consistency"].detail
    assert detail["accuracy_with_both_orders"] == 1.0
    assert detail["accuracy_as_shown"] == leaning["alignment.accuracy"].value < 0.95
    assert leaning["alignment.swap_consistency"].detail["mean_leaning_to_the_first"] == pytest.approx(
        4.0, abs=1e-5
    )


def test_a_reward_that_goes_wrong_at_the_top_turns_down():
    # Ratings grow with merit but for the few items that the reward likes best.
    task = make_task(items=300, people=60, pairs=60)
    features = task.preferences.features.copy()
    reward = features[:, 0].copy()
    ratings = np.where(reward > 1.2, -3.0, reward)[task.preferences.rated]
    task = replace(task, preferences=replace(task.preferences, ratings=ratings))
    findings = find_assessor("alignment")(
        make_subject(FirstFeature(MERIT), task), rng=np.random.default_rng(0), tier="full"
    )
    (turn,) = [f for f in findings if f.metric == "alignment.over_optimisation"]
    assert turn.detail["turns_down"]
    assert turn.interval[1] < 0
    assert turn.detail["best_n"] < turn.where["n"]
    (straight,) = [f for f in found(MERIT, items=300)[1] if f.metric == "alignment.over_optimisation"]
    assert not straight.detail["turns_down"]


def test_findings_are_complete_and_repeat():
    for options in ({}, {"ties": True}, {"people": 2, "ratings": False}, {"pairs": 1, "people": 12}):
        _, findings = found(MERIT, noise=0.5, **options)
        assert findings == found(MERIT, noise=0.5, **options)[1]
        for finding in findings:
            assert finding.metric in METRICS
            assert Finding.from_json(finding.to_json()) == finding
            if finding.interval is not None:
                assert finding.interval[0] - 1e-9 <= finding.value <= finding.interval[1] + 1e-9
            if finding.status == "measured":
                assert finding.n


def test_without_preferences_one_finding_says_so_and_nothing_is_spent():
    task = replace(make_task(), preferences=None)
    subject = make_subject(FirstFeature(MERIT), task)
    assessor = find_assessor("alignment")
    assert assessor.plan(subject, "full").forward == 0
    (finding,) = assessor(subject, rng=np.random.default_rng(0), tier="cheap")
    assert finding.status == "not_applicable"
    renamed = replace(make_task(), classes=("no", "yes"))
    (finding,) = assessor(
        make_subject(FirstFeature(MERIT), renamed), rng=np.random.default_rng(0), tier="cheap"
    )
    assert "no, yes" in finding.reason


def test_a_reward_that_is_not_finite_fails_by_name():
    subject = make_subject(FirstFeature([float("nan"), 0, 0]), make_task())
    (finding,) = run_assessors(subject, ["alignment"], rng_seed=0, tier="cheap")["alignment"]
    assert (finding.metric, finding.status) == ("assess.completed", "failed")
    assert "not finite" in finding.reason


def test_few_items_are_said_to_be_too_few_for_an_interval_over_items():
    many, _ = found(MERIT)
    few, _ = found(MERIT, items=12)
    assert not many["alignment.gain_over_chance"].diagnostics
    assert "only 12 items" in str(few["alignment.gain_over_chance"].diagnostics["interval"])
