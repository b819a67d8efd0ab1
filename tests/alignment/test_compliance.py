"""What a checker counts says of the truth: corrected shares and their intervals, held to simulations of known truth."""

import numpy as np
import pytest

from fedsafe.alignment import (
    Candidate,
    GuardedGenerator,
    Labelled,
    Response,
    compliance,
    corrected_shares,
    lead_in,
    measure_any,
    measure_checker,
    parse_constitution,
)
from fedsafe.alignment.checker_errors import EXACT, CheckerError, read_labelled
from fedsafe.alignment.corrected_shares import after_selection, fall, rogan_gladen
from fedsafe.assess.constitution import constitution_requirements
from fedsafe.assess.requirements import judge
from fedsafe.errors import ConfigError, DataError
from fedsafe.findings import clopper_pearson

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
    assert rogan_gladen(6, 100, error(80, 100, 90, 100)).value == 0.0
    assert rogan_gladen(30, 100, EXACT).value == 0.3


@pytest.mark.parametrize(("k", "n"), [(5, 10), (0, 0)])
@pytest.mark.parametrize(
    "bad", [error(5, 10, 5, 10), error(0, 0, 5, 10), error(5, 10, 0, 0), error(1, 10, 1, 10)]
)
def test_a_checker_of_unknown_error_or_no_better_than_chance_says_nothing(k, n, bad):
    found = rogan_gladen(k, n, bad)
    assert found.value is None
    assert found.method
    rng = np.random.default_rng(0)
    assert after_selection(k, n, 0, 10, bad, rng=rng).value is None
    assert fall(k, n, bad, 0, 10, rng=rng).value is None


def test_counts_that_the_labelled_texts_cannot_lead_to_are_said_and_no_number_is_made_up():
    found = rogan_gladen(0, 200, error(80, 100, 90, 100))
    assert found.value is None
    assert "do not fit" in found.method
    found = rogan_gladen(200, 200, error(80, 100, 90, 100))
    assert found.value is None
    assert "do not fit" in found.method


@pytest.mark.parametrize(("k", "own"), [(2, error(6, 8, 133, 142)), (206, error(133, 142, 6, 8)), (0, EXACT)])
def test_a_corrected_share_is_never_a_point(k, own):
    found = rogan_gladen(k, 210, own)
    assert found.value in (0.0, 1.0)
    low, high = found.interval
    # One-sided, and no narrower than what would be said of a checker without errors.
    assert high - low > 0.9 * (clopper_pearson(0, 210)[1])
    low, high = after_selection(k, 210, 0, 200, own, rng=np.random.default_rng(0)).interval
    assert high - low > 0.001


CASES = [
    (0.2, 0.8, 0.9, 40, 80),
    (0.05, 0.9, 0.95, 30, 100),
    (0.5, 0.7, 0.9, 60, 60),
    (0.02, 0.9, 0.99, 20, 100),
]


@pytest.mark.parametrize(("truth", "se", "sp", "broken", "kept"), CASES)
def test_intervals_cover_the_truth_before_and_after_the_guard_where_all_prompts_are_alike(
    truth, se, sp, broken, kept, monkeypatch
):
    monkeypatch.setattr(corrected_shares, "_DRAWS", 2000)
    rng = np.random.default_rng(1)
    left = truth * (1 - se) / (truth * (1 - se) + (1 - truth) * sp)
    before, after, naive, rounds = 0, 0, 0, 200
    for _ in range(rounds):
        k = int(rng.binomial(200, truth * se + (1 - truth) * (1 - sp)))
        own = error(int(rng.binomial(broken, se)), broken, int(rng.binomial(kept, sp)), kept)
        low, high = rogan_gladen(k, 200, own).interval or (0, 1)
        before += low <= truth <= high
        low, high = after_selection(k, 200, 0, 100, own, rng=rng).interval or (0, 1)
        after += low <= left <= high
        naive += rogan_gladen(0, 100, own).value in (0, None)
    assert before >= 0.91 * rounds
    assert after >= 0.91 * rounds
    # The usual correction says zero, or nothing, of what the checker itself selected, whatever it missed.
    assert naive == rounds


def test_the_share_after_selection_is_bayess():
    own, rng = error(80, 100, 90, 100), np.random.default_rng(0)
    guarded = after_selection(31, 100, 0, 50, own, rng=rng)
    truth = (0.31 + 0.9 - 1) / 0.7
    assert guarded.value == pytest.approx(truth * 0.2 / (truth * 0.2 + (1 - truth) * 0.9))
    # Where all answers are what the checker finds and passes, in the proportion of the sample, nothing is selected.
    assert after_selection(31, 100, 31, 100, own, rng=rng).value == pytest.approx(truth)
    assert after_selection(31, 100, 0, 50, EXACT, rng=rng).value == 0.0


@pytest.mark.parametrize("spread", [0.0, 0.45])
def test_the_fall_covers_the_truth_whether_prompts_are_alike_or_not(spread, monkeypatch):
    monkeypatch.setattr(corrected_shares, "_DRAWS", 2000)
    rng, se, sp, rounds = np.random.default_rng(2), 0.8, 0.9, 300
    # Half of the prompts lead to broken texts more often than the others; a guard asks until the checker lets pass.
    shares = np.array([0.5 - spread, 0.5 + spread])
    missed = shares * (1 - se) / (shares * (1 - se) + (1 - shares) * sp)
    truth = 1 - missed.mean() / shares.mean()
    covered = selected = 0
    for _ in range(rounds):
        bare = rng.random(200) < shares[rng.integers(0, 2, 200)]
        k = int((rng.random(200) < np.where(bare, se, 1 - sp)).sum())
        texts = rng.random(150) < shares[rng.integers(0, 2, 150)]
        flags = rng.random(150) < np.where(texts, se, 1 - sp)
        own = error(
            int((flags & texts).sum()), int(texts.sum()), int((~flags & ~texts).sum()), int((~texts).sum())
        )
        broken = int((rng.random(100) < missed[rng.integers(0, 2, 100)]).sum())
        low, high = fall(k, 200, own, broken, 100, rng=rng).interval or (0, 1)
        covered += low <= truth <= high
        low, high = after_selection(k, 200, 0, 200, own, rng=rng).interval or (0, 1)
        selected += low <= missed.mean() <= high
    assert covered >= 0.93 * rounds
    # What this is for: the figure that follows from labels of other texts covers only where all prompts are alike.
    assert selected >= 0.91 * rounds if spread == 0 else selected <= 0.5 * rounds


def test_the_fall_is_that_of_answers_read_against_the_corrected_share():
    own, rng = error(80, 100, 90, 100), np.random.default_rng(0)
    found = fall(31, 100, own, 3, 50, rng=rng)
    assert found.value == pytest.approx(1 - 0.06 / 0.3)
    assert found.interval[0] < found.value < found.interval[1]
    assert fall(31, 100, own, 0, 50, rng=rng).interval[1] == 1.0
    assert fall(31, 100, own, 50, 50, rng=rng).value < 0
    assert fall(31, 100, own, 0, 0, rng=rng).value is None
    assert fall(0, 100, EXACT, 0, 50, rng=rng).method == "nothing broke it before"


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
    answers = [f for f in found if f.metric == "constitution.true_violations" and f.where["of"] == "answers"]
    reasons = {f.where["principle"]: f.reason or "" for f in answers}
    assert "no answer was read" in reasons["sad"]
    assert reasons["short"] == ""  # the rule is the principle: what it finds is the truth
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


def one(**change):
    article = {"id": "a", "text": "t", "scope": "response", "checker": {"name": "words", "none_of": ["bad"]}}
    return parse_constitution({"version": "1", "principle": [article | change]})


def figure(found, metric, of="answers"):
    where = {"principle": "a", "of": of}
    return next(f for f in found if f.metric == f"constitution.{metric}" and f.where == where)


@pytest.mark.parametrize("case", ["prompts differ", "restating changes what is written"])
def test_the_true_share_of_answers_covers_where_no_inference_from_other_texts_does(case):
    rng = np.random.default_rng(0)

    def generate(prompt):
        draw = rng.random()
        if case == "prompts differ":
            broken = rng.random() < (0.95 if prompt.startswith("hard") else 0.05)
            return ("bad" if draw < 0.9 else "evil") if broken else "ok"
        if "HINT" in prompt:
            return "evil" if draw < 0.3 else "ok"
        return "bad" if draw < 0.6 else "evil" if draw < 0.62 else "ok"

    rules = one(hint="" if case == "prompts differ" else "HINT")
    prompts = [f"{'hard' if number % 2 else 'easy'} {number}" for number in range(400)]
    guard = GuardedGenerator(generate, rules, restate=lead_in, best_of=4 if case == "prompts differ" else 1)
    said = [guard(prompt) for prompt in prompts]

    def labelled(prompt, text):
        return Labelled(prompt=prompt, text=text, breaks={"a": text != "ok"})

    answers = [response for response in said if not response.refused]
    truth = float(np.mean([response.text == "evil" for response in answers]))
    read = [
        labelled(response.prompt, response.text)
        for response in rng.permutation(np.array(answers, object))[:200]
    ]
    bare = [labelled(prompt, generate(prompt)) for prompt in prompts]
    found = compliance(rules, said, bare, read, rng=rng)
    low, high = figure(found, "true_violations").interval
    assert low <= truth <= high
    low, high = figure(found, "true_violations", "requests").interval
    assert low <= truth * len(answers) / len(said) <= high
    inferred = figure(found, "inferred_violations")
    assert inferred.interval[1] < truth
    assert "if all prompts are alike" in inferred.interval_method


def test_answers_that_nobody_read_and_labels_of_other_texts_do_not_count():
    said = [response((), ())] * 3
    other = [Labelled(prompt="p", text="another", breaks={"sad": True})]
    found = compliance(RULES, said, LABELLED * 9, other, rng=np.random.default_rng(0))
    answers = {
        f.where["principle"]: f
        for f in found
        if f.metric == "constitution.true_violations" and f.where["of"] == "answers"
    }
    assert (answers["sad"].status, answers["any"].status) == ("insufficient", "insufficient")
    whole = [Labelled(prompt="p", text="t", breaks={"any": True})]
    found = compliance(RULES, said, LABELLED * 9, whole, rng=np.random.default_rng(0))
    figures = [f for f in found if f.metric == "constitution.true_violations" and f.where["of"] == "answers"]
    assert {f.where["principle"]: f.value for f in figures} == {"sad": None, "short": 0.0, "any": 1.0}


def fails(text, prompt):
    raise KeyError("x")


def test_a_checker_that_raises_on_a_labelled_text_is_one_line_with_the_principle_and_the_text():
    rules = one(checker=f"{__name__}:fails")
    read = [Labelled(prompt="", text="b", breaks={}), Labelled(prompt="", text="b", breaks={"a": True})]
    for measure in (
        lambda: measure_checker(rules.articles[0], read),
        lambda: measure_any(rules.articles, read),
    ):
        with pytest.raises(ConfigError, match="principle 'a' failed on labelled text 2: KeyError"):
            measure()


def test_a_principles_own_confidence_is_that_of_its_figures():
    rules = one(confidence=0.99, bound=0.2, checker={"name": "length", "least": 1})
    guard = GuardedGenerator(lambda prompt: "fine", rules, best_of=1)
    found = compliance(rules, [guard("x")] * 2000, rng=np.random.default_rng(0))
    assert judge(constitution_requirements(rules, "response")[0], found).verdict == "pass"


def test_answers_after_a_first_attempt_that_wrote_nothing_are_counted():
    rules = one(severity="should", checker={"name": "length", "least": 5})
    calls = iter([TimeoutError])

    def flaky(prompt):
        for error in calls:
            raise error
        return "fine"

    said = GuardedGenerator(flaky, rules, best_of=1)("x")
    assert said.first is None
    assert not said.refused
    found = compliance(rules, [said], rng=np.random.default_rng(0))
    assert [figure(found, "violations", of).value for of in ("answers", "requests")] == [1.0, 1.0]
    assert figure(found, "violations", "unguarded").n == 0
