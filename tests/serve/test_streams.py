import json
import math
from datetime import UTC, datetime

import numpy as np
import pytest
from guarded_model import draw, guard, monitor, table, unseen
from scipy import stats

from fedsafe.errors import CalibrationError, ConfigError, RecordError
from fedsafe.serve import DecisionLog
from fedsafe.serve.streams import (
    EmpiricalBernstein,
    ExchangeabilityTest,
    Expected,
    MeanTest,
    StreamMonitor,
    open_stream,
    period_report,
)
from fedsafe.serve.streams.groups import GroupRate
from fedsafe.serve.streams.wealth import Wealth


def expected(rng, rates=None, records=4000):
    return Expected(
        scores=rng.exponential(size=1000),
        predictions=rng.normal(size=1000),
        rates={
            column: {group: (round(rate * records), records) for group, rate in groups.items()}
            for column, groups in (rates or {}).items()
        },
        codes={column: tuple(groups) for column, groups in (rates or {}).items()},
    )


def test_the_fortune_is_a_martingale_and_alarms_are_as_rare_as_ville_says():
    rng = np.random.default_rng(0)
    fortunes, alarms = [], 0
    for _ in range(2000):
        wealth = Wealth(bets=2, alpha=0.1)
        for _ in range(60):
            side = 0.5 if rng.random() < 0.5 else -0.5
            alarms += wealth.step([1 + side, 1 - side])
            if wealth.alarms:
                break
        fortunes.append(math.exp(wealth.log_wealth) if not wealth.alarms else 1.645 / 0.1)
    assert np.mean(fortunes) == pytest.approx(1.0, abs=4 * np.std(fortunes) / np.sqrt(2000))
    assert alarms / 2000 <= 0.1


def test_bets_that_pay_more_than_they_cost_are_found_out():
    rng = np.random.default_rng(0)
    fortunes = []
    for _ in range(300):
        wealth = Wealth(bets=1, alpha=1e-12)
        for _ in range(60):
            wealth.step([1.3 if rng.random() < 0.5 else 0.8])  # 5 % too good
        fortunes.append(math.exp(wealth.log_wealth))
    assert np.mean(fortunes) > 1.0 + 4 * np.std(fortunes) / np.sqrt(300)


def test_alpha_over_all_restarts_adds_up():
    wealth, total = Wealth(bets=1, alpha=0.01), 0.0
    for _ in range(2000):
        total += math.exp(-wealth.threshold)
        wealth.alarms += 1
    assert 0.0099 < total <= 0.01


def test_p_values_of_the_tree_of_counts_are_those_of_sorting():
    rng = np.random.default_rng(1)
    known, new = rng.integers(0, 30, 200).astype(float), rng.integers(-5, 40, 100).astype(float)
    test = ExchangeabilityTest(known, 0.01)
    bins, seen = test._bins(new), list(test._bins(known[np.random.default_rng(0).permutation(200)[50:]]))
    for place in bins.tolist():
        assert test._below(place) == sum(other < place for other in seen)
        test._add(place, 1)
        seen.append(place)
    assert test._total == len(seen) == 250


def test_p_values_under_no_change_are_uniform(monkeypatch):
    found = []
    monkeypatch.setattr(
        Wealth, "step", lambda self, factors: found.append((factors[0] / 0.2) ** (-1 / 0.8)) and False
    )
    rng = np.random.default_rng(2)
    test = ExchangeabilityTest(rng.normal(size=100), 0.01)
    test.observe(rng.normal(size=3000))
    assert stats.kstest(found, "uniform").pvalue > 1e-3


def tiling(test, known):
    """How often the p-values of each value of ``known``, were it the new one, cover each (n + 1)-th of [0, 1]."""
    cells = np.zeros(len(known))
    for place in test._bins(known).tolist():
        test._add(place, -1)
        below = test._below(place)
        equal = test._below(place + 1) - below
        above = test._total - below - equal
        assert test._total + 1 == len(known)
        cells[above : above + equal + 1] += 1.0 / (equal + 1)  # tie * (equal + 1) is uniform
        test._add(place, 1)
    return cells


@pytest.mark.parametrize("values", ["continuous", "ties", "alike"])
def test_whichever_score_is_the_new_one_the_p_values_cover_the_unit_interval_exactly(values):
    rng = np.random.default_rng(5)
    known = {
        "continuous": rng.normal(size=80),
        "ties": rng.integers(0, 9, 80).astype(float),
        "alike": np.ones(80),
    }[values]
    test = ExchangeabilityTest(known, 0.01, seed=3)
    compared = known[np.random.default_rng(3).permutation(80)[20:]]
    assert test._total == 60
    assert np.allclose(tiling(test, compared), 1.0)  # given the edges: so every bet has the mean 1 exactly


def test_edges_from_what_is_compared_with_would_not():
    known = np.random.default_rng(5).normal(size=80)
    covered = np.zeros(80)
    for new in range(80):  # the edges are those of the others, as in a stream
        others = np.sort(np.delete(known, new))
        edges = others[::4]
        place = edges.searchsorted(known[new], side="right")
        bins = edges.searchsorted(others, side="right")
        above, equal = int((bins > place).sum()), int((bins == place).sum())
        covered[above : above + equal + 1] += 1.0 / (equal + 1)
    assert np.abs(covered - 1.0).max() > 0.1


def test_streams_without_a_change_raise_few_alarms():
    rng = np.random.default_rng(3)
    alarms = 0
    for seed in range(15):
        stream = StreamMonitor(expected(rng, {"g": {"a": 0.3, "b": 0.6}}), seed=seed)
        codes = rng.integers(0, 2, 2000)
        positive = rng.random(2000) < np.where(codes == 0, 0.3, 0.6)
        alarms += len(
            stream.observe(rng.exponential(size=2000), rng.normal(size=2000), positive, {"g": codes})
        )
        for confidence in rng.uniform(0.5, 1.0, 500):
            alarms += len(stream.outcome(confidence, rng.random() < confidence))
    assert alarms <= 1  # 0.15 at most on average


def test_a_fixed_calibration_would_raise_false_alarms_where_this_test_does_not():
    rng = np.random.default_rng(4)
    fixed = moving = 0
    for seed in range(10):
        known, new = rng.exponential(size=100), rng.exponential(size=4000)
        wealth = Wealth(bets=4, alpha=0.01)
        p = (1 + (known[None, :] >= new[:, None]).sum(axis=1)) / 101
        p = np.clip(p - rng.random(4000) / 101, 1e-6, 1 - 1e-6)
        fixed += any(wealth.step([k * s ** (k - 1) for k in (0.2, 0.6) for s in (v, 1 - v)]) for v in p)
        moving += bool(ExchangeabilityTest(known, 0.01, seed).observe(new))
    assert fixed >= 2 > moving


@pytest.mark.parametrize("late", [0, 3000])
def test_a_planted_drift_is_found_soon_also_when_it_comes_late(late):
    rng = np.random.default_rng(5)
    stream = StreamMonitor(expected(rng))
    assert not stream.observe(rng.exponential(size=late), rng.normal(size=late))
    alarms = stream.observe(rng.exponential(2.0, size=500), rng.normal(size=500))
    assert [kind for kind, _ in alarms][:1] == ["drift"]
    assert late <= stream.events[0]["decision"] < late + 300


def test_drift_of_the_outputs_in_either_direction_is_found():
    for sign in (-1, 1):
        rng = np.random.default_rng(6)
        stream = StreamMonitor(expected(rng))
        alarms = stream.observe(rng.exponential(size=600), rng.normal(sign, 1, size=600))
        assert {kind for kind, _ in alarms} == {"predictions"}


def test_overconfidence_is_found_and_confidence_within_the_tolerance_is_not():
    rng = np.random.default_rng(7)
    stream = StreamMonitor(expected(rng))
    for confidence in rng.uniform(0.7, 1.0, 1500):
        assert not stream.outcome(confidence, rng.random() < confidence - 0.03)
    alarms = [a for c in rng.uniform(0.7, 1.0, 1500) for a in stream.outcome(c, rng.random() < c - 0.3)]
    assert {kind for kind, _ in alarms} == {"calibration"}


def test_a_group_whose_rate_moves_is_named():
    rng = np.random.default_rng(8)
    stream = StreamMonitor(expected(rng, {"sex": {"Female": 0.3, "Male": 0.3}}))
    codes = rng.integers(-1, 2, 3000)
    positive = rng.random(3000) < np.where(codes == 0, 0.6, 0.3)
    alarms = stream.observe(rng.exponential(size=3000), rng.normal(size=3000), positive, {"sex": codes})
    assert {message.split(" is")[0] for kind, message in alarms if kind == "rates"} == {
        "the rate of sex=Female"
    }
    shown = {rate["group"]: rate["windows"][0] for rate in stream.state()["rates"]}
    assert shown["Female"]["low"] < 0.6 < shown["Female"]["high"]
    assert shown["Male"]["n"] > 500


@pytest.mark.parametrize("interval", [True, False])
def test_a_rate_known_from_few_records_is_no_reason_for_an_alarm(interval):
    rng, alarms, streams = np.random.default_rng(1), 0, 30
    for _ in range(streams):
        positive = int(
            rng.binomial(100, 0.5)
        )  # the stream's rate is that of the population they are drawn from
        group = GroupRate(positive, 100, 0.02, 0.1, 1000)
        if not interval:
            group.low = group.high = group.expected
        alarms += any(group.observe(float(value)) for value in rng.random(2500) < 0.5)
    assert (alarms / streams <= 0.1) == interval


def test_nothing_is_spent_on_labels_that_never_come():
    rng = np.random.default_rng(0)
    with_them, without = StreamMonitor(expected(rng)), StreamMonitor(expected(rng), labels=False)
    assert with_them.drift.wealth.alpha == pytest.approx(0.01 / 3)
    assert without.drift.wealth.alpha == pytest.approx(0.01 / 2)
    assert "calibration" not in without.state()["p_values"]
    with pytest.raises(ConfigError, match="labels=True"):
        without.outcome(0.9, True)


def test_confidence_sequences_cover_at_all_times_and_shrink():
    rng, missed = np.random.default_rng(9), 0
    for _ in range(200):
        sequence, out = EmpiricalBernstein(alpha=0.1), False
        for value in rng.random(300) < 0.2:
            sequence.observe(float(value))
            low, high = sequence.interval
            out = out or not low <= 0.2 <= high
        missed += out
    assert missed / 200 <= 0.1
    assert high - low < 0.2


def test_an_interval_for_one_time_does_not_cover_at_all_times():
    rng, missed = np.random.default_rng(10), 0
    for _ in range(200):
        rate = np.cumsum(rng.random(300) < 0.2) / np.arange(1, 301)
        reach = stats.norm.ppf(0.95) * np.sqrt(0.2 * 0.8 / np.arange(1, 301))
        missed += bool((np.abs(rate - 0.2) > reach)[10:].any())
    assert missed / 200 > 0.2


def test_a_stream_goes_on_where_it_was_saved(tmp_path):
    rng = np.random.default_rng(11)
    rates = {"g": {"a": 0.3}}
    one = StreamMonitor(expected(rng, rates))
    x, y = rng.exponential(size=400), rng.normal(size=400)
    positive, codes = rng.random(400) < 0.3, np.zeros(400, np.int64)
    one.observe(x[:200], y[:200], positive[:200], {"g": codes[:200]})
    one.outcome(0.9, True)
    one.save(tmp_path / "stream.json")
    other = StreamMonitor.load(tmp_path / "stream.json")
    for stream in (one, other):
        stream.observe(x[200:], y[200:], positive[200:], {"g": codes[200:]})
    assert json.dumps(one.state()) == json.dumps(other.state())
    assert (one.drift.wealth.log_wealth, one.drift._counts) == (
        other.drift.wealth.log_wealth,
        other.drift._counts,
    )
    (tmp_path / "stream.json").write_text('{"format": "fedsafe.stream/1"}')
    with pytest.raises(RecordError, match="begin a new one"):
        StreamMonitor.load(tmp_path / "stream.json")


def test_state_does_not_grow(tmp_path):
    rng = np.random.default_rng(12)
    stream = StreamMonitor(expected(rng, {"g": {"a": 0.5}}), window=10)
    sizes = []
    for _ in range(3):
        positive, codes = rng.random(600) < 0.5, {"g": np.zeros(600, int)}
        stream.observe(rng.exponential(size=600), rng.normal(size=600), positive, codes)
        stream.save(tmp_path / "s")
        sizes.append((tmp_path / "s").stat().st_size)
    assert sizes[2] < 1.2 * sizes[0]


def test_a_guard_feeds_its_stream_and_labels_come_later():
    test = unseen()
    stream = open_stream(None, monitor(), table(), test.take(np.arange(700)))
    assert set(stream.rates) == {("sex", "Female"), ("sex", "Male")}
    found = guard(stream=stream)
    rest = test.take(np.arange(700, 1500))
    decisions = found.predict(rest.x)
    for decision, y in zip(decisions, rest.y, strict=True):
        if decision.answered:
            stream.label(decision.id, decision.label == table().classes[y])
    assert stream.label("unknown", True) == []
    assert stream.unmatched == 1
    state = stream.state()
    assert state["decisions"] == 800
    assert not state["events"]
    assert state["labels"]["matched"] == state["counts"]["answered"]
    moved = rest.x.copy()
    moved[:, 7:] = np.clip(moved[:, 7:] * 0.6, 0, 1)
    found.predict(moved)
    assert {event["kind"] for event in stream.events} >= {"drift"}
    value = found.figures.registry.get_sample_value
    assert value("fedsafe_guard_alerts_total", {"kind": "drift", "severity": "critical"}) >= 1


def test_wrong_streams_are_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(CalibrationError, match="50 finite scores"):
        ExchangeabilityTest([1.0] * 10, 0.01)
    with pytest.raises(ConfigError, match="alpha"):
        StreamMonitor(expected(rng), alpha=1.0)
    with pytest.raises(ConfigError, match="tolerance"):
        MeanTest(1.0, 0.01)
    with pytest.raises(ConfigError, match="100 known"):
        open_stream(None, monitor(), table(), draw(10, 0))
    with pytest.raises(ConfigError, match="open_stream"):
        StreamMonitor(expected(rng)).watch(unseen().x[:1], monitor().check(unseen().x[:1]), [])


def test_a_report_for_a_period_counts_what_the_log_says(tmp_path):
    log = DecisionLog(tmp_path / "log.jsonl", bytes(32), model="c" * 64)
    found = guard(log=log)
    decisions = found.predict(unseen().x[:100])
    log.append(decisions[:10], unseen().x[:10], seconds=86400.0)
    log.note("alert", {"alert": "drift", "message": "changed"})
    found.close()
    report = period_report(tmp_path / "log.jsonl", since=datetime(2020, 1, 1))
    assert report.decisions == 100
    assert report.answered == sum(d.answered for d in decisions)
    assert report.alerts == {"drift": 1}
    assert report.starts == 1
    assert report.models == ("c" * 16,)
    old = period_report(tmp_path / "log.jsonl", until=datetime(2020, 1, 1, tzinfo=UTC))
    assert old.decisions == 10
    assert old.starts == 0
    stream = open_stream(None, monitor(), table(), unseen())
    stream.observe(*stream.reader.read(unseen().x, monitor().check(unseen().x)))
    text = period_report(tmp_path / "log.jsonl", stream=stream.state()).to_markdown()
    assert "Decisions: 110" in text
    assert "drift: 1" in text
    assert "| sex=Female |" in text
    json.dumps(report.to_json())
    with pytest.raises(ConfigError, match="empty"):
        period_report(tmp_path / "log.jsonl", since=datetime(2021, 1, 1), until=datetime(2020, 1, 1))
    with pytest.raises(RecordError, match="cannot be read"):
        period_report(tmp_path / "none")
