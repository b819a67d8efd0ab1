"""Ratification counts groups apart, reports the minority, and writes what it found and nothing else into the file."""

import tomllib

import numpy as np
import pytest

from fedsafe.alignment import Ballot, parse_constitution, ratify, read_constitution, simulate_votes, tally
from fedsafe.alignment.ratified_file import read_opinions, rejected, stale, write_ratified
from fedsafe.errors import ConfigError, DataError
from fedsafe.findings import clopper_pearson
from fedsafe.rng import key_from_seed

FILE = """# A comment that stays.
version = "1"

[[principle]]  # the first
id = "short"
text = "Short."
scope = "response"
[principle.checker]
name = "length"
most = 9

[[principle]]
id = "ends"
text = "It ends; [[principle]] is no head here."
scope = "response"
checker = "finished"
"""


def ballot(questions=1, **options):
    names = tuple(f"q{i}" for i in range(questions))
    return Ballot(questions=names, digests=names, **options)


def counted(shares, size=4000, **options):
    """Votes of groups that agree by these shares."""
    asked = ballot(epsilon=2.0)
    opinions = np.concatenate([(np.arange(size) >= share * size) for share in shares.values()]).astype(
        np.int64
    )
    groups = np.repeat(list(shares), size)
    questions, answers = simulate_votes(asked, opinions[:, None], key_from_seed(1))
    return ratify(asked, questions, answers, groups=groups, **options).principles[0]


def test_the_group_that_agrees_least_decides_and_the_minority_is_named():
    found = counted({"a": 0.95, "b": 0.9, "c": 0.2})
    assert found.everybody.interval[0] > 0.5
    assert found.status == "rejected"
    assert found.minority == ("c",)
    assert found.product is not None
    assert found.least is not None
    assert found.product[1][0] <= 0.95 * 0.9 * 0.2 <= found.product[1][1]
    assert found.least[1][0] <= 0.2 <= found.least[1][1]
    assert counted({"a": 0.95, "b": 0.9}).status == "ratified"
    assert counted({"a": 0.95, "b": 0.5}).status == "undecided"
    assert counted({"a": 0.6, "b": 0.9}, threshold=0.7).minority == ("a",)


def test_the_intervals_of_groups_are_wider_so_that_they_hold_together():
    found = counted({"a": 0.5, "b": 0.5})
    assert {part.confidence for part in found.groups.values()} == {0.975}
    assert found.everybody.confidence == 0.95


def test_a_group_of_a_few_is_undecided_not_rejected():
    asked = ballot()
    questions, answers = simulate_votes(asked, np.zeros((503, 1), dtype=np.int64), key_from_seed(0))
    groups = ["many"] * 500 + ["few"] * 3
    found = ratify(asked, questions, answers, groups=groups).principles[0]
    assert found.status == "undecided"
    assert found.minority == ()


def test_the_claim_says_what_is_promised_to_whom():
    asked = ballot(4, epsilon=1.0, each=2)
    questions, answers = simulate_votes(asked, np.zeros((9, 4), dtype=np.int64), key_from_seed(0))
    claim = ratify(asked, questions, answers, groups=["g"] * 9).claim
    assert (claim.unit, claim.epsilon, claim.delta) == ("client", 1.0, 0.0)
    assert "server included" in claim.adversary
    assert "2 of 4 questions" in claim.sampler
    assert "epsilon 0.5 a question" in claim.accountant
    assert any("group" in line for line in claim.not_covered)


def test_the_claim_does_not_say_where_noise_comes_from_that_the_counter_has_not_seen():
    votes = np.zeros((9, 1), dtype=np.int64)
    assert ratify(ballot(), votes, votes).claim.randomness.startswith("not known")
    assert ratify(ballot(), votes, votes, randomness="dice").claim.randomness == "dice"


def test_a_voter_answers_a_question_once():
    asked = np.array([[0, 1], [1, 1]])
    with pytest.raises(ConfigError, match="voter 2 answers one question more than once"):
        ratify(ballot(3, each=2), asked, np.zeros((2, 2), int))


@pytest.mark.parametrize(("agreeing", "end"), [(100, 1.0), (95, 1.0), (5, 0.0), (0, 0.0)])
def test_a_tally_that_no_share_leads_to_is_at_its_end_and_no_point(agreeing, end):
    found = tally(agreeing, 100, ballot(epsilon=1.0))
    at_the_end = tally(74 if end else 26, 100, ballot(epsilon=1.0))
    assert found.interval == at_the_end.interval
    assert end in found.interval
    assert found.interval[1] - found.interval[0] > 0.1


def test_every_tallys_interval_holds_that_of_clopper_and_pearson_solved_for_the_share():
    for epsilon, votes in ((0.5, 10), (1.0, 30), (20.0, 25)):
        asked = ballot(epsilon=epsilon)
        other = 1 - asked.keeping
        for agreeing in range(votes + 1):
            solved = [
                min(1.0, max(0.0, (end - other) / (asked.keeping - other)))
                for end in clopper_pearson(agreeing, votes)
            ]
            low, high = tally(agreeing, votes, asked).interval
            assert low <= solved[0] <= solved[1] <= high
            assert low < high


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"groups": ["a"]}, "there are 5 voters"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"asked": np.zeros((5, 2), int)}, "votes are"),
        ({"answers": np.full((5, 1), 2)}, "a vote has answer 2"),
        ({"asked": np.full((5, 1), 1)}, "a vote has question 1"),
        ({"answers": np.full((5, 1), -1)}, "a vote has answer -1"),
        ({"asked": np.zeros((0, 1), int), "answers": np.zeros((0, 1), int)}, "no vote to count"),
    ],
)
def test_wrong_votes_are_one_clear_line(change, words):
    votes = {"asked": np.zeros((5, 1), int), "answers": np.zeros((5, 1), int), **change}
    asked, answers = votes.pop("asked"), votes.pop("answers")
    with pytest.raises(ConfigError, match=words):
        ratify(ballot(), asked, answers, **votes)


def tables(path, status="ratified"):
    return [
        {"status": status, "agree": 0.75, "minority": ['a "b"'], "digest": article.digest}
        for article in read_constitution(path).articles
    ]


def test_what_was_found_is_written_and_nothing_else_changes(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    before = tomllib.loads(FILE)
    write_ratified(path, tables(path))
    write_ratified(path, tables(path, "rejected"))
    text = path.read_text()
    assert text.startswith("# A comment that stays.")
    assert "# the first" in text
    assert text.count("ratified_by") == 2
    after = tomllib.loads(text)
    for article in after["principle"]:
        assert article.pop("ratified_by")["status"] == "rejected"
    assert after == before
    assert stale(read_constitution(path)) == []
    path.write_text(text.replace('"Short."', '"Very short."'))
    assert stale(read_constitution(path)) == ["short"]


@pytest.mark.parametrize(
    "content",
    [
        'version = "1"\nprinciple = [{ id = "a", text = "t", scope = "response", checker = "finished" }]\n',
        FILE.replace('"Short."', "'''a\n[[principle]]\nb'''"),
        FILE.replace('"Short."', "'''a\nratified_by = 3\nb'''"),
    ],
)
def test_a_file_that_cannot_be_changed_so_is_left_as_it_was(tmp_path, content):
    path = tmp_path / "rules.toml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"write every principle as \[\[principle\]\]"):
        write_ratified(path, tables(path))
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no voter"),
        ("q0\n", "no voter"),
        ("other\nagree\n", "no column 'q0'"),
        ("q0\nagree\nmaybe\n", "voter 2: q0 is 'maybe'"),
        ("q0\npass\n", "let voters pass"),
        ("q0\nagree\n", "no column 'sex'"),
        ("q0,sex\nagree,\n", "the group 'sex' is empty"),
    ],
)
def test_a_wrong_file_of_votes_is_one_clear_line(tmp_path, content, words):
    path = tmp_path / "votes.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=words):
        read_opinions(path, ballot(), "sex" if "sex" in words or "sex" in content else None)


def test_opinions_are_read_in_any_case_with_their_groups(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("voter,sex,q0\n1,f, Agree\n2,m,DISAGREE\n")
    read = read_opinions(path, ballot(), "sex")
    assert read.positions.tolist() == [[0], [1]]
    assert read.groups is not None
    assert read.groups.tolist() == ["f", "m"]


def test_a_constitution_without_ratification_has_nothing_stale():
    article = {"id": "a", "text": "t", "scope": "response", "checker": "finished"}
    assert stale(parse_constitution({"version": "1", "principle": [article]})) == []


def test_a_rejected_principle_is_named_until_it_is_changed_or_voted_on_again(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(FILE)
    write_ratified(path, tables(path, status="rejected"))
    assert rejected(read_constitution(path)) == ["short", "ends"]
    path.write_text(path.read_text().replace('"Short."', '"Very short."'))
    assert rejected(read_constitution(path)) == ["ends"]
    path.write_text(FILE)
    assert rejected(read_constitution(path)) == []
