"""Plots of attacks, certificates and corruptions."""

from collections.abc import Iterator, Mapping, Sequence

from fedsafe.records import Json
from fedsafe.report import area_plots, formats, plots
from fedsafe.report.area_plots import Point
from fedsafe.report.areas.figure import Figure, ends_of, measured

_MOST_ROWS = 40


def brackets(findings: Sequence[Json]) -> Iterator[Figure]:
    """A plot for each norm: the worst attack, the certificates and the clean accuracy against the radius."""
    attacked: dict[str, dict[float, Point]] = {}
    certified: dict[str, dict[str, list[Point]]] = {}
    clean: dict[str, float] = {}
    for finding, place, value in measured(findings, "robustness.attacked_accuracy"):
        norm, radius = str(place.get("norm")), float(place.get("radius") or 0)
        points = attacked.setdefault(norm, {})
        # Of several attacks the worst counts, which the finding of all together is where there is one.
        if radius not in points or value < points[radius][1]:
            points[radius] = (radius, value, ends_of(finding))
        anchor = (finding.get("anchors") or {}).get("clean")
        if anchor is not None:
            clean[norm] = float(anchor)
    for finding, place, value in measured(findings, "certified.accuracy"):
        name = str(place.get("method", "certificate"))
        method = name.upper() if name in ("ibp", "crown") else name
        points_of = certified.setdefault(str(place.get("norm")), {}).setdefault(method, [])
        points_of.append((float(place.get("radius") or 0), value, ends_of(finding)))
    for norm in sorted({*attacked, *certified}):
        upper = sorted(attacked.get(norm, {}).values())
        lower = {name: sorted(points) for name, points in sorted(certified.get(norm, {}).items())}
        label = f"accuracy when inputs change by at most a radius ({formats.status(norm)}), %"
        svg = area_plots.bracket_plot(upper, lower, clean=clean.get(norm), label=label)
        yield Figure(svg=svg, reading=_bracket_reading(upper, lower))


def _bracket_reading(upper: Sequence[Point], lower: Mapping[str, Sequence[Point]]) -> str:
    best = {radius: max(share, 0.0) for points in lower.values() for radius, share, _ in sorted(points)}
    for points in lower.values():
        for radius, share, _ in points:
            best[radius] = max(best[radius], share)
    both = [(radius, share) for radius, share, _ in upper if radius in best]
    if both:
        radius, share = both[len(both) // 2]
        return (
            f"At radius {radius:g}, {formats.share(best[radius])} of the examples are proven to stay right and "
            f"{formats.share(share)} withstood every attack; the hatched band is what is not known."
        )
    if upper:
        radius, share, _ = upper[len(upper) // 2]
        return f"At radius {radius:g}, {formats.share(share)} of the examples withstood every attack that was tried."
    return "The lines are what is proven; no attack was run at these radii."


def smoothing(findings: Sequence[Json]) -> Iterator[Figure]:
    """What randomised smoothing certifies, against the radius."""
    series: dict[str, list[Point]] = {}
    examples: set[int] = set()
    for finding, place, _ in measured(findings, "certified.mean_radius"):
        curve = (finding.get("detail") or {}).get("curve")
        if place.get("method") == "smoothing" and isinstance(curve, list):
            series[f"noise {place.get('scale')}"] = [
                (row["radius"], row["certified"], (row.get("low"), row.get("high"))) for row in curve
            ]
            examples.add(int(finding.get("n") or 0))
    if series:
        n = " and ".join(f"{count:,}" for count in sorted(examples))
        yield Figure(
            svg=area_plots.controlled_plot(
                {name: [(radius, share) for radius, share, _ in points] for name, points in series.items()},
                label="certified accuracy of the smoothed model, %",
                across="radius (L2), encoded units",
                bands={name: [ends for _, _, ends in points] for name, points in series.items()},
            ),
            reading="For the vote of the model over noisy copies of an input, which is another classifier than the "
            f"model alone: the share of {n} examples whose answer is right and cannot change within the radius. The "
            "band is the 95 % interval of each point by itself.",
        )


def corruptions(findings: Sequence[Json]) -> Iterator[Figure]:
    """Errors by corruption, beside the baseline's where it was measured."""
    tables = [
        finding
        for metric in ("corruptions.relative_error", "corruptions.mean_error")
        for finding, _, _ in measured(findings, metric)
        if isinstance((finding.get("detail") or {}).get("table"), list)
    ]
    if not tables:
        return
    detail = tables[0]["detail"]
    rows = [row for row in detail["table"] if row.get("error") is not None][:_MOST_ROWS]
    if not rows:
        return
    worst = max(rows, key=lambda row: float(row["error"]))
    yield Figure(
        svg=area_plots.intervals_plot(
            [formats.status(str(row["corruption"])) for row in rows],
            [float(row["error"]) for row in rows],
            intervals=[(row.get("low"), row.get("high")) for row in rows],
            label="error under each corruption, %",
            references=[row.get("baseline_error") for row in rows],
            reference=str(detail.get("baseline") or ""),
        ),
        reading=f"Further right is worse: {formats.status(str(worst['corruption']))} makes the model err on "
        f"{formats.share(float(worst['error']))} of the examples"
        + (f"; hollow squares are {detail['baseline']}." if detail.get("baseline") else "."),
    )


def noise(findings: Sequence[Json]) -> Iterator[Figure]:
    """Accuracy against the scale of random noise, from the clean accuracy of the same examples."""
    points: dict[float, Point] = {}
    for finding, place, value in measured(findings, "robustness.noise_accuracy"):
        scale = place.get("scale")
        if isinstance(scale, int | float):
            points[float(scale)] = (float(scale), value, ends_of(finding))
            clean = (finding.get("anchors") or {}).get("clean")
            if clean is not None:
                points.setdefault(0.0, (0.0, float(clean), None))
    if points:
        last = max(points)
        yield Figure(
            svg=plots.robustness_plot({"random noise": [points[scale] for scale in sorted(points)]}),
            reading=f"Random noise that nobody chose: at scale {last:g}, {formats.share(points[last][1])} of the "
            f"examples are still right.",
        )
