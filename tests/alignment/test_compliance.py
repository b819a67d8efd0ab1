"""What a checker counts says of the truth: corrected shares and their intervals, held to simulations of known truth."""

import numpy as np
import pytest

from fedsafe.alignment import (
    Candidate,
    Labelled,
    Response,
    checker_errors,
    compliance,
    measure_any,
    measure_checker,
    parse_constitution,
)
from fedsafe.alignment.checker_errors import (
    EXACT,
    CheckerError,
    after_selection,
    read_labelled,
    rogan_gladen,
)
from fedsafe.errors import ConfigError, DataError

SAD = {
    "id": "sad",
    "text": "Nobody is sad.",
    "scope": "response",
    "checker": {"name": "words", "none_of": ["sad"]},
}
SHORT = {"id": "short", "text": "Short.", "scope": "response", "checker": {"name": "length", "most": 5}}
PRIVATE = {"id": "private", "text": "No address.", "scope": "prompt", "checker": "personal_identifiers"}
RULES = parse_constitution({"version": "1", "principle": [SAD, SHORT, PRIVATE]})


def error(found, broken, cleared, kept):
    return CheckerError(found=found, broken=broken, cleared=cleared, kept=kept)


def test_the_corrected_share_is_rogan_and_gladens():
    found = rogan_gladen(30, 100, error(80, 100, 90, 100))
    assert found.value == pytest.approx((0.3 + 0.9 - 1) / (0.8 + 0.9 - 1))
    assert rogan_gladen(0, 100, error(80, 100, 90, 100)).value == 0.0
    assert rogan_gladen(30, 100, EXACT).value == 0.3


@pytest.mark.parametrize(("k", "n"), [(5, 10), (0, 0)])
@pytest.mark.parametrize(
    "bad", [error(5, 10, 5, 10), error(0, 0, 5, 10), error(5, 10, 0, 0), error(1, 10, 1, 10)]
)
def test_a_checker_of_unknown_error_or_no_better_than_chance_says_nothing(k, n, bad):
    found = rogan_gladen(k, n, bad)
    assert found.value is None
    assert found.method
    guarded = after_selection(k, n, 0, 10, bad, rng=np.random.default_rng(0))
    assert guarded.after.value is None
    assert guarded.fall.value is None


CASES = [
    (0.2, 0.8, 0.9, 40, 80),
    (0.05, 0.9, 0.95, 30, 100),
    (0.5, 0.7, 0.9, 60, 60),
    (0.02, 0.9, 0.99, 20, 100),
]


@pytest.mark.parametrize(("truth", "se", "sp", "broken", "kept"), CASES)
def test_intervals_cover_the_truth_before_and_after_the_guard(truth, se, sp, broken, kept, monkeypatch):
    monkeypatch.setattr(checker_errors, "_DRAWS", 2000)
    rng = np.random.default_rng(1)
    left = truth * (1 - se) / (truth * (1 - se) + (1 - truth) * sp)
    before, after, naive, rounds = 0, 0, 0, 200
    for _ in range(rounds):
        k = int(rng.binomial(200, truth * se + (1 - truth) * (1 - sp)))
        own = error(int(rng.binomial(broken, se)), broken, int(rng.binomial(kept, sp)), kept)
        low, high = rogan_gladen(k, 200, own).interval or (0, 1)
        before += low <= truth <= high
        low, high = after_selection(k, 200, 0, 100, own, rng=rng).after.interval or (0, 1)
        after += low <= left <= high
        low, high = rogan_gladen(0, 100, own).interval or (0, 1)
        naive += rogan_gladen(0, 100, own).value == 0
    assert before >= 0.91 * rounds
    assert after >= 0.91 * rounds
    # The usual correction says zero of what the checker itself selected, whatever it missed.
    assert naive == rounds


def test_the_share_after_selection_is_bayess():
    own = error(80, 100, 90, 100)
    guarded = after_selection(31, 100, 0, 50, own, rng=np.random.default_rng(0))
    truth = (0.31 + 0.9 - 1) / 0.7
    left = truth * 0.2 / (truth * 0.2 + (1 - truth) * 0.9)
    assert guarded.after.value == pytest.approx(left)
    assert guarded.fall.value == pytest.approx(1 - left / truth)
    # Where all answers are what the checker finds and passes, in the proportion of the sample, nothing is selected.
    same = after_selection(31, 100, 31, 100, own, rng=np.random.default_rng(0))
    assert same.after.value == pytest.approx(truth)
    assert same.fall.value == pytest.approx(0, abs=1e-12)
    exact = after_selection(31, 100, 0, 50, EXACT, rng=np.random.default_rng(0))
    assert (exact.after.value, exact.fall.value) == (0.0, 1.0)


LABELLED = [
    Labelled(prompt="", text="He was sad.", breaks={"sad": True}),
    Labelled(prompt="", text="He cried.", breaks={"sad": True}),
    Labelled(prompt="", text="A sad joke.", breaks={"sad": False}),
    Labelled(prompt="", text="Good.", breaks={"sad": False}),
    Labelled(prompt="", text="It is all very good to him.", breaks={"sad": False}),
    Labelled(prompt="", text="Unread.", breaks={}),
]


def test_errors_are_counted_on_labelled_texts_and_an_exact_rule_needs_none():
    sad, short, _ = RULES.articles
    assert measure_checker(sad, LABELLED) == error(1, 2, 2, 3)
    assert measure_checker(short, LABELLED) == EXACT
    # Together: the fifth text is too long, which needs no label.
    assert measure_any([sad, short], LABELLED) == error(2, 3, 1, 2)
    assert measure_any([short], []) == EXACT
    assert measure_checker(sad, []).sensitivity is None


def response(first, answer=None, *, refused=False):
    candidate = Candidate(text="t", attempt=1, seed=0, violated=first)
    return Response(
        prompt="p",
        text="t",
        refused=refused,
        attempts=1,
        violated=first if answer is None else answer,
        candidates=(candidate, candidate),
    )


def test_the_report_counts_answers_requests_and_what_was_unguarded():
    responses = [
        response(("sad",), ()),
        response((), ()),
        response(("sad", "short"), (), refused=True),
        response((), ()),
        Response(prompt="a@b.example.org", text="No.", refused=True, violated=("private",)),
    ]
    findings = {
        (finding.metric.removeprefix("constitution."), *map(str, finding.where.values())): finding
        for finding in compliance(RULES, responses, LABELLED * 9, rng=np.random.default_rng(0))
    }
    assert findings[("refusals",)].value == 0.4
    assert findings["refusals", "prompt"].value == 0.2
    assert findings[("generations",)].value == pytest.approx(1.6)
    assert findings["violations", "private", "prompts"].value == 0.2
    assert findings["violations", "sad", "unguarded"].value == 0.5
    assert findings["violations", "sad", "answers"].n == 3
    assert findings["violations", "sad", "requests"].n == 5
    assert findings["change", "any"].value == -0.5
    assert findings["true_violations", "short", "answers"].value == 0.0
    assert findings["checker_sensitivity", "sad"].value == 0.5
    # The lists of words are no better here than a coin's side and a half: it is said, and no number is made up.
    assert findings["fall", "any"].status in ("measured", "insufficient")
    with pytest.raises(ConfigError, match="needs responses"):
        compliance(RULES, [], rng=np.random.default_rng(0))


def test_without_labels_there_is_no_corrected_rate():
    found = compliance(RULES, [response(("sad",), ())] * 3, rng=np.random.default_rng(0))
    status = {f.where["principle"]: f for f in found if f.metric == "constitution.fall"}
    assert status["sad"].status == "insufficient"
    assert "no labelled text" in (status["sad"].reason or "")
    assert not [f for f in found if f.metric == "constitution.checker_sensitivity" and f.value is not None]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("text,sad\na,1\n", "no column 'prompt'"),
        ("", "no column 'prompt'"),
        ("prompt,text\np,t\n", "no column of a principle"),
        ("prompt,text,sad\np,t,yes\n", "sad is 'yes'"),
        ("prompt,sad,text\np,1\n", "fewer columns"),
    ],
)
def test_a_wrong_file_of_labels_is_one_clear_line(tmp_path, content, words):
    path = tmp_path / "labels.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_labelled(path, ["sad", "short"])
    with pytest.raises(DataError, match="cannot be read"):
        read_labelled(tmp_path / "none.csv", ["sad"])


def test_labels_that_nobody_gave_are_left_out(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("prompt,text,sad,other\np,t,,x\np,u,1,\n")
    assert [row.breaks for row in read_labelled(path, ["sad", "short"])] == [{}, {"sad": True}]
