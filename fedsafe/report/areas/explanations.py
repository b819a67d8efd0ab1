"""Plots of attributions and of how faithful they are, and rules that imitate the model."""

from collections.abc import Iterator, Sequence

from fedsafe.records import Json
from fedsafe.report import area_plots, formats, plots
from fedsafe.report.areas.figure import Figure, measured

_MOST_BARS, _MOST_RULES = 20, 12


def attributions(findings: Sequence[Json]) -> Iterator[Figure]:
    """The strongest columns, of the first finding with a table of mean absolute attributions."""
    for finding in findings:
        table = (finding.get("detail") or {}).get("table")
        if isinstance(table, list) and table and "mean_abs" in table[0]:
            known = [row for row in table if row.get("mean_abs") is not None]
            rows = sorted(known, key=lambda row: -row["mean_abs"])
            shown = rows[:_MOST_BARS]
            n, place = finding.get("n"), formats.where(finding.get("where"))
            yield Figure(
                svg=plots.bars_plot(
                    [str(row["column"]) for row in shown],
                    [float(row["mean_abs"]) for row in shown],
                    intervals=[(row.get("low"), row.get("high")) for row in shown],
                    label="mean absolute attribution",
                ),
                reading=f"The {len(shown)} strongest of {len(rows)} columns{f', over {n:,} examples' if n else ''}"
                f"{f' ({place})' if place else ''}, with 95 % intervals: the longer, the more the output hangs on it.",
            )
            return


def removal(findings: Sequence[Json]) -> Iterator[Figure]:
    """What is left of the model's answer as features go, in the order of the attribution and in a random one."""
    for metric, verb, better in (
        ("interpretability.deletion_auc", "taken away", "below"),
        ("interpretability.insertion_auc", "put back", "above"),
    ):
        series: dict[str, list[tuple[float, float]]] = {}
        baseline = None
        for finding, place, _ in measured(findings, metric):
            curve = (finding.get("detail") or {}).get("curve")
            if not isinstance(curve, list) or not curve or (baseline not in (None, place.get("baseline"))):
                continue
            baseline = place.get("baseline")
            if len(series) < 4:
                name = formats.status(str(place.get("explainer", "attribution")))
                series[name] = [(100 * row["share"], row["probability"]) for row in curve]
            series.setdefault("a random order", [(100 * row["share"], row["random"]) for row in curve])
        if series:
            yield Figure(
                svg=area_plots.controlled_plot(
                    series,
                    label=f"probability of the model's answer as features are {verb}, %",
                    across=f"features {verb}, %, most important first",
                ),
                reading=f"A faithful attribution runs {better} the random order: its first features matter most. "
                f"Features go to and come from the {formats.status(str(baseline))} baseline.",
            )


def randomised(findings: Sequence[Json]) -> Iterator[Figure]:
    """How an attribution changes as the model's layers are made random."""
    series: dict[str, list[tuple[float, float]]] = {}
    for finding, place, _ in measured(findings, "interpretability.randomisation_similarity"):
        curve = (finding.get("detail") or {}).get("curve")
        name = formats.status(str(place.get("explainer", "attribution")))
        if isinstance(curve, list) and curve and name not in series and len(series) < 4:
            series[name] = [(row["layers"], row["similarity"]) for row in curve]
    if series:
        yield Figure(
            svg=area_plots.controlled_plot(
                series,
                label="rank correlation with the attribution of the trained model",
                across="layers made random, from the output down",
                percent=False,
            ),
            reading="An explanation that does not change when the model's parameters are made random is not about the "
            "model: the lines should fall towards 0.",
        )


def rules(findings: Sequence[Json]) -> Iterator[tuple[str, str, str]]:
    """(if, then, how often and how well) of the rules of a surrogate."""
    for finding, _, _ in measured(findings, "surrogate.rules"):
        rules = (finding.get("detail") or {}).get("rules")
        for rule in rules[:_MOST_RULES] if isinstance(rules, list) else ():
            note = f"{formats.share(rule.get('share'))} of the examples"
            if rule.get("fidelity") is not None:
                note += f", agrees with the model on {formats.share(rule['fidelity'])}"
            yield str(rule.get("if") or "always"), str(rule.get("then")), note
