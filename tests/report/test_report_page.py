"""The page of a run: complete, self-contained, safe against hostile text, and blind to the private part."""

import dataclasses
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fixture_findings import PUBLIC
from fixture_run import CONFIG, NO_CLAIM, SECRET, STOPPED, FixtureRun

from fedsafe.errors import RecordError
from fedsafe.report import read_run, render, write_report
from fedsafe.store import RunFolder

HOSTILE = '</style><script>alert("$x^{")</script>&amp;\' onload="x'
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags are balanced, and collects identifiers, links, section text and element names."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.names: set[str] = set()
        self.handlers: list[str] = []
        self.sections: dict[str, str] = {}
        self._section = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self._space()
        self.names.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href", "data", "poster", "srcset", "action"):
                self.targets.append(value)
            if name.startswith("on"):
                self.handlers.append(name)
        if tag in ("section", "header"):
            self._section = dict(attrs).get("id", "")

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        self._space()

    def _space(self):
        self.sections[self._section] = self.sections.get(self._section, "") + " "

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.sections[self._section] = self.sections.get(self._section, "") + data

    def text(self, section: str) -> str:
        """Text of a section with single spaces."""
        return " ".join(self.sections[section].split())


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("runs")
    kinds = {
        "full": FixtureRun(),
        "stopped": FixtureRun(rounds=20, ended="stopped", record_epsilon=None),
        "killed": FixtureRun(rounds=13, ended=None),
        "empty": FixtureRun(rounds=0, ended=None),
    }
    return {name: kind.build(base / name) for name, kind in kinds.items()}


@pytest.fixture(scope="module")
def pages(runs) -> dict[str, Page]:
    return {name: Page(write_report(path).read_text(encoding="utf-8")) for name, path in runs.items()}


@pytest.mark.parametrize("kind", ["full", "stopped", "killed", "empty"])
def test_every_page_is_well_formed_and_its_identifiers_are_unique_and_resolve(pages, kind):
    page = pages[kind]
    assert len(page.ids) == len(set(page.ids))
    assert page.targets
    assert {target.removeprefix("#") for target in page.targets} <= set(page.ids)


@pytest.mark.parametrize("kind", ["full", "stopped", "killed", "empty"])
def test_every_section_is_present(pages, kind):
    assert set(pages[kind].sections) >= {
        "headline",
        "claims",
        "learning",
        "spend",
        "requirements",
        "scorecard",
        "groups",
        "federation",
        "configuration",
        "versions",
        "verify",
    }


def test_the_page_loads_nothing_from_outside(pages):
    text = pages["full"].source
    assert all(target.startswith("#") for target in pages["full"].targets)
    assert not {"script", "link", "iframe", "object", "embed"} & pages["full"].names
    assert all(source.startswith("data:image/png") for source in re.findall(r' src="([^"]*)"', text))
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    urls = set(re.findall(r"https?://[^\"' <]+", text))
    assert urls <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_the_headline_has_task_accuracy_with_interval_both_epsilons_date_and_status(pages):
    text = pages["full"].text("headline")
    for part in (
        "adult",
        "83.9 %",
        "[83.3, 84.5] %",
        "n = 16,281",
        "Epsilon for one record 2.999 at delta 1e-5, against the server and all other clients",
        "Epsilon for one client 7.994 at delta 0.001, against an outsider",
        "2026-01-02 03:04 UTC",
        "40 / 40",
        "✓ completed",
    ):
        assert part in text, part


def test_each_claim_is_quoted_in_full_with_assumptions_and_what_it_does_not_cover(runs, pages):
    text = pages["full"].text("claims")
    start = read_run(runs["full"]).start
    assert len(start.claims) == 2
    for claim in start.claims:
        assert claim["statement"] in text
        for key in (
            "adjacency",
            "adversary",
            "release",
            "sampler",
            "accountant",
            "horizon",
            "regime",
            "randomness",
        ):
            assert claim[key] in text, key
        for entry in (*claim["assumptions"], *claim["not_covered"]):
            assert entry in text
        assert repr(claim["epsilon"]) in text
    assert text.count("What it does not cover") == 2
    assert "Epsilon for two records of one person 7.214" in text
    assert "Relies on secret cohorts no" in text
    assert "Relies on secret cohorts yes" in text


def test_a_field_that_a_claim_gains_later_is_shown(tmp_path):
    path = FixtureRun(rounds=0).build(tmp_path / "run")
    record = path / "record.jsonl"
    record.write_text(
        record.read_text().replace('"regime":"planned"', '"regime":"planned","new_field":"new value"')
    )
    assert "New field new value" in Page(render(read_run(path))).text("claims")


def test_a_claim_without_epsilon_says_none_in_words_and_why(pages):
    headline, claims, spend = (pages["stopped"].text(name) for name in ("headline", "claims", "spend"))
    assert f"Epsilon for one record none {NO_CLAIM}" in headline
    assert f"One record: no guarantee (epsilon: none) {NO_CLAIM}" in claims
    assert "may tell everything about one record" in claims
    assert "One record: no guarantee at this level" in spend
    assert "One client: 5.652 after round 20, target 8.0." in spend


def test_a_claim_that_is_not_recorded_is_missed_aloud(tmp_path):
    path = FixtureRun(rounds=0).build(tmp_path / "run")
    reading = read_run(path)
    start = dataclasses.replace(reading.start, claims=reading.start.claims[:1])
    text = Page(render(dataclasses.replace(reading, start=start))).text("claims")
    assert "One client: no guarantee (epsilon: none) No client-level guarantee is claimed" in text


def test_a_stopped_run_says_why(pages):
    text = pages["stopped"].text("headline")
    assert "■ stopped" in text
    assert f"This run was stopped. Reason: {STOPPED}." in text


def test_an_unfinished_run_says_so_and_shows_its_complete_rounds(pages):
    text = pages["killed"].text("headline")
    assert "This run is unfinished. Its record has no end line" in text
    assert "13 / 40" in text
    assert "After round 13" in pages["killed"].text("learning")


def test_a_run_without_rounds_says_so_everywhere(pages):
    page = pages["empty"]
    assert "No round is complete, so there is no figure" in page.text("headline")
    assert "No round is complete" in page.text("learning")
    assert "nothing is spent" in page.text("spend")
    assert "nothing about this model was assessed, which is not a pass" in page.text("scorecard")
    assert "No requirement has been judged" in page.text("requirements")


def test_a_run_killed_before_its_first_line_still_renders(tmp_path):
    run = RunFolder.create(tmp_path / "bare", CONFIG)
    page = Page(write_report(run.path).read_text())
    assert "unfinished" in page.text("headline")
    assert "The record has no start line" in page.text("federation")
    assert "No record-level guarantee is claimed; the record does not say why." in page.text("claims")


def test_the_scorecard_tells_status_in_words_and_signs_and_missing_from_measured(pages):
    text = pages["full"].text("scorecard")
    assert "● measured" in text
    assert "△ unreliable" in text
    assert "PGD missed more than 1% of the examples broken by FGSM" in text
    assert "upper bound" in text
    assert "clean: 83.9 %" in text
    assert "There is no overall score" in text
    page = pages["full"].source
    assert page.count('class="empty"') == page.count("△</b> unreliable")


def test_rates_of_groups_have_intervals_and_small_groups_are_listed_apart(pages):
    text = pages["full"].text("groups")
    assert "Female 84.0 % [83.0, 85.0] % n = 5,421" in text
    assert "By sex & race" in text
    assert "By age" in text
    assert "Other: the group has fewer than 30 positives and negatives (n = 135)" in text
    assert "Female & Other" in text
    assert "fairness.accuracy" not in pages["full"].text("scorecard")


def test_requirements_show_each_kind_of_verdict_in_words_and_its_history(pages):
    text = pages["full"].text("requirements")
    for part in (
        "✓ pass",
        "✕ fail",
        "? undecided",
        "◌ unmeasured",
        "there is no finding",
        "must, 95 % confidence",
    ):
        assert part in text, part
    assert "performance.accuracy ≥ 0.8" in text
    assert "10 ? 20 ✓ 30 ✓ 40 ✓" in text


def test_plots_name_their_axes_references_and_features(pages):
    page = pages["full"]
    assert "majority class" in page.text("learning")
    assert "target 3" in page.text("spend")
    assert "target 8" in page.text("spend")
    relies = page.text("explanations")
    assert "capital_gain" in relies
    assert "The 12 strongest of 12 columns, over 256 examples" in relies
    assert "worst attack (upper bound)" in page.text("robustness")
    assert "withstood every attack" in page.text("robustness")
    assert "lowest for" in page.text("groups-shown")


def test_figures_over_clients_are_said_to_come_from_the_public_evaluation_set(pages):
    text = pages["full"].text("federation")
    assert "Accuracy over 289 clients" in text
    assert "shards of the public evaluation set" in text
    assert PUBLIC["data"] in text
    assert "no private record was read" in text
    assert "11 shards were too small" in text


def test_configuration_versions_and_verification_are_verbatim(runs, pages):
    page = pages["full"]
    assert CONFIG.strip() in page.sections["configuration"]
    assert "dp-accounting 0.6.0" in page.text("versions")
    assert "fixture processor" in page.text("versions")
    assert "fedsafe ledger verify full" in page.text("verify")
    assert f"{40:064x}" in page.text("verify")
    assert str(runs["full"].parent) not in page.source


def test_findings_of_a_round_that_was_not_completed_are_left_out(tmp_path):
    path = FixtureRun(rounds=13, ended=None).build(tmp_path / "run")
    run = RunFolder.open(path)
    late = {**run.read("findings.jsonl")[0], "round": 14, "value": 0.123456}
    run.append("findings.jsonl", late)
    reading = read_run(path)
    assert len(reading.findings) == len(run.read("findings.jsonl")) - 1
    assert "12.3 %" not in render(dataclasses.replace(reading, findings=reading.findings[-1:]))


def test_hostile_text_is_shown_and_not_run(tmp_path):
    path = FixtureRun(name=HOSTILE, rounds=10).build(tmp_path / "run")
    run = RunFolder.open(path)
    run.replace_text("config.toml", f"# {HOSTILE}\n")
    first = run.read("findings.jsonl")[0]
    hostile = {
        "metric": HOSTILE,
        "where": {HOSTILE: HOSTILE},
        "detail": {"table": [{"column": HOSTILE, "mean_abs": 1.0}], "reason": HOSTILE},
        "anchors": {HOSTILE: 0.5},
        "status": "unreliable",
        "value": None,
        "interval": None,
        "assessor": HOSTILE,
    }
    lines = [{**first, **hostile}, {**first, "where": {"attribute": HOSTILE, "group": HOSTILE}}]
    run.append("findings.jsonl", {**first, "anchors": {HOSTILE: 0.5}})
    run.append("findings.jsonl", *lines)
    proof = {"method": HOSTILE, "norm": "linf", "radius": 0.1}
    run.append("findings.jsonl", {**first, "metric": "certified.accuracy", "where": proof})
    verdict = {**run.read("requirements.jsonl")[0], "reason": HOSTILE, "metric": HOSTILE, "verdict": HOSTILE}
    run.append("requirements.jsonl", verdict)
    page = Page(write_report(path).read_text())
    assert "script" not in page.names
    assert page.handlers == []
    for section in ("headline", "scorecard", "groups", "requirements", "configuration", "robustness"):
        assert "alert(" in page.text(section), section


def test_the_private_part_is_never_opened_torch_never_imported_and_the_bytes_are_the_same(runs, pages):
    script = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == 'open' else None)\n"
        "import fedsafe.report, fedsafe.store\n"
        "early = {name.split('.')[0] for name in sys.modules}\n"
        "assert not early & {'matplotlib', 'jinja2'}, 'importing the report is not cheap'\n"
        "fedsafe.report.write_report(sys.argv[1])\n"
        "fedsafe.report.closing_table(sys.argv[1])\n"
        "assert any('record.jsonl' in path for path in opened)\n"
        "assert not [path for path in opened if '/private' in path], 'private files were opened'\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'flwr', 'ray'}))\n"
        "print('matplotlib.pyplot' in sys.modules)\n"
    )
    command = [sys.executable, "-c", script, str(runs["killed"])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\nFalse\n"
    assert (runs["killed"] / "report.html").read_text() == pages["killed"].source
    assert SECRET not in pages["killed"].source


def test_a_copy_without_the_private_part_gives_the_same_page(runs, pages, tmp_path):
    copy = tmp_path / "killed"
    shutil.copytree(
        runs["killed"], copy, ignore=shutil.ignore_patterns("private", "report.html", "checkpoints")
    )
    assert write_report(copy).read_text() == pages["killed"].source


def test_what_is_not_a_run_is_refused_and_left_alone(tmp_path):
    with pytest.raises(RecordError, match="not a run folder"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_rounds_without_a_start_line_are_refused(tmp_path):
    path = FixtureRun(rounds=2).build(tmp_path / "run")
    RunFolder.open(path).truncate_after("record.jsonl", lambda line: line["kind"] != "start")
    with pytest.raises(RecordError, match="no start line"):
        read_run(path)
