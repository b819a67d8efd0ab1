"""The page of a comparison: complete, self-contained, safe against hostile text, and readable without colour."""

import copy
import json
import math
import re

import pytest
from test_report_page import Page
from tiny_federation import config

from fedsafe.report.comparison import closing_rows, render_comparison, time_rows
from fedsafe.runs import make_config
from fedsafe.runs.compare import run_comparison
from fedsafe.runs.comparison import CLIPPED, Comparison

HOSTILE = '</style><script>alert("$x^{")</script>&amp;'


@pytest.fixture(scope="module")
def body(tmp_path_factory):
    # Enough records for a group to be measured.
    task = {"name": "tiny_federation:task", "evaluation": 800}
    judged = ["performance", "fairness"]
    base = make_config(config(task=task, privacy__noise_key="seed", assess__assessors=judged))
    comparison = Comparison(
        base=base,
        epsilons=(0.1, 0.3, CLIPPED, math.inf),
        seeds=2,
        grid={"client.optimizer.lr": ["0.1", "1.0"]},
    )
    return run_comparison(comparison, tmp_path_factory.mktemp("comparison"))


@pytest.fixture(scope="module")
def html(body):
    return render_comparison(body, "fedsafe compare tiny.toml")


def figures(html):
    return re.findall(r"<figure>.*?</figure>", html, flags=re.DOTALL)


def test_the_page_stands_alone(html):
    page = Page(html)
    assert len(page.ids) == len(set(page.ids))
    assert all(target.startswith("#") for target in page.targets)
    assert {target[1:] for target in page.targets} <= set(page.ids)
    assert not page.handlers
    assert "script" not in page.names


def test_every_plot_has_a_claim_units_directions_and_a_reading(html):
    curves = figures(html)
    assert len(curves) > 4
    for figure in curves:
        assert re.search(r"(higher|lower) is better|no direction is better", figure)
        caption = re.search(r"<figcaption><b>(.+?)</b>", figure, flags=re.DOTALL)
        assert caption is not None
        assert caption[1].strip().endswith(".")
        if "epsilon per record and per client" in figure:
            assert 'href="#claim"' in figure
            assert "lower protects more" in figure
            assert "simulated, no guarantee" in figure
            for text in ("delta 1e-5", "delta 0.001", "zero-out adjacency", "against"):
                assert text in figure


def test_what_has_no_budget_is_named_and_stands_apart(html):
    (accuracy,) = (figure for figure in figures(html) if "<h3>Accuracy</h3>" in figure)
    for text in ("no", "privacy", "clipped,", "no noise"):
        assert f">{text}</text>" in accuracy


def test_series_differ_in_line_and_marker(html):
    (accuracy,) = (figure for figure in figures(html) if "<h3>Accuracy</h3>" in figure)
    assert "client.optimizer.lr = 0.1" in accuracy
    assert "stroke-dasharray" in accuracy


def test_the_whole_claim_and_the_cost_of_everything_are_said(html):
    for text in (
        "What an epsilon on this page says",
        "Simulated: no guarantee",
        "Not covered:",
        "Publishing all of it",
        "runs with a guarantee cost",
        "with their models published",
        "Suspicion of one half becomes",
        "Where the time went",
    ):
        assert text in html


def test_who_pays_is_named(html):
    assert re.search(r"At epsilon 0\.1, (Female|Male) pays most", html)


def test_names_from_outside_are_text(body):
    hostile = json.loads(json.dumps(body).replace("Female", HOSTILE.replace('"', '\\"')))
    hostile["task"] = HOSTILE
    page = Page(render_comparison(hostile, HOSTILE))
    assert "script" not in page.names


@pytest.mark.parametrize("missing", ["inf", "all but one budget", "one seed", "no groups"])
def test_a_page_can_be_made_of_less(body, missing):
    less = copy.deepcopy(body)
    keep = {"inf": ["0.1", "0.3"], "all but one budget": ["0.1"]}.get(missing)
    for curve in (*less["curves"], *less["groups"]):
        if keep:
            curve["points"] = [point for point in curve["points"] if point["epsilon"] in keep]
        for point in curve["points"]:
            if keep:
                point["lost"] = None
            if missing == "one seed":
                point |= {"low": None, "high": None}
                point["lost"] = point["lost"] and {**point["lost"], "low": None, "high": None}
    if keep:
        less["settings"]["epsilons"] = keep
        less["fronts"] = []
    if missing == "one seed":
        less["settings"]["seeds"] = 1
        for choice in less["choices"]:
            choice |= {"trend": None, "enough": None}
    if missing == "no groups":
        less["groups"] = []
    Page(render_comparison(less))


def test_the_command_ends_with_the_same_figures(body):
    heads, rows = closing_rows(body)
    assert heads[:2] == ["runs", "budget"]
    assert len(rows) == 2 * 4
    assert all(len(row) == len(heads) for row in rows)
    _, times = time_rows(body)
    whole = sum(float(seconds) for _, seconds in times)
    assert whole == pytest.approx(body["time"]["processors"], rel=0.1, abs=1.0)


# Budgets of several units, audited.


@pytest.fixture(scope="module")
def by_unit(tmp_path_factory):
    base = make_config(config(privacy__noise_key="seed", audit={"every": 3, "canaries": 60}))
    comparison = Comparison(base=base, epsilons=(0.1, math.inf), seeds=1, grid={"unit": ["record", "client"]})
    return run_comparison(comparison, tmp_path_factory.mktemp("units"))


def test_unlike_budgets_stand_on_axes_of_their_own_with_the_difference_named(by_unit):
    html = render_comparison(by_unit, "fedsafe compare tiny.toml")
    Page(html)
    for text in ("Axis 1: unit = record", "Axis 2: unit = client", "unit (client, against record)"):
        assert text in html
    for unit, other in (("record", "client"), ("client", "record")):
        (figure,) = (found for found in figures(html) if f"<h3>Accuracy, unit = {unit}</h3>" in found)
        assert f"epsilon per {unit}; lower protects more" in figure
        assert f"epsilon per {other}" not in figure


def test_what_canaries_prove_stands_beside_what_is_accounted_for(by_unit, html):
    (figure,) = (found for found in figures(render_comparison(by_unit)) if "Per record, gradient" in found)
    for text in ("canaries prove at least", "accounted at most", "At epsilon 0.1", "unit = record"):
        assert text in figure
    # Without an audit the page says how to ask for one.
    assert "[audit]" in html
    assert "canaries prove at least" not in html


def test_how_a_run_is_repeated_alone_is_said(html):
    assert "fedsafe run configurations/NAME.toml" in html
    assert "to the last bit" in html
