"""The guard answers with what keeps the constitution, or refuses: always in bounded time, and never by mistake."""

import numpy as np
import pytest

from fedsafe.alignment import GuardedGenerator, instruct, lead_in, parse_constitution
from fedsafe.errors import ConfigError

SHORT = {
    "id": "short",
    "text": "Nine words at most.",
    "scope": "response",
    "checker": {"name": "length", "most": 9},
}
KIND = {
    "id": "kind",
    "text": "Nobody is called bad.",
    "scope": "response",
    "checker": {"name": "words", "none_of": ["bad"]},
    "hint": "Everybody was good.",
}
FULL = {
    "id": "full",
    "text": "It ends.",
    "scope": "response",
    "checker": "finished",
    "severity": "should",
}
PRIVATE = {"id": "private", "text": "No address.", "scope": "prompt", "checker": "personal_identifiers"}


def rules(*articles):
    return parse_constitution({"version": "1", "principle": list(articles)})


class Writer:
    """Writes what it is told, one text after another, and remembers what it was asked."""

    def __init__(self, *texts):
        self.texts, self.asked = list(texts), []

    def __call__(self, prompt):
        self.asked.append(prompt)
        return self.texts[min(len(self.asked), len(self.texts)) - 1]


def fails(text, prompt):
    raise RuntimeError("no\nluck")


def test_a_prompt_that_is_refused_is_never_generated_from():
    writer = Writer("Good.")
    response = GuardedGenerator(writer, rules(PRIVATE, SHORT))("I am a@b.example.org")
    assert response.refused
    assert response.violated == ("private",)
    assert "private" in response.reason
    assert writer.asked == []
    assert response.attempts == 0
    assert response.first is None


def test_a_warning_about_a_prompt_stays_with_the_answer():
    soft = {**PRIVATE, "severity": "should"}
    response = GuardedGenerator(Writer("Good."), rules(soft, SHORT), best_of=1)("I am a@b.example.org")
    assert not response.refused
    assert response.violated == ("private",)


def test_the_first_candidate_that_passes_is_the_answer_without_a_reward():
    response = GuardedGenerator(Writer("bad.", "one.", "two."), rules(KIND), best_of=3)("Go")
    assert response.text == "one."
    assert response.attempts == 1
    # The third is not asked for: it could not be the answer.
    assert [candidate.violated for candidate in response.candidates] == [("kind",), ()]
    assert response.first is not None
    assert response.first.text == "bad."


def test_the_reward_chooses_among_those_that_pass_only():
    writer = Writer("bad and longest of all.", "good.", "better one.")
    response = GuardedGenerator(writer, rules(KIND), best_of=3, reward=len)("Go")
    assert response.text == "better one."
    assert response.candidates[0].score is None


@pytest.mark.parametrize("reward", [lambda text: float("nan"), lambda text: 1 / 0, lambda text: "much"])
def test_a_reward_that_fails_leaves_the_first_that_passes_and_is_recorded(reward):
    response = GuardedGenerator(Writer("one.", "two."), rules(KIND), best_of=2, reward=reward)("Go")
    assert response.text == "one."
    assert any("reward" in line for line in response.failures)


def test_what_was_broken_is_stated_in_the_prompt_of_the_next_attempt():
    writer = Writer("bad.", "bad.", "good.", "good.")
    response = GuardedGenerator(writer, rules(KIND), best_of=2)("Go")
    assert response.text == "good."
    assert response.attempts == 2
    assert writer.asked[:2] == ["Go", "Go"]
    assert writer.asked[2] == "Go\n\nKeep to these principles:\n- Everybody was good."
    leading = Writer("bad.", "good.")
    GuardedGenerator(leading, rules(KIND), best_of=1, restate=lead_in)("Go")
    assert leading.asked[1] == "Go Everybody was good."
    assert lead_in("Go", rules(SHORT).articles) == "Go"
    assert "Nine words at most." in instruct("Go", rules(SHORT).articles)


def test_the_checkers_see_the_prompt_that_was_asked_and_not_the_restated_one():
    named = {**KIND, "id": "named", "checker": {"name": "mentions", "names": ["Lily", "good"]}}
    response = GuardedGenerator(
        Writer("bad Lily.", "Lily sat."), rules(KIND, named), best_of=1, restate=lead_in
    )("Lily ran.")
    assert response.text == "Lily sat."


def test_an_impossible_constitution_ends_in_a_refusal_after_so_many_calls():
    long = {"id": "long", "text": "Long.", "scope": "response", "checker": {"name": "length", "least": 10}}
    writer = Writer("some words.")
    guard = GuardedGenerator(writer, rules(SHORT, long), best_of=4, attempts=3, refusal="No.")
    response = guard("Go")
    assert response.refused
    assert response.text == "No."
    assert len(writer.asked) == 12 == len(response.candidates)
    assert response.violated == ("long",)
    assert "after 3 attempts" in response.reason


def test_a_grave_principle_ends_in_a_refusal_at_once():
    grave = {**KIND, "action": "refuse"}
    writer = Writer("good.", "bad.")
    response = GuardedGenerator(writer, rules(grave), best_of=2, attempts=9)("Go")
    assert response.refused
    assert response.attempts == 1


def test_a_should_is_tried_for_and_given_up_with_a_word():
    writer = Writer("good", "good.")
    assert GuardedGenerator(writer, rules(KIND, FULL), best_of=1)("Go").text == "good."
    never = GuardedGenerator(Writer("good", "bad."), rules(KIND, FULL), best_of=1, attempts=3)("Go")
    assert never.text == "good"
    assert not never.refused
    assert never.violated == ("full",)
    assert never.attempts == 3
    warned = GuardedGenerator(Writer("good"), rules(KIND, {**FULL, "action": "warn"}), best_of=1)("Go")
    assert warned.attempts == 1
    assert warned.violated == ("full",)


def test_a_checker_that_raises_fails_closed_and_is_named_in_one_line():
    broken = {**SHORT, "id": "odd", "checker": "test_guard:fails"}
    response = GuardedGenerator(Writer("good."), rules(KIND, broken), best_of=2, attempts=2)("Go")
    assert response.refused
    assert response.violated == ("odd",)
    assert response.failures == ("the checker of principle 'odd' failed: RuntimeError: no luck",)
    asked = {**PRIVATE, "checker": "test_guard:fails"}
    assert GuardedGenerator(Writer("good."), rules(asked, KIND))("Go").refused


def test_a_generator_that_raises_or_returns_no_text_is_a_refusal_with_a_reason():
    def raising(prompt):
        raise ValueError("out of memory")

    response = GuardedGenerator(raising, rules(KIND), attempts=2)("Go")
    assert response.refused
    assert response.reason == "nothing could be generated"
    assert response.failures == ("the generator failed: ValueError: out of memory",)
    none = GuardedGenerator(lambda prompt: None, rules(KIND))("Go")  # type: ignore[arg-type,return-value]
    assert none.refused
    assert "something else than a text" in none.failures[0]


def test_seeds_repeat_an_answer_and_the_first_is_that_of_the_unguarded_generator():
    def generate(prompt, seed):
        return f"{prompt} {seed % 1000}."

    guard = GuardedGenerator(generate, rules(KIND), best_of=3, reward=len)  # type: ignore[arg-type]
    response = guard("Go", seed=7)
    assert response == guard("Go", seed=7)
    assert response.first is not None
    assert response.first.text == generate("Go", 7)
    seeds = [candidate.seed for candidate in response.candidates]
    assert len(set(seeds)) == 3
    assert seeds[0] == 7
    drawn = GuardedGenerator(generate, rules(KIND), rng=np.random.default_rng(0))  # type: ignore[arg-type]
    assert drawn("Go").candidates[0].seed != drawn("Go").candidates[0].seed


def test_a_wrong_guard_is_one_clear_line():
    for options, words in (({"best_of": 0}, "best_of is 0"), ({"attempts": True}, "attempts is True")):
        with pytest.raises(ConfigError, match=words):
            GuardedGenerator(Writer("a"), rules(KIND), **options)
    of_a_model = {
        "id": "m",
        "text": "m",
        "scope": "model",
        "metric": "performance.accuracy",
        "op": ">=",
        "threshold": 0.5,
    }
    with pytest.raises(ConfigError, match="nothing to guard"):
        GuardedGenerator(Writer("a"), rules(of_a_model))
    with pytest.raises(ConfigError, match="not something to call"):
        GuardedGenerator("stories", rules(KIND))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a prompt is a text"):
        GuardedGenerator(Writer("a"), rules(KIND))(3)  # type: ignore[arg-type]


class Several:
    """A generator that is asked for many texts at once, and has no end of them."""

    taken = 0

    def __call__(self, prompt):
        return "good."

    def many(self, prompt, seeds):
        while True:
            self.taken += 1
            yield "good."


def test_an_endless_generator_of_many_is_asked_for_no_more_than_it_takes():
    writer = Several()
    response = GuardedGenerator(writer, rules(KIND), best_of=3)("Go")
    assert len(response.candidates) == writer.taken == 3


def test_many_that_returns_one_text_is_an_error_and_no_letters():
    writer = Writer("good.")
    writer.many = lambda prompt, seeds: "hello"
    response = GuardedGenerator(writer, rules(KIND))("Go")
    assert response.refused
    assert "returned one text" in response.failures[0]


def test_what_was_written_before_an_error_counts():
    def some(prompt, seeds):
        yield "good."
        raise ValueError("out of memory")

    writer = Writer("never.")
    writer.many = some
    response = GuardedGenerator(writer, rules(KIND))("Go")
    assert response.text == "good."
    assert "out of memory" in response.failures[0]


@pytest.mark.parametrize("seed", [-1, 1.5, "a", True])
def test_a_wrong_seed_is_one_clear_line(seed):
    with pytest.raises(ConfigError, match=r"seed is .*whole number from 0"):
        GuardedGenerator(Writer("a"), rules(KIND))("Go", seed=seed)


def leaves(text, prompt):
    raise SystemExit(3)


def test_a_checker_that_ends_the_process_fails_closed():
    odd = {**SHORT, "id": "odd", "checker": "test_guard:leaves"}
    response = GuardedGenerator(Writer("good."), rules(odd), best_of=1, attempts=1)("Go")
    assert response.refused
    assert "SystemExit" in response.failures[0]
