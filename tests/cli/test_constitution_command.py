"""``fedsafe constitution``: check, ratify and guard; a wrong file is one line and nothing is written."""

import json
import tomllib

import pytest

RULES = """
version = "1"
[[principle]]
id = "kind"
text = "Nobody is called bad."
scope = "response"
checker = { name = "words", none_of = ["bad"] }
bound = 0.5
[[principle]]
id = "short"
text = "Short."
scope = "response"
checker = { name = "length", most = 9 }
"""
GENERATOR = """
def generate(prompt, seed):
    return "bad." if seed % 2 else "good."

def never(prompt):
    return "bad."
"""


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    (tmp_path / "own_generator.py").write_text(GENERATOR)
    (tmp_path / "prompts.txt").write_text("\n".join(f"Prompt {i}." for i in range(20)))
    (tmp_path / "labels.csv").write_text(
        "prompt,text,kind\n" + "p,so bad,1\n" * 20 + "p,evil,1\n" + "p,good,0\n" * 30
    )
    lines = ["group,kind,short"] + ["a,agree,agree"] * 300 + ["b,disagree,agree"] * 300
    (tmp_path / "votes.csv").write_text("\n".join(lines) + "\n")
    return path


def test_check_prints_every_principle_and_refuses_in_one_line(fedsafe, rules):
    done = fedsafe("constitution", "check", rules)
    assert done.code == 0, done.err
    assert "kind: Nobody is called bad." in done.out
    assert "not voted on" in done.out
    rules.write_text(RULES.replace("none_of", "non_of"))
    wrong = fedsafe("constitution", "check", rules)
    assert wrong.code == 1
    assert wrong.err.count("\n") == 1
    assert "did you mean 'none_of'" in wrong.err


def test_ratify_counts_private_votes_and_a_later_change_is_noticed(fedsafe, rules, tmp_path):
    done = fedsafe(
        *("constitution", "ratify", rules, "--votes", tmp_path / "votes.csv", "--groups", "group"),
        *("--epsilon", 4, "--seed", 1, "--json"),
    )
    assert done.code == 0, done.err
    body = json.loads(done.out)
    assert body["claim"]["epsilon"] == 4.0
    assert "no guarantee" in body["claim"]["randomness"]
    written = {
        article["id"]: article["ratified_by"] for article in tomllib.loads(rules.read_text())["principle"]
    }
    assert written["kind"]["status"] == "rejected"
    assert written["kind"]["minority"] == ["b"]
    assert written["short"]["status"] == "ratified"
    assert fedsafe("constitution", "check", rules).code == 0
    rules.write_text(rules.read_text().replace('"Short."', '"Very short."'))
    changed = fedsafe("constitution", "check", rules)
    assert changed.code == 1
    assert "changed since: vote again" in changed.out


def test_a_wrong_vote_is_one_line_and_leaves_the_file(fedsafe, rules, tmp_path):
    before = rules.read_text()
    for options, words in (
        (("--epsilon", 0), "between 0.001 and 20"),
        (("--groups", "sex"), "no column 'sex'"),
        (("--confidence", 95), "not between 0 and 1"),
        (("--each", 3), "there are 2 principles"),
    ):
        done = fedsafe("constitution", "ratify", rules, "--votes", tmp_path / "votes.csv", *options)
        assert done.code == 1
        assert done.err.count("\n") == 1
        assert words in done.err
    assert rules.read_text() == before


def test_guard_holds_any_generator_to_the_principles(fedsafe, rules, tmp_path):
    options = ("--prompts", tmp_path / "prompts.txt", "--labelled", tmp_path / "labels.csv")
    command = ("constitution", "guard", rules, "--generator", "own_generator:generate", *options)
    done = fedsafe(*command, "--out", tmp_path / "said.jsonl", "--json")
    # Nobody has read the answers: the bound of a must is not known to be met.
    assert done.code == 1, done.err
    assert json.loads(done.out)["requirements"][0]["verdict"] == "unmeasured"
    answers = "".join(f"Prompt {number}.,good.,0\n" for number in range(20))
    (tmp_path / "answers.csv").write_text("\ufeffprompt,text,kind\n" + answers, encoding="utf-8")
    done = fedsafe(*command, "--read", tmp_path / "answers.csv", "--json")
    assert done.code == 0, done.err
    body = json.loads(done.out)
    kind = {
        (finding["metric"], finding["where"]["of"]): finding["value"]
        for finding in body["findings"]
        if finding["where"].get("principle") == "kind" and "of" in finding["where"]
    }
    assert kind["constitution.violations", "unguarded"] == 0.5
    assert kind["constitution.violations", "answers"] == 0.0
    assert body["requirements"][0]["verdict"] == "pass"
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert {line["text"] for line in said} == {"good."}


def test_guard_refuses_all_where_nothing_passes_and_says_that_nothing_is_measured(fedsafe, rules, tmp_path):
    done = fedsafe(
        *("constitution", "guard", rules, "--generator", "own_generator:never"),
        *("--prompts", tmp_path / "prompts.txt"),
    )
    assert done.code == 1
    assert "constitution.refusals: 1.000" in done.out
    assert "must kind: unmeasured" in done.out
    asked = ("constitution", "guard", rules, "--prompts", tmp_path / "prompts.txt")
    seeded = fedsafe(*asked, "--seed", -5)
    assert (seeded.code, seeded.err.count("\n")) == (1, 1)
    assert "--seed is -5" in seeded.err
    wrong = fedsafe("constitution", "guard", rules, "--prompts", tmp_path / "none.txt")
    assert wrong.code == 1
    assert "cannot be read" in wrong.err
