"""A constitution is read strictly: what is wrong is one line that names the principle and what to write instead."""

import datetime
import re
from pathlib import Path

import pytest

from fedsafe.alignment import parse_constitution, read_constitution
from fedsafe.errors import ConfigError

COMMITTED = Path(__file__).resolve().parents[2] / "experiments" / "constitution"
ARTICLE = {
    "id": "short",
    "text": "It is short.",
    "scope": "response",
    "checker": {"name": "length", "most": 9},
}
OF_A_MODEL = {
    "id": "right",
    "text": "It is mostly right.",
    "scope": "model",
    "metric": "performance.accuracy",
    "op": ">=",
    "threshold": 0.8,
}


DATE = datetime.date(2026, 11, 30)


def constitution(*articles, **more):
    return parse_constitution(
        {"version": "1", "principle": list(articles or (ARTICLE,)), **more}, "rules.toml"
    )


def test_what_is_left_out_has_a_default_that_fits_the_scope():
    first, second, third, fourth = constitution(
        ARTICLE,
        OF_A_MODEL,
        {**OF_A_MODEL, "id": "soft", "severity": "should"},
        {**ARTICLE, "id": "asked", "scope": "prompt"},
    ).articles
    assert (first.action, second.action, third.action, fourth.action) == (
        "regenerate",
        "block",
        "warn",
        "refuse",
    )
    assert first.exact
    assert not fourth.ratified_by


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"checkr": "x"}, "has no key 'checkr'; did you mean 'checker'"),
        ({"scope": "respose"}, "did you mean 'response'"),
        ({"severity": "maybe"}, "severity is 'maybe'"),
        ({"action": "block"}, "action is 'block'"),
        ({"action": "warn"}, "cannot only warn"),
        ({"severity": "should", "action": "refuse"}, "cannot refuse"),
        ({"bound": 5}, "bound is 5"),
        ({"bound": 1.5}, "bound is 1.5"),
        ({"confidence": 95}, "confidence is 95"),
        ({"metric": "performance.accuracy"}, "no metric"),
        ({"checker": "lenght"}, "did you mean 'length'"),
        ({"checker": ""}, "needs a checker"),
        ({"text": ""}, "text is ''"),
        ({"hint": 3}, "hint is a text"),
        ({"checker": 3}, "checker is 3"),
        ({"checker": ["length"]}, "checker is ['length']"),
        ({"checker": DATE}, "checker holds datetime.date(2026, 11, 30), a date; write it as a text"),
        ({"checker": {"name": "length", "most": DATE}}, "checker holds"),
        ({"ratified_by": {"on": [DATE]}}, "ratified_by holds"),
        ({"scope": "prompt", "bound": 0.1}, "no bound"),
        ({"scope": "prompt", "hint": "Be short."}, "no hint"),
    ],
)
def test_a_wrong_principle_about_texts_is_one_line_that_names_it(change, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        constitution({**ARTICLE, **change})
    assert str(caught.value).startswith("rules.toml: principle 'short'")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"metric": "performance.acuracy"}, "did you mean 'performance.accuracy'"),
        ({"metric": ""}, "needs metric"),
        ({"threshold": None}, "needs threshold"),
        ({"checker": "finished"}, "no checker"),
        ({"bound": 0.1}, "no bound"),
        ({"severity": "should", "action": "block"}, "cannot block"),
        ({"metric": 3}, "metric is 3"),
        ({"metric": ["performance.accuracy"]}, "metric is ["),
        ({"metric": {"a": 1}}, "metric is {"),
        ({"where": "x"}, "where is 'x'"),
        ({"where": {"since": DATE}}, "where holds"),
        ({"op": 3}, "op is 3"),
    ],
)
def test_a_wrong_principle_about_models_is_one_line_that_names_it(change, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        constitution({**OF_A_MODEL, **change})
    assert str(caught.value).startswith("rules.toml: principle 'right'")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"version": "1"}, "no [[principle]]"),
        ({"version": "1", "principle": []}, "no [[principle]]"),
        ({"principle": [ARTICLE]}, "lacks its version"),
        ({"version": 1, "principle": [ARTICLE]}, 'version = "1"'),
        ({"version": "1", "principle": [ARTICLE, ARTICLE]}, "two principles have the id 'short'"),
        ({"version": "1", "principle": {"a": 1}}, "write each as [[principle]]"),
        ({"version": "1", "principle": [3]}, "principle 1 is 3"),
        ({"version": "1", "principle": [{"text": "x"}]}, "principle 1 lacks id and scope"),
        ({"version": "1", "principles": [ARTICLE]}, "did you mean 'principle'"),
    ],
)
def test_a_wrong_file_is_one_line(table, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        parse_constitution(table)


def test_a_file_that_is_not_there_or_no_toml_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_constitution(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("version = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_constitution(tmp_path / "bad.toml")


def test_the_digest_tells_every_change_but_none_of_the_layout():
    whole = constitution(ARTICLE, OF_A_MODEL)
    assert parse_constitution(whole.to_table()) == whole
    assert parse_constitution(whole.to_table()).digest == whole.digest
    assert constitution(OF_A_MODEL, ARTICLE).digest != whole.digest
    changed = constitution({**ARTICLE, "text": "It is very short."}, OF_A_MODEL)
    assert changed.digest != whole.digest
    voted = constitution({**ARTICLE, "ratified_by": {"status": "ratified"}}, OF_A_MODEL)
    assert voted.digest != whole.digest
    assert voted.articles[0].digest == whole.articles[0].digest


def test_a_checker_that_answers_neither_yes_nor_no_is_named():
    article = constitution({**ARTICLE, "checker": "test_constitution:mumble"}).articles[0]
    with pytest.raises(ConfigError, match="principle 'short' returned str"):
        article.kept_by("text", "prompt")


def mumble(text, prompt):
    return "perhaps"


def test_the_committed_constitution_has_six_principles_or_more_and_two_hundred_prompts():
    stories = read_constitution(COMMITTED / "stories.toml")
    assert len(stories.of("response")) >= 6
    assert stories.of("prompt")
    prompts = (COMMITTED / "prompts.txt").read_text().splitlines()
    assert len(set(prompts)) == len(prompts) >= 200
    refused = [prompt for prompt in prompts if not stories.articles[0].kept_by(prompt, prompt)]
    assert refused == prompts[-10:]
