"""The pages on areas show what findings carry, in words too, and survive what they do not know."""

import base64
import re
from typing import Any

import numpy as np
import pytest

from fedsafe.findings import picture
from fedsafe.report.areas import Area, areas
from fedsafe.report.assessment import render_assessment
from fedsafe.report.pictures import galleries


def finding(
    assessor: str, metric: str, value: float | None, where: Any = None, **more: Any
) -> dict[str, Any]:
    return {
        "assessor": assessor,
        "metric": metric,
        "where": where or {},
        "status": "measured" if value is not None else "insufficient",
        "value": value,
        "interval": None if value is None else [max(0.0, value - 0.05), min(1.0, value + 0.05)],
        "detail": {"reason": "too few"} if value is None else {},
        **more,
    }


def attacked(radius: float, value: float, **more: Any) -> dict[str, Any]:
    place = {"attack": "worst", "norm": "linf", "radius": radius}
    return finding("robustness", "robustness.attacked_accuracy", value, place, anchors={"clean": 0.9}, **more)


def certified(method: str, radius: float, value: float) -> dict[str, Any]:
    place = {"method": method, "norm": "linf", "radius": radius}
    return finding("certified", "certified.accuracy", value, place)


def shown(findings: list[dict[str, Any]]) -> dict[str, Area]:
    return {area.id: area for area in areas(findings)}


def test_a_bracket_says_what_is_proven_and_what_withstood() -> None:
    found = [attacked(0.1, 0.8), attacked(0.2, 0.6), certified("ibp", 0.2, 0.1), certified("crown", 0.2, 0.4)]
    (figure,) = shown(found)["robustness"].figures
    assert "At radius 0.2, 40.0 % of the examples are proven" in figure.reading
    assert "60.0 % withstood" in figure.reading
    for words in (
        "CROWN (lower bound)",
        "IBP (lower bound)",
        "worst attack (upper bound)",
        "unchanged inputs, 90.0 %",
    ):
        assert words in figure.svg


def test_a_smoothed_curve_shows_its_intervals_and_says_on_how_many_examples() -> None:
    curve = [
        {"radius": radius, "certified": share, "low": share - 0.1, "high": share + 0.05}
        for radius, share in ((0.0, 0.9), (0.3, 0.7), (0.6, 0.2))
    ]
    place = {"method": "smoothing", "norm": "l2", "scale": 0.25}
    found = [finding("certified", "certified.mean_radius", 0.4, place, detail={"curve": curve}, n=1200)]
    (figure,) = shown(found)["robustness"].figures
    assert "share of 1,200 examples" in figure.reading
    assert "95 % interval" in figure.reading
    assert "FillBetweenPolyCollection" in figure.svg
    # A curve of an older record has none, and is drawn all the same.
    for row in curve:
        del row["low"], row["high"]
    (figure,) = shown(found)["robustness"].figures
    assert "FillBetweenPolyCollection" not in figure.svg


def test_no_label_of_a_legend_is_cut_and_none_lies_on_the_lines() -> None:
    own = "somebody.elses.package:a_bound_with_a_long_name"
    found = [attacked(0.01, 0.8), attacked(0.2, 0.6), certified(own, 0.01, 0.5), certified(own, 0.2, 0.1)]
    (figure,) = shown(found)["robustness"].figures
    assert f"{own} (lower bound)" in figure.svg
    texts = re.findall(r'<text [^>]* y="([\d.]+)"[^>]*>([^<]*)<', figure.svg)
    heights = {words: float(height) for height, words in texts}
    lower, axis = heights[f"{own} (lower bound)"], heights["radius, in units of the encoded features"]
    assert lower > axis  # downwards


def test_of_several_attacks_the_worst_is_drawn() -> None:
    weak = {**attacked(0.1, 0.85), "where": {"attack": "fgsm", "norm": "linf", "radius": 0.1}}
    for order in ([weak, attacked(0.1, 0.7)], [attacked(0.1, 0.7), weak]):
        (figure,) = shown(order)["robustness"].figures
        assert "70.0 % of the examples withstood" in figure.reading


def test_lines_differ_without_colour() -> None:
    found = [attacked(0.1, 0.8), attacked(0.2, 0.6), certified("ibp", 0.2, 0.1), certified("ibp", 0.1, 0.3)]
    (figure,) = shown(found)["robustness"].figures
    dashes = set(re.findall(r"stroke-dasharray: ([^;\"]+)", figure.svg))
    assert len(dashes) >= 2


def test_corruptions_name_the_worst_and_the_baseline() -> None:
    rows = [
        {"corruption": "fog", "error": 0.6, "low": 0.5, "high": 0.7, "baseline_error": 0.7},
        {"corruption": "shear", "error": 0.1, "low": 0.05, "high": 0.2, "baseline_error": None},
    ]
    detail = {"table": rows, "baseline": "ridge on 400 other records"}
    found = [finding("corruptions", "corruptions.relative_error", 0.5, detail=detail)]
    (figure,) = shown(found)["robustness"].figures
    assert "fog makes the model err on 60.0 %" in figure.reading
    assert "ridge on 400 other records" in figure.svg


def test_groups_name_the_ends_and_leave_intersections_to_the_tables() -> None:
    def rate(attribute: str, group: str, value: float | None) -> dict[str, Any]:
        return finding("fairness", "fairness.accuracy", value, {"attribute": attribute, "group": group})

    found = [
        rate("sex", "F", 0.9),
        rate("sex", "M", 0.8),
        rate("race", "A", None),
        rate("sex & race", "F & A", 0.1),
    ]
    (figure,) = shown(found)["groups-shown"].figures
    assert "lowest for sex: M (80.0 %) and highest for sex: F (90.0 %)" in figure.reading
    assert "F & A" not in figure.svg


def test_rules_are_text() -> None:
    rules = [{"if": "age > 30", "then": ">50K", "share": 0.25, "conditions": 1}]
    found = [finding("surrogate", "surrogate.rules", 1.0, detail={"rules": rules})]
    assert shown(found)["explanations"].rules == (("age > 30", ">50K", "25.0 % of the examples"),)


def test_a_curve_stands_beside_its_control() -> None:
    curve = [{"share": s, "probability": 1 - s, "random": 1 - s / 2} for s in (0.0, 0.5, 1.0)]
    place = {"explainer": "lime", "baseline": "zero"}
    found = [
        finding("interpretability", "interpretability.deletion_auc", 0.3, place, detail={"curve": curve})
    ]
    (figure,) = shown(found)["explanations"].figures
    assert "a random order" in figure.svg
    assert "below the random order" in figure.reading


def test_an_attack_on_members_is_drawn_with_chance() -> None:
    curve = [{"false_positive_rate": f, "true_positive_rate": min(1.0, 3 * f)} for f in (0.01, 0.1, 1.0)]
    found = [finding("membership", "membership.auc", 0.7, detail={"curve": curve}, resolution=0.01)]
    (figure,) = shown(found)["attacks"].figures
    assert "chance" in figure.svg


def test_preferences_say_plainly_whether_they_are_chance_and_where_choosing_harder_turns() -> None:
    reading = "The accuracy is 0.512, its 95 % interval over items 0.470 to 0.554: at chance."
    curve = [{"n": n, "gain": n / 8, "low": n / 9, "high": n / 7, "best": n / 4} for n in (1, 2, 4)]
    found = [
        finding("alignment", "alignment.accuracy", 0.512),
        finding("alignment", "alignment.human_ceiling", 0.77),
        finding("alignment", "alignment.worst_decile_accuracy", 0.42, anchors={"annotators_alike": 0.43}),
        finding("alignment", "alignment.group_accuracy", 0.5, {"attribute": "age", "group": "30-39"}),
        finding("alignment", "alignment.gain_over_chance", 0.012, detail={"reading": reading}),
        finding(
            "alignment",
            "alignment.over_optimisation",
            0.25,
            {"n": 4},
            detail={"curve": curve, "compared_with_n": 1, "turns_down": False},
        ),
        *(
            finding("preference_poisoning", "preference_poisoning.accuracy", value, {"share": share})
            for share, value in ((0.0, 0.7), (0.5, 0.4))
        ),
    ]
    agreed, chosen, poisoned = shown(found)["alignment"].figures
    assert reading in agreed.reading
    for words in ("this model", "other people, of each person", "age: 30-39"):
        assert words in agreed.svg
    assert "does not surely serve people worse" in chosen.reading
    assert "served alike, luck would leave it 43.0 %" in agreed.reading
    assert "a coin" in poisoned.svg


def test_pictures_are_in_the_page_and_have_words() -> None:
    pictures = [
        [
            picture("as it is", np.eye(4)),
            picture("change", np.eye(4) - 0.5, scale="signed", note="taken for 3"),
        ]
    ]
    page = render_assessment("a model", "full tier", [attacked(0.1, 0.5, detail={"pictures": pictures})], [])
    sources = re.findall(r'<img class="record" src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert [words for _, words in sources] == [
        "as it is (black 0, white 1)",
        "change, taken for 3 (black -0.5, white 0.5, grey 0)",
    ]
    assert all(base64.b64decode(body).startswith(b"\x89PNG") for body, _ in sources)


def test_pictures_have_a_heading_and_say_how_to_read_them() -> None:
    rows = [[picture("as it is", np.eye(4))]]
    drawn = galleries(
        [
            finding("corruptions", "corruptions.mean_error", 0.2, detail={"pictures": rows}),
            finding("my_own", "corruptions.accuracy", 0.2, detail={"pictures": rows}),
        ],
        ("corruptions", "my_own"),
    )
    assert [gallery.title for gallery in drawn] == [
        "One example under each corruption",
        "My own: accuracy",
    ]
    assert "the true one" in drawn[0].caption


@pytest.mark.parametrize(
    "detail",
    [
        {"table": [1, 2]},
        {"table": [{"error": "much"}]},
        {"curve": [{"share": "x"}], "pictures": [7, {"bytes": "!"}]},
        {"rules": [3]},
    ],
)
def test_what_is_not_understood_is_left_out(detail: dict[str, Any]) -> None:
    names = {
        "robustness.attacked_accuracy": "robustness",
        "corruptions.mean_error": "corruptions",
        "interpretability.deletion_auc": "interpretability",
        "surrogate.rules": "surrogate",
        "alignment.over_optimisation": "alignment",
    }
    found = [finding(assessor, metric, 0.5, detail=detail) for metric, assessor in names.items()]
    page = render_assessment("a model", "full tier", found, [])
    assert "Scorecard" in page


def test_nothing_measured_shows_nothing() -> None:
    assert areas([finding("robustness", "robustness.attacked_accuracy", None)]) == []


def test_an_attack_says_whose_it_is_and_an_unmeasured_one_is_no_success() -> None:
    told = {
        "adversary": "outsider",
        "sees": "the model",
        "costs": "a forward pass",
        "statement": "More may be found.",
    }
    found = [
        finding(
            "membership", "membership.auc", 0.5, {"attack": "loss"}, anchors={"chance": 0.5}, detail=told
        ),
        finding(
            "membership", "membership.auc", None, {"attack": "lira"}, detail={**told, "reason": "too few"}
        ),
    ]
    first, second = shown(found)["attacks"].attackers
    assert (first.attack, first.adversary, first.chance) == ("loss", "outsider", "50.0 %")
    assert second.value == "AUC: not measured"
    page = render_assessment("a model", "full tier", found, [])
    assert "sees the model" in page
    assert "More may be found." in page
