"""The model card says what the record holds, all of it that is bad news, and nothing that the record does not hold."""

import re
import shutil

import pytest
import tomli_w
from fixture_findings import GROUPS
from fixture_run import CONFIG, NO_CLAIM, SECRET, STOPPED, FixtureRun
from markdown_it import MarkdownIt

from fedsafe.errors import ConfigError
from fedsafe.report import formats, read_run, write_report
from fedsafe.report.card import NOT_STATED, code, escape, render_card
from fedsafe.runs.config import make_config
from fedsafe.store import RunFolder

HOSTILE = (
    '<script>alert(1)</script> ](javascript:alert(2)) [x](http://evil.example) ![i](http://evil.example/i) '
    '| a | *b* _c_ __d__ `e` ~~f~~ $g$ &lt; \\ \n# heading\n- item\n> quote'
)  # fmt: skip
SECTIONS = (
    "Model details", "Intended use", "Factors", "Metrics", "Data", "Training", "Privacy", "Evaluation", "Requirements",
    "Limitations", "Ethical considerations and recommendations", "How to reproduce",
)  # fmt: skip
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Card:
    """A rendered card, taken apart by a Markdown parser."""

    def __init__(self, text):
        self.text = text
        self.tokens = PARSER.parse(text)
        self.kinds = {token.type for token in self.tokens}
        self.kinds |= {child.type for token in self.tokens for child in token.children or ()}

    def headings(self, level):
        return [
            shown(self.tokens[at + 1])
            for at, token in enumerate(self.tokens)
            if (token.type, token.tag) == ("heading_open", f"h{level}")
        ]

    def section(self, title):
        """The lines of a section, as a reader sees them."""
        lines, inside = [], False
        for at, token in enumerate(self.tokens):
            if token.type == "heading_open" and token.tag == "h2":
                inside = shown(self.tokens[at + 1]) == title
            elif inside and token.type in ("inline", "code_block"):
                lines.append(shown(token))
        return "\n".join(lines)


def shown(token):
    if not token.children:
        return token.content
    return "".join("\n" if child.type == "softbreak" else child.content for child in token.children)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    made = {
        "full": FixtureRun(),
        "bare": FixtureRun(rounds=13, ended="stopped", record_epsilon=None),
        "none": FixtureRun(rounds=0, ended=None),
    }
    return {name: run.build(folder / name) for name, run in made.items()}


@pytest.fixture(scope="module")
def cards(runs):
    return {name: Card(render_card(read_run(path))) for name, path in runs.items()}


def test_every_card_has_the_same_sections_in_the_same_order(cards):
    for card in cards.values():
        assert card.headings(1) == ["Model card: adult"]
        assert tuple(card.headings(2)) == SECTIONS
        assert "html_inline" not in card.kinds
        assert "html_block" not in card.kinds


def test_what_only_people_can_say_is_not_stated_until_they_say_it(runs, cards, tmp_path):
    for line in ("Intended use", "Intended users", "Out of scope"):
        assert f"{line}: {NOT_STATED}" in cards["full"].section("Intended use")
    assert f"Licence of the model: {NOT_STATED}" in cards["full"].section("Model details")
    copy = tmp_path / "full"
    shutil.copytree(runs["full"], copy)
    said = {"intended_use": "teaching", "licence": "Apache-2.0", "developers": "*A* <b>"}
    RunFolder.open(copy).replace_text("config.toml", CONFIG + tomli_w.dumps({"card": said}))
    card = Card(render_card(read_run(copy)))
    assert "Intended use: teaching" in card.section("Intended use")
    assert f"Intended users: {NOT_STATED}" in card.section("Intended use")
    assert "Licence of the model: Apache-2.0" in card.section("Model details")
    assert "Developers: *A* <b>" in card.section("Model details")


def test_the_configuration_takes_what_people_say_and_no_other_key_and_it_changes_no_result():
    values = {"card": {"intended_use": "teaching"}}
    assert make_config(values).digest == make_config({}).digest
    assert make_config(values).card.intended_use == "teaching"
    with pytest.raises(ConfigError, match=r"card\.intended_us"):
        make_config({"card": {"intended_us": "teaching"}})


def test_claims_are_printed_in_full_with_what_they_assume_and_do_not_cover(runs, cards):
    start = read_run(runs["full"]).start
    text = cards["full"].section("Privacy")
    for claim in start.claims:
        for part in (claim["statement"], *claim["assumptions"], *claim["not_covered"]):
            assert part in text, part
    assert cards["full"].headings(3)[:2] == [
        "One record: epsilon 2.999 at delta 1e-5",
        "One client: epsilon 7.994 at delta 0.001",
    ]


def test_no_epsilon_is_rounded_down(tmp_path):
    for number, bound in enumerate((2.00001, 0.12341, 12.3411, 7.99991)):
        path = FixtureRun(rounds=1, record_epsilon=bound).build(tmp_path / str(number))
        heading = Card(render_card(read_run(path))).headings(3)[0]
        assert float(re.search(r"epsilon ([\d.]+) at", heading)[1]) >= bound


def test_a_level_without_a_guarantee_says_so_and_covers_nothing(cards):
    card = cards["bare"]
    assert card.headings(3)[0] == "One record: no guarantee"
    assert NO_CLAIM in card.section("Privacy")
    assert "Not covered: anything." in card.section("Privacy")


def test_the_headline_and_every_measured_finding_has_its_interval(runs, cards):
    text = cards["full"].section("Evaluation")
    reading = read_run(runs["full"])
    assert (
        "Accuracy: 83.9 % [83.3, 84.5] % (95 % Wilson, n = 16,281 examples; UCI Adult test split (public))"
        in text
    )
    assert "Findings are of the model after round 40." in text
    measured = [line for line in reading.findings if line["round"] == 40 and line["status"] == "measured"]
    assert len(measured) > 30
    for line in measured:
        if line["interval"] and line["assessor"] != "privacy":
            unit = formats.metric(line["metric"]).unit
            assert formats.interval(line["interval"], unit) in text, line


def test_groups_have_intervals_and_small_ones_are_named(cards):
    evaluation, factors = cards["full"].section("Evaluation"), cards["full"].section("Factors")
    assert "84.0 % [83.0, 85.0] %, n = 5,421" in evaluation
    assert "Other (the group has fewer than 30 positives and negatives (n = 135))" in evaluation
    for attribute, groups in GROUPS.items():
        line = next(line for line in factors.splitlines() if line.startswith(f"{attribute}:"))
        for group in groups:
            assert group in line
    assert "race: White, Black; too small to be judged: Other, Unknown" in factors


def test_robustness_is_a_bracket_from_what_is_certified_to_the_strongest_attack(tmp_path):
    path = FixtureRun(rounds=10).build(tmp_path / "run")
    run = RunFolder.open(path)
    line = next(
        line for line in run.read("findings.jsonl") if line["metric"] == "robustness.attacked_accuracy"
    )
    place = {"norm": "linf", "radius": 0.02}
    certified = {**line, "metric": "robustness.certified_accuracy", "bound": "lower", "interval": None}
    run.append(
        "findings.jsonl",
        {**certified, "where": {**place, "method": "ibp"}, "value": 0.5},
        {**certified, "where": {**place, "method": "crown"}, "value": 0.625},
        {**certified, "where": {**place, "radius": 2.0}, "value": 0.125},
    )
    known = formats.metric("robustness.certified_accuracy")
    low, lowest = (formats.quantity(value, known.unit if known else "") for value in (0.625, 0.125))
    table = re.compile(r"^\| (norm linf, radius \S+) \| (.*) \| (.*) \|$", re.MULTILINE)
    ends = {size: (least, most) for size, least, most in table.findall(render_card(read_run(path)))}
    assert ends["norm linf, radius 0.02"][0] == f"{low} (crown)", "the better certificate counts"
    assert ends["norm linf, radius 0.02"][1].endswith("(pgd)"), "pgd leaves less than fgsm"
    assert ends["norm linf, radius 0.5"][0] == "nothing is certified"
    assert ends["norm linf, radius 2"] == (lowest, "no attack was measured")


def test_everything_that_was_not_measured_or_not_met_is_a_limitation(runs, cards):
    text = cards["full"].section("Limitations")
    reading = read_run(runs["full"])
    missing = [line for line in reading.findings if line["round"] == 40 and line["status"] != "measured"]
    assert len(missing) > 8
    for line in missing:
        found = [
            entry
            for entry in text.splitlines()
            if entry.startswith(formats.status(line["status"]))
            and line["metric"] in entry
            and f"({formats.where(line['where'])})" in entry
            and entry.endswith(line["detail"]["reason"])
        ]
        assert len(found) == 1, line
    for line in reading.requirements[-4:]:
        assert (f"Requirement {line['metric']}" in text) == (line["verdict"] != "pass")


def test_a_failed_assessor_is_named(tmp_path):
    path = FixtureRun(rounds=10).build(tmp_path / "run")
    run = RunFolder.open(path)
    first = run.read("findings.jsonl")[0]
    failed = {
        "metric": "assess.completed",
        "assessor": "mine",
        "where": {"assessor": "mine"},
        "status": "failed",
    }
    reason = {"reason": "assessor 'mine' failed: ValueError: no"}
    run.append("findings.jsonl", {**first, **failed, "value": None, "interval": None, "detail": reason})
    assert reason["reason"] in Card(render_card(read_run(path))).section("Limitations")


def test_requirements_have_their_verdicts_and_reasons(cards):
    text = cards["full"].section("Requirements")
    for part in (
        "performance.accuracy ≥ 0.8",
        "pass",
        "undecided",
        "fail",
        "unmeasured",
        "there is no finding",
    ):
        assert part in text


def test_stopped_unfinished_and_empty_runs_say_so(cards):
    assert f"This run was stopped: {STOPPED}" in PARSER.render(cards["bare"].text).replace(
        "</strong>", ""
    ).replace("&lt;", "<")
    assert "(the last complete round is 13)" in cards["bare"].section("Evaluation")
    assert "This run is unfinished" in cards["none"].text
    assert "which is not a pass" in cards["none"].section("Evaluation")
    assert f"Accuracy: {formats.ABSENT} (not measured)" in cards["none"].section("Evaluation")
    assert "No requirement was judged." in cards["none"].section("Requirements")


def test_a_run_killed_before_its_first_line_has_a_card_that_claims_nothing(tmp_path):
    run = RunFolder.create(tmp_path / "bare", CONFIG)
    card = Card(render_card(read_run(run.path)))
    assert "the record does not say why" in card.section("Privacy")
    assert "The record has no start line." in card.section("How to reproduce")
    assert "epsilon" not in "".join(card.headings(3))


def test_a_simulated_run_is_said_to_guarantee_nothing(tmp_path):
    path = FixtureRun(rounds=1).build(tmp_path / "run")
    text = (path / "record.jsonl").read_text()
    (path / "record.jsonl").write_text(text.replace('"reproducible":false', '"reproducible":true'))
    card = Card(render_card(read_run(path)))
    assert "nothing is guaranteed against anyone who knows the seed" in card.text
    assert "follows from the seed 7" in card.section("How to reproduce")


def test_how_to_reproduce_has_command_versions_revision_and_code_from_elsewhere(runs, cards, tmp_path):
    text = cards["full"].section("How to reproduce")
    for part in (
        "fedsafe run config.toml",
        "dp-accounting 0.6.0",
        "0123456789abcdef",
        "ledger verify full",
        "c0ffee",
    ):
        assert part in text
    assert "expect results like these and not the same digits" in text
    assert "needed" not in text
    copy = tmp_path / "a b"
    shutil.copytree(runs["full"], copy)
    ours = {
        "model": {"name": "mine.nets:Net"},
        "task": {"name": "given in Python"},
        "assess": {"assessors": ["a:B"]},
    }
    RunFolder.open(copy).replace_text("config.toml", tomli_w.dumps(ours))
    text = Card(render_card(read_run(copy))).section("How to reproduce")
    for part in ("model = mine.nets:Net", "task = given in Python", "assess.assessors = a:B", "verify 'a b'"):
        assert part in text


def test_hostile_text_is_shown_as_it_is_and_changes_no_structure(tmp_path):
    path = FixtureRun(name=HOSTILE, rounds=10).build(tmp_path / "run")
    run = RunFolder.open(path)
    first = run.read("findings.jsonl")[0]
    place = {"attribute": HOSTILE, "group": HOSTILE}
    run.append(
        "findings.jsonl",
        {**first, "where": place},
        {**first, "assessor": HOSTILE, "where": {HOSTILE: HOSTILE}},
    )
    missing = {"status": "failed", "value": None, "interval": None, "detail": {"reason": HOSTILE}}
    run.append("findings.jsonl", {**first, **missing, "metric": HOSTILE, "released": HOSTILE})
    run.append(
        "requirements.jsonl", {**run.read("requirements.jsonl")[0], "metric": HOSTILE, "reason": HOSTILE}
    )
    said = dict.fromkeys(("intended_use", "recommendations"), HOSTILE)
    run.replace_text("config.toml", tomli_w.dumps({"card": said, "model": HOSTILE}))
    card = Card(render_card(read_run(path)))
    assert card.kinds.isdisjoint(
        {"html_inline", "html_block", "link_open", "image", "em_open", "s_open", "hr", "fence"}
    )
    assert tuple(card.headings(2)) == SECTIONS
    line = " ".join(HOSTILE.split())
    assert card.headings(1) == [f"Model card: {line}"]
    for section in ("Intended use", "Factors", "Limitations", "Evaluation"):
        assert line in card.section(section), section
    tables = [token for token in card.tokens if token.type == "tr_open"]
    assert len(tables) > 20


@pytest.mark.parametrize(
    "text", ["- a", "+ a", "# a", "1. a", "12) a", "---", "===", "> a", "&amp;", "a_b", "_a_", "<=50K"]
)
def test_escaped_text_reads_as_it_was(text):
    tokens = PARSER.parse(f"{escape(text)}\n")
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert shown(tokens[1]) == text


@pytest.mark.parametrize("text", ["a", "a`b", "``", "`", "a ``` b`"])
def test_a_code_span_holds_any_text(text):
    tokens = PARSER.parseInline(code(text))
    assert [(child.type, child.content) for child in tokens[0].children] == [("code_inline", text)]


def test_numbers_and_plain_names_are_not_cluttered():
    for text in ("0.3", "capital_gain", "-0.5", "1.5 %", "A & B", "x < 3", "(a)"):
        assert escape(text) == text


def test_the_card_lies_beside_the_report_and_a_shared_copy_gives_the_same(runs, tmp_path):
    write_report(runs["bare"])
    card = (runs["bare"] / "card.md").read_text()
    assert card == render_card(read_run(runs["bare"]))
    assert SECRET not in card
    assert str(runs["bare"].parent) not in card
    copy = tmp_path / "bare"
    shutil.copytree(runs["bare"], copy, ignore=shutil.ignore_patterns("private", "card.md"))
    write_report(copy)
    assert (copy / "card.md").read_text() == card
