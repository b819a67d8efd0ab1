"""A comparison: any two measures by a form, with what they say; and one that cannot be read says why."""

import json
import re

import fixture_comparison
import pytest

from fedsafe.ui.axes import axes, on_panel, panels, pick, plain_svg, short_claim


@pytest.fixture
def undrawn(monkeypatch):
    """Plots take their time, and some tests are about the words beside them."""
    for name in ("budget_plot", "front_plot"):
        monkeypatch.setattr(f"fedsafe.ui.axes.{name}", lambda *given, **named: f"<svg>{given}{named}</svg>")


@pytest.mark.parametrize(
    ("x", "y"), [("epsilon", "accuracy"), ("ece", "stability"), ("spread", "groups sex")]
)
def test_a_plot_has_units_and_directions(x, y):
    shown = pick(fixture_comparison.body(), x, y)
    assert "is better" in shown.svg
    assert "style=" not in shown.svg
    assert ("epsilon per record; lower protects more" in shown.svg) == (shown.x == "epsilon")


def test_every_pair_of_axes_has_units_directions_a_reading_and_a_table(undrawn):
    body = fixture_comparison.body()
    horizontal, vertical = axes(body)
    assert {choice.value for choice in vertical} >= {"accuracy", "ece", "groups sex"}
    for x in horizontal:
        for y in vertical:
            shown = pick(body, x.value, y.value)
            assert "better" in shown.svg
            assert shown.reading.endswith(".")
            assert shown.rows


def test_the_front_is_what_no_other_beats_in_both(undrawn):
    body = fixture_comparison.body()
    # More accuracy costs calibration here: every budget is on the front. The other way round only one is.
    assert [row[-1] for row in pick(body, "ece", "accuracy").rows] == ["yes", "yes", "yes"]
    body["curves"][1]["direction"] = "higher"
    assert [row[-1] for row in pick(body, "ece", "accuracy").rows] == ["no", "no", "yes"]
    assert "no front" in pick(body, "spread", "accuracy").reading
    assert len(pick(body, "stability", "accuracy").rows) == 2


def test_an_interval_stays_where_the_measure_can_be(undrawn):
    body = fixture_comparison.body()
    body["curves"][1]["points"][0]["low"] = -0.4
    assert pick(body, "epsilon", "ece").rows[0][2] == "[0.0, 7.0] %"


def test_who_pays_is_said(undrawn):
    shown = pick(fixture_comparison.body(), "epsilon", "groups sex")
    assert re.search(r"At epsilon 1, (Male|Female) pays most", shown.reading)
    assert len(shown.rows) == 6


def test_what_is_not_there_is_replaced(undrawn):
    assert (
        pick(fixture_comparison.body(), "nothing", "<b>").x,
        pick(fixture_comparison.body(), "x", "y").y,
    ) == (
        "epsilon",
        "accuracy",
    )


def unlike_claims():
    """The budgets of one series are for a record, those of the other for a client."""
    body = fixture_comparison.body()
    series = [{"unit": "record"}, {"unit": "client"}]
    for curve in (*body["curves"], *body["groups"]):
        curve["points"] = [{**point, "series": one} for one in series for point in curve["points"]]
    body["settings"] |= {
        "series": series,
        "units": ["record", "client"],
        "panels": [{"units": [one["unit"]], "series": [one], "differs": ""} for one in series],
    }
    body["axis"] = [
        {**body["axis"][0], "unit": one["unit"], "panel": place} for place, one in enumerate(series)
    ]
    return body


def test_unlike_claims_stand_on_no_common_axis(undrawn):
    body = unlike_claims()
    assert [choice.title for choice in panels(body)] == ["unit = record", "unit = client"]
    for place, mine, other in (
        ("0", "record", "client"),
        ("1", "client", "record"),
        ("7", "record", "client"),
    ):
        here = on_panel(body, place)
        assert f"per {mine}" in short_claim(here)
        assert f"per {other}" not in short_claim(here)
        for x, y in (("epsilon", "accuracy"), ("ece", "accuracy"), ("epsilon", "groups sex")):
            shown = pick(here, x, y)
            assert f"unit = {mine}" in repr(shown)
            assert f"{other}" not in repr(shown)
    assert panels(fixture_comparison.body()) == []


def test_the_page_asks_which_axis_where_claims_are_unlike(tmp_path, serve, undrawn):
    fixture_comparison.build(tmp_path / "units", **unlike_claims())
    page = serve(tmp_path)
    text = page.get("/comparison/units?of=1").text
    assert '<option value="1" selected>unit = client</option>' in text
    assert "epsilon per client at delta" in text
    assert "epsilon per record at delta" not in text


def test_a_plot_keeps_its_looks_without_style_attributes():
    assert plain_svg('<path style="fill: none; stroke: var(--main)" d="M"/>') == (
        '<path fill="none" stroke="var(--main)" d="M"/>'
    )


def test_the_page_has_a_form_the_claim_and_downloads(tmp_path, serve):
    folder = fixture_comparison.build(tmp_path / "adult")
    page = serve(tmp_path)
    assert "/comparison/adult" in page.get("/").text
    text = page.get("/comparison/adult?x=ece&y=accuracy").text
    assert re.search(r'<form method="get" action="/comparison/adult#plot"', text)
    assert '<option value="ece" selected>' in text
    assert "epsilon per record at delta 1e-5, zero-out adjacency, against the server" in text
    assert "how many records a client holds" in text
    for name in ("runs.csv", "runs.parquet", "comparison.json", "comparison.html"):
        answer = page.get(f"/files/adult/{name}")
        assert answer.body == (folder / name).read_bytes()
    assert page.get("/files/adult/cells").status == 404


BROKEN = {
    "another schema": {"schema": "fedsafe.comparison/7"},
    "no settings": {"settings": None},
    "odd curves": {"curves": [{"key": 1}]},
    "no curves": {"curves": [], "groups": []},
    "odd axis": {"axis": "x"},
    "odd epsilons": {"settings": {**fixture_comparison.body()["settings"], "epsilons": ["many"]}},
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_comparison_says_so_and_breaks_nothing_else(tmp_path, serve, undrawn, how):
    fixture_comparison.build(tmp_path / "broken", **BROKEN[how])
    fixture_comparison.build(tmp_path / "good")
    page = serve(tmp_path)
    for path in ("/", "/comparison/broken", "/comparison/good"):
        assert page.get(path).status == 200
    if how != "no curves":
        assert "cannot be shown" in page.get("/comparison/broken").text


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00", '{"schema": "fedsafe.comparison/1"'])
def test_half_a_summary_is_said(tmp_path, serve, undrawn, text):
    fixture_comparison.build(tmp_path / "half")
    (tmp_path / "half" / "comparison.json").write_text(text)
    page = serve(tmp_path)
    assert "comparison.json is" in page.get("/").text
    assert page.get("/comparison/half").status == 200


def test_one_in_progress_and_one_of_finished_runs(tmp_path, serve):
    (tmp_path / "going" / "cells").mkdir(parents=True)
    runs = {"schema": "fedsafe.comparison-of-runs/1", "task": "adult", "runs": [{"name": "a"}, {"name": "b"}]}
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "comparison.json").write_text(json.dumps(runs))
    (tmp_path / "two" / "comparison.html").write_text("x")
    grid = {
        "task": "adult",
        "runs": 8,
        "settings": {"attacks": ["a"], "aggregators": ["b", "c"]},
        "created": "2026",
    }
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "grid.json").write_text(json.dumps(grid))
    (tmp_path / "grid" / "byzantine.html").write_text("attacked")
    page = serve(tmp_path)
    text = page.get("/").text
    assert "in progress, or interrupted" in text
    assert "finished runs beside each other: a, b" in text
    assert "8 runs: 1 attacks on 2 rules" in text
    assert page.get("/comparison/going").status == 200
    assert "/files/two/comparison.html" in page.get("/comparison/two").text
    assert page.get("/files/grid/byzantine.html").text == "attacked"
