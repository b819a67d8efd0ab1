"""Numbers and rows as the report and the command line show them."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from fixture_findings import EXAMPLES
from fixture_run import FixtureRun
from matplotlib.figure import Figure

from fedsafe.findings import wilson
from fedsafe.report import closing_table, formats, plots, read_run, render
from fedsafe.report.card import render_card
from fedsafe.report.cells import finding_cell, latest_findings, scorecard
from fedsafe.report.tables import headline
from fedsafe.store import RunFolder


def test_an_epsilon_is_never_rounded_down():
    for value in np.random.default_rng(0).lognormal(0, 3, 2000):
        shown = formats.epsilon(float(value))
        assert float(shown) >= value
        assert float(shown) <= value * 1.001


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2.99871, "2.999"),
        (7.99312, "7.994"),
        (0.1, "0.1"),
        (3.0, "3.0"),
        (2.99961, "3.000"),
        (12345.6, "12350"),
        (0.0, "0"),
    ],
)
def test_an_epsilon_has_at_most_four_digits_and_a_short_one_stays(value, shown):
    assert formats.epsilon(value) == shown


@pytest.mark.parametrize("value", [None, math.inf, math.nan])
def test_an_epsilon_without_a_bound_is_none_in_words(value):
    assert formats.epsilon(value) == "none"


def test_numbers_shares_deltas_and_moments():
    assert formats.number(1234567) == "1,234,567"
    assert formats.number(0.123456) == "0.1235"
    assert formats.number(None) == formats.ABSENT
    assert formats.share(0.8395) == "84.0 %"
    assert formats.share(None) == formats.ABSENT
    assert formats.delta(1e-5) == "1e-5"
    assert formats.delta(0.001) == "0.001"
    assert formats.delta(1e-10) == "1e-10"
    assert formats.moment("2026-01-02T03:04:05+00:00") == "2026-01-02 03:04 UTC"
    assert formats.moment("yesterday") == "yesterday"


def test_intervals_with_an_open_end_say_unbounded():
    assert formats.interval([0.5, 0.75], "share") == "[50.0, 75.0] %"
    assert formats.interval([0.5, None], "") == "[0.5, unbounded]"
    assert formats.interval(None, "share") == ""


def test_slices_are_named_in_words():
    assert formats.where({"attribute": "sex", "group": "Female"}) == "sex: Female"
    assert formats.where({"attribute": "sex"}) == "sex"
    assert formats.where({"attack": "pgd", "radius": 0.1}) == "attack pgd, radius 0.1"
    assert formats.where({"explainer": "integrated_gradients"}) == "explainer integrated gradients"
    assert formats.where({"attribute": "job", "group": "a_b"}) == "job: a_b"
    assert formats.where({}) == ""


def test_a_whisker_places_value_interval_and_anchor_on_its_axis():
    svg = plots.whisker(0.5, (0.25, 0.75), low=0.0, high=1.0, anchors=[1.0])
    bar = re.search(r'class="bar" x1="([\d.]+)" x2="([\d.]+)"', svg)
    dot = re.search(r'cx="([\d.]+)"', svg)
    assert [float(bar[1]), float(bar[2])] == [49.0, 141.0]
    assert float(dot[1]) == 95.0
    assert 'class="anchor" x1="187.0"' in svg
    assert 'class="empty"' not in svg


def test_what_was_not_measured_is_drawn_empty_and_not_at_zero():
    svg = plots.whisker(None, None, low=0.0, high=1.0)
    assert 'class="empty"' in svg
    assert "circle" not in svg
    assert "circle" in plots.whisker(0.0, None, low=0.0, high=1.0)


def test_an_open_end_of_a_whisker_runs_to_the_edge():
    svg = plots.whisker(0.5, (0.25, None), low=0.0, high=1.0)
    assert 'class="bar" x1="49.0" x2="187.0"' in svg


def test_plots_follow_the_page_and_keep_text_as_text():
    svg = plots.learning_plot([1, 2, 3], [0.5, None, 0.7], label="accuracy", anchors={"$a_{": 0.4})
    assert svg.startswith("<svg")
    assert svg.endswith("</svg>")
    assert "var(--main)" in svg
    assert ">$a_{</text>" in svg
    assert "#0a0b" not in svg
    assert "<style" not in svg


def test_a_plot_of_values_that_are_all_missing_is_drawn():
    assert "<svg" in plots.learning_plot([1, 2], [None, None], label="loss")


def test_glyphs_that_no_font_here_has_do_not_warn():
    assert "職業" in plots.bars_plot(["職業"], [1.0], intervals=[(None, None)], label="x")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return FixtureRun().build(tmp_path_factory.mktemp("values") / "full")


def test_the_accuracy_takes_the_interval_of_the_finding_that_measured_the_same_model(full):
    shown = headline(read_run(full))
    value, ends, note = shown.value, shown.interval, shown.note
    expected = formats.interval(wilson(round(FixtureRun().accuracy(40) * EXAMPLES), EXAMPLES), "share")
    assert (value, ends) == ("83.9 %", expected)
    assert note.startswith("95 % Wilson, n = 16,281 examples; UCI Adult test split (public)")


def test_the_accuracy_on_preferences_takes_the_interval_that_draws_people(full):
    reading = read_run(full)
    value = next(f for f in reversed(reading.findings) if f["metric"] == "performance.accuracy")["value"]
    people = {
        "metric": "alignment.accuracy",
        "status": "measured",
        "value": value,
        "interval": [value - 0.05, value + 0.05],
        "interval_method": "bootstrap over annotators",
        "confidence": 0.95,
        "n": 900,
        "n_unit": "pairs",
    }
    shown = headline(replace(reading, findings=[*reading.findings, people]))
    assert shown.interval == formats.interval(people["interval"], "share")
    assert "bootstrap over annotators, n = 900 pairs" in shown.note


def test_an_accuracy_that_no_finding_measured_has_wilsons_interval(tmp_path):
    run = FixtureRun(rounds=13, ended=None)
    shown = headline(read_run(run.build(tmp_path / "run")))
    value, ends, note = shown.value, shown.interval, shown.note
    k = round(run.accuracy(13) * EXAMPLES)
    assert value == formats.share(k / EXAMPLES)
    assert ends == formats.interval(wilson(k, EXAMPLES), "share")
    assert "95 % Wilson, n = 16,281 records" in note


def test_the_latest_finding_of_each_slice_counts(full):
    reading = read_run(full)
    latest = latest_findings(reading)
    assert {finding["round"] for finding in latest} == {40}
    assert len(latest) * 4 == len(reading.findings)


def test_the_scorecard_has_every_finding_that_is_not_of_a_single_group(full):
    latest = latest_findings(read_run(full))
    card = scorecard(latest)
    assert list(card) == ["performance", "fairness", "robustness", "interpretability", "privacy"]
    shown = sum(len(block.cells) for blocks in card.values() for block in blocks)
    assert shown == sum("group" not in finding["where"] for finding in latest)


def test_a_metric_that_is_not_registered_here_is_shown_as_it_is():
    cell = finding_cell(
        {"metric": "plugin.odd_thing", "status": "measured", "value": 2.5, "interval": [2, None]}
    )
    assert (cell.title, cell.value, cell.interval, cell.about) == ("Odd thing", "2.5", "[2, unbounded]", "")


def test_the_closing_table_has_accuracy_claims_main_findings_and_verdicts(full):
    rows = closing_table(full)
    by_name = {row.name: row for row in rows}
    assert [row.section for row in rows][:4] == ["result", "result", "claim", "claim"]
    assert by_name["accuracy"].value == "83.9 %"
    assert by_name["rounds"].status == "completed"
    assert by_name["epsilon per record"].value == "2.999"
    assert by_name["epsilon per record"].detail.startswith("delta = 1e-5, zero-out")
    assert by_name["performance.accuracy ≥ 0.8"].value == "pass"
    verdicts = [row.value for row in rows if row.section == "requirement"]
    assert verdicts == ["pass", "undecided", "fail", "unmeasured"]


def test_the_closing_table_shows_the_worst_slice_and_counts_what_was_not_measured(full):
    rows = {row.name: row for row in closing_table(full)}
    attacked = rows["attacked accuracy (attack pgd, norm linf, radius 0.5)"]
    assert attacked.value == formats.share(round(2000 * (FixtureRun().accuracy(40) - 0.75)) / 2000)
    assert attacked.detail.endswith("worst of 10, 1 not measured")
    assert rows["demographic parity difference (age)"].value == "20.2 %"


def test_a_worst_tenth_that_luck_alone_would_give_is_said_once(tmp_path):
    path = FixtureRun(rounds=10).build(tmp_path / "run")
    file = path / "findings.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    last = next(line for line in reversed(lines) if line["value"] is not None and not line["where"])
    of_clients = {**last, "metric": "performance.worst_decile_accuracy", "value": 0.4}
    of_people = {
        **of_clients,
        "metric": "alignment.worst_decile_accuracy",
        "diagnostics": {"explained_by_luck": True},
    }
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines, of_clients, of_people]))
    rows = [row for row in closing_table(path) if row.name.startswith("worst decile accuracy")]
    assert len(rows) == 1
    assert "as luck alone would give" in rows[0].detail


def test_the_closing_table_of_an_unfinished_run_without_a_claim(tmp_path):
    path = FixtureRun(rounds=0, ended=None, record_epsilon=None).build(tmp_path / "run")
    rows = {row.name: row for row in closing_table(path)}
    assert rows["accuracy"].value == formats.ABSENT
    assert rows["rounds"].status == "unfinished"
    assert rows["epsilon per record"].value == "none"
    assert rows["epsilon per record"].detail == "no guarantee at this level"


def test_a_metric_that_was_never_measured_is_a_row_with_its_reason(tmp_path):
    path = FixtureRun(rounds=10).build(tmp_path / "run")
    run = RunFolder.open(path)
    run.truncate_after("findings.jsonl", lambda line: line["status"] == "unreliable")
    row = next(row for row in closing_table(path) if row.section == "finding")
    assert (row.value, row.status) == (formats.ABSENT, "unreliable")
    assert "PGD missed" in row.detail


def emptied(value, names, key=""):
    """A copy whose numbers under any of these keys are None; with no keys, all numbers."""
    if isinstance(value, dict):
        return {name: emptied(entry, names, name) for name, entry in value.items()}
    if isinstance(value, list):
        return [emptied(entry, names, key) for entry in value]
    number = isinstance(value, int | float) and key != "round"
    return None if number and (not names or key in names) else value


@pytest.mark.parametrize(
    "names",
    [
        (),
        ("value",),
        ("interval",),
        ("mean_abs",),
        ("low", "high"),
        ("quantiles",),
        ("clean", "chance"),
        ("n",),
    ],
)
def test_report_card_and_closing_table_survive_numbers_that_are_none(full, names, monkeypatch):
    if names:  # one page is drawn; of the others, figures are made and not put on paper
        monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write("<svg></svg>"))
    reading = read_run(full)
    lines = [emptied(dict(line), names) for line in reading.findings]
    assert lines != list(reading.findings)
    with_none = replace(reading, findings=tuple(lines))
    assert "Scorecard" in render(with_none)
    assert "## Evaluation" in render_card(with_none)


def test_a_run_whose_findings_have_no_value_at_all_closes_with_a_table(tmp_path):
    path = FixtureRun(rounds=10).build(tmp_path / "run")
    run = RunFolder.open(path)
    lines = [emptied(line, ()) for line in run.read("findings.jsonl")]
    run.truncate_after("findings.jsonl", lambda line: False)
    for line in lines:
        run.append("findings.jsonl", line)
    shown = [row.value for row in closing_table(path) if row.section == "finding"]
    assert shown
    assert set(shown) == {formats.ABSENT}


def test_an_error_in_the_targets_own_unit_names_that_unit(full):
    finding = {
        "assessor": "performance",
        "metric": "performance.mae",
        "status": "measured",
        "round": 40,
        "value": 4.25,
        "interval": [4.0, 4.5],
        "anchors": {"predicting_the_median": 9.5},
        "detail": {"target": "pressure", "unit": "mmHg"},
    }
    cell = finding_cell(finding)
    assert (cell.value, cell.interval) == ("4.25 mmHg", "[4, 4.5] mmHg")
    assert cell.note == "predicting the median: 9.5 mmHg"
    reading = replace(read_run(full), findings=(finding,))
    assert "4.25 mmHg" in render(reading)
    assert "4.25 mmHg" in render_card(reading)
    missing = finding_cell({**finding, "status": "failed", "value": None, "interval": None})
    assert (missing.value, missing.interval) == (formats.ABSENT, "")
    unnamed = finding_cell({**finding, "detail": {"unit": ""}})
    assert unnamed.value == "4.25"


def test_the_loss_of_a_regression_is_in_encoded_units(full):
    reading = replace(read_run(full), findings=())
    assert "encoded units (the target" not in render(reading)
    numbers = replace(
        reading, start=replace(reading.start, task={**reading.start.task, "kind": "regression"})
    )
    assert "Mean loss, in encoded units (the target" in render(numbers)
