"""Plots of preferences: whom the model agrees with, what choosing by its reward gives, and who can turn it."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from fedsafe.records import Json
from fedsafe.report import area_plots, formats
from fedsafe.report.areas.figure import Figure, ends_of, measured
from fedsafe.report.drawing import Ends

_MOST_GROUPS = 16


def agreement(findings: Sequence[Json]) -> Iterator[Figure]:
    """Accuracy of all, of what people foretell of each other, of the worst tenth, of people and of groups."""
    rows: list[tuple[str, float, Ends | None]] = []
    for metric, name in (
        ("alignment.human_ceiling", "other people, of each person"),
        ("alignment.accuracy", "this model"),
        ("alignment.worst_decile_accuracy", "worst tenth of the people"),
    ):
        for finding, place, value in measured(findings, metric):
            whose = f"annotator {place['annotator']}" if "annotator" in place else name
            rows.append((whose, value, ends_of(finding)))
    groups = [
        (f"{place.get('attribute')}: {place.get('group')}", value, ends_of(finding))
        for finding, place, value in measured(findings, "alignment.group_accuracy")
    ]
    rows += groups[:_MOST_GROUPS]
    readings = [
        str((finding.get("detail") or {}).get("reading", ""))
        for finding, _, _ in measured(findings, "alignment.gain_over_chance")
    ]
    for finding, _, value in measured(findings, "alignment.worst_decile_accuracy"):
        alike = (finding.get("anchors") or {}).get("annotators_alike")
        readings.append(
            f"The worst tenth of the people has {formats.share(value)}; if all were served alike, luck would leave it "
            f"{formats.share(alike)}."
        )
    if len(groups) > _MOST_GROUPS:
        readings.append(f"{_MOST_GROUPS} of {len(groups)} groups are drawn, the others are in the tables.")
    for _, _, value in measured(findings, "alignment.share_of_ceiling"):
        readings.append(
            f"The model has {formats.share(value)} of the gain over chance that other people have."
        )
    if len(rows) > 1 and readings:
        yield Figure(
            svg=area_plots.intervals_plot(
                [name for name, _, _ in rows],
                [value for _, value, _ in rows],
                intervals=[ends for _, _, ends in rows],
                label="pairs whose preference is foretold, %",
                line=0.5,
            ),
            reading=" ".join(filter(None, readings)) + " The dashed line is a coin.",
        )


def choosing(findings: Sequence[Json]) -> Iterator[Figure]:
    """What people gain where the best of n is chosen by reward, for growing n."""
    for finding, _, _ in measured(findings, "alignment.over_optimisation"):
        detail: dict[str, Any] = finding.get("detail") or {}
        curve = detail.get("curve")
        if not isinstance(curve, list) or len(curve) < 2:
            continue
        name = "best of n by reward"
        turn = "serves people worse" if detail.get("turns_down") else "does not surely serve people worse"
        yield Figure(
            svg=area_plots.controlled_plot(
                {
                    name: [(math.log2(row["n"]), row["gain"]) for row in curve],
                    "best of n by people's mean rating": [
                        (math.log2(row["n"]), row["best"]) for row in curve
                    ],
                },
                label="mean rating by people, above an item at random",
                across="choices, n = 2 to the power of",
                percent=False,
                bands={name: [(row["low"], row["high"]) for row in curve]},
            ),
            reading=f"From n = {detail.get('compared_with_n')} to {curve[-1]['n']}, choosing harder by reward {turn}; "
            f"the band is a 95 % interval over items.",
        )
        return


def poisoned(findings: Sequence[Json]) -> Iterator[Figure]:
    """Accuracy of models trained anew while a share of the clients turn their preferences round."""
    found = [
        (float(place["share"]), value, ends_of(finding))
        for finding, place, value in measured(findings, "preference_poisoning.accuracy")
        if "share" in place
    ]
    if len(found) < 2:
        return
    found.sort(key=lambda row: row[0])
    name = "this rule, trained anew"
    half = [
        str((finding.get("detail") or {}).get("reading", ""))
        for finding, _, _ in measured(findings, "preference_poisoning.breakdown_share")
    ]
    said = f" To take half of the gain over chance: {half[0]}." if half and half[0] else ""
    yield Figure(
        svg=area_plots.controlled_plot(
            {
                name: [(100 * share, value) for share, value, _ in found],
                "a coin": [(100 * share, 0.5) for share, _, _ in found],
            },
            label="pairs whose preference is foretold, %",
            across="clients that turn their preferences round, %",
            bands={name: [ends for _, _, ends in found]},
        ),
        reading=f"Each point is the whole federation trained anew by its own rule.{said}",
    )
