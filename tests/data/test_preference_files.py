"""The user's own files of ratings and pairs: what they mean, and one clear line for whatever is wrong in one."""

import numpy as np
import pytest

from fedsafe.data import federate, load_task
from fedsafe.data.preference_schema import parse_preference_schema
from fedsafe.errors import ConfigError, DataError

RATINGS = """
format = "fedsafe.preferences/1"
kind = "ratings"
annotator = "who"
item = "name"
rating = "stars"
groups = ["team"]

[features]
from = "columns"
columns = ["length", "anger"]
low = 0
high = 10
"""
PAIRS = """
format = "fedsafe.preferences/1"
kind = "pairs"
annotator = "who"
first = "a"
second = "b"
preference = "choice"
values = { first = "1", second = "2", tie = "0" }
block = "prompt"

[features]
from = "columns"
first = ["a1"]
second = ["b1"]
low = -1
high = 1
"""
_LEAST = {"least": 1, "evaluation_fraction": 0.5}


def rating_rows() -> list[list[str]]:
    """Three people rate twelve items; item i has i stars, of five, and features (i, 2)."""
    rows = [
        [who, f"i{at}", str(at % 5), who[0], str(at), "2"] for who in ("xa", "xb", "ya") for at in range(12)
    ]
    return [["who", "name", "stars", "team", "length", "anger"], *rows]


def pair_rows() -> list[list[str]]:
    rows = [
        [who, f"p{at // 2}", f"t{at}", f"u{at}", "120"[at % 3], f"{at / 12}", f"{-at / 12}"]
        for who in ("x", "y")
        for at in range(12)
    ]
    return [["who", "prompt", "a", "b", "choice", "a1", "b1"], *rows]


def load(tmp_path, rows, schema, **options):
    path, schema_path = tmp_path / "own.csv", tmp_path / "own.preferences.toml"
    path.write_text("\n".join(",".join(row) for row in rows), encoding="utf-8")
    schema_path.write_text(schema, encoding="utf-8")
    return load_task({"name": "preferences", "path": str(path), **_LEAST} | options)


def test_ratings_become_pairs_of_which_the_better_rated_is_preferred(tmp_path):
    task = load(tmp_path, rating_rows(), RATINGS)
    assert (task.name, task.kind, task.classes) == ("own", "binary", ("second", "first"))
    assert task.schema.shape == (2, 2)
    place = np.rint((task.train.x[:, :, 0] + 1) * 5)  # from [-1, 1] to 0 .. 10, where 11 counts as 10
    assert place.max() <= 10
    below = (place < 10).all(axis=1)
    np.testing.assert_array_equal((place[:, 0] % 5 > place[:, 1] % 5)[below], task.train.y[below] == 1)
    np.testing.assert_allclose(task.train.x[:, :, 1], -0.6, atol=1e-6)
    assert set(task.train.groups["team"]) == {"x", "y"}
    assert not task.evaluation_public
    assert task.source.sha256 == ""


def test_people_are_the_clients_of_the_natural_partition(tmp_path):
    cut = federate(
        load(tmp_path, rating_rows(), RATINGS),
        clients=None,
        partition={"name": "natural", "by": "annotator"},
        seed=0,
    )
    assert cut.names == ("xa", "xb", "ya")


def test_a_lower_rating_can_be_the_preferred_one(tmp_path):
    higher = load(tmp_path, rating_rows(), RATINGS)
    lower = load(tmp_path, rating_rows(), RATINGS.replace("groups", 'prefer = "lower"\ngroups'))
    np.testing.assert_array_equal(higher.train.x, lower.train.x)
    np.testing.assert_array_equal(higher.train.y, 1 - lower.train.y)


def test_pairs_mean_what_their_column_says_and_blocks_are_held_out_together(tmp_path):
    task = load(tmp_path, pair_rows(), PAIRS, ties="keep")
    assert (task.kind, task.classes) == ("multiclass", ("second", "first", "tie"))
    at = np.rint(task.train.x[:, 0, 0] * 12).astype(int)
    np.testing.assert_array_equal(task.train.y, np.array([1, 0, 2])[at % 3])
    np.testing.assert_allclose(task.train.x[:, 1], -task.train.x[:, 0])
    judged = np.rint(task.evaluation.x[:, 0, 0] * 12).astype(int)
    assert set(at // 2).isdisjoint(judged // 2)
    assert len(task.train) + len(task.evaluation) == 24
    dropped = load(tmp_path, pair_rows(), PAIRS)
    assert len(dropped.train) + len(dropped.evaluation) == 16
    assert dropped.kind == "binary"


def test_texts_are_embedded(tmp_path, monkeypatch):
    asked = {}

    def embed(texts, *, layers, keep):
        asked.update(texts=texts, layers=layers, keep=keep)
        return np.full((len(texts), 4), 0.5, np.float32)

    monkeypatch.setattr("fedsafe.data.preference_files.embed", embed)
    text = (
        RATINGS[: RATINGS.index("[features]")] + '[features]\nfrom = "text"\nlayers = "last"\nkeep = false\n'
    )
    task = load(tmp_path, rating_rows(), text)
    assert asked == {"texts": tuple(sorted(f"i{at}" for at in range(12))), "layers": "last", "keep": False}
    assert task.schema.shape == (2, 4)
    assert set(task.preferences.lengths) <= {2.0, 3.0}


def changed(rows, row, column, value):
    rows = [list(cells) for cells in rows]
    rows[row + 1][column] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "schema", "message"),
    [
        (
            rating_rows(),
            RATINGS.replace('"who"', '"annotator"'),
            r"own.csv has no column 'annotator', which .*own.preferences.toml names as annotator. Its columns: who",
        ),
        (
            [["who", *row[1:-1], "who"] for row in rating_rows()],
            RATINGS.replace(', "anger"', ""),
            "has 2 columns 'who'",
        ),
        (changed(rating_rows(), 4, 0, ""), RATINGS, "row 4 .* has no 'who': fill it in"),
        (changed(rating_rows(), 4, 1, " "), RATINGS, "row 4 .* has no 'name'"),
        (
            changed(rating_rows(), 7, 2, "many"),
            RATINGS,
            "row 7 .* has stars = 'many', which is no finite number",
        ),
        (
            changed(rating_rows(), 7, 2, "inf"),
            RATINGS,
            "row 7 .* has stars = 'inf', which is no finite number",
        ),
        (
            changed(rating_rows(), 3, 1, "i1"),
            RATINGS,
            "rows 1 and 3 .*: the annotator 'xa' rated one item twice",
        ),
        (
            changed(rating_rows(), 3, 3, "y"),
            RATINGS,
            "row 3 .*: the annotator 'xa' has team = 'y', and before 'x'",
        ),
        (
            changed(rating_rows(), 14, 4, "9"),
            RATINGS,
            "row 14 .*: the item 'i2' has other features than before",
        ),
        (
            changed(pair_rows(), 5, 4, "left"),
            PAIRS,
            "row 5 .* has choice = 'left'; use one of 1, 2, 0, or say in the schema",
        ),
        ([*pair_rows(), pair_rows()[4]], PAIRS, "rows 3 and 24 .*: the annotator 'x' judged one pair twice"),
        (changed(pair_rows(), 5, 3, "t5"), PAIRS, "row 5 .* compares an item with itself"),
        (changed(pair_rows(), 5, 4, ""), PAIRS, "row 5 .* has choice = ''"),
        (rating_rows()[:1], RATINGS, "has no rows"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, rows, schema, message):
    with pytest.raises(DataError, match=message):
        load(tmp_path, rows, schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (RATINGS.replace("/1", "/2"), "has format 'fedsafe.preferences/2'; this version reads"),
        (RATINGS.replace('kind = "ratings"', ""), "lacks the key 'kind'"),
        (
            RATINGS.replace('kind = "ratings"', 'kind = "votes"'),
            "has kind = 'votes'; use one of ratings, pairs",
        ),
        (RATINGS.replace('annotator = "who"', ""), "lacks the key 'annotator': name the column"),
        (RATINGS.replace("stars", ""), "has rating = ''; expected a text"),
        (RATINGS.replace("rating =", "ratings ="), "unknown key 'ratings'. Did you mean 'rating'"),
        (
            RATINGS.replace("low = 0", ""),
            r"\[features\] has low = None; expected a number: the public bounds",
        ),
        (RATINGS.replace("low = 0", "low = 10"), "low must be below high"),
        (RATINGS.replace('"columns"', '"words"'), "has from = 'words'; use one of text, columns"),
        (RATINGS.replace('["team"]', '["team", "team"]'), "names a column twice in groups"),
        (PAIRS.replace('second = ["b1"]', 'second = ["b1", "b2"]'), "names 1 and 2 columns: as many of both"),
        (PAIRS.replace('second = "2"', 'second = "1"'), "writes two outcomes alike"),
        (PAIRS.replace("tie =", "draw ="), "has values = .* expected a table such as"),
        ("format = ", "is not valid TOML"),
    ],
)
def test_a_schema_that_breaks_the_format_is_refused(schema, message):
    with pytest.raises(DataError, match=message):
        parse_preference_schema(schema, "own.preferences.toml")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ties": "some"}, ConfigError, "task.ties = 'some' is unknown"),
        ({"sede": 1}, ConfigError, "task has the unknown key 'sede'. Did you mean 'seed'"),
        ({"evaluation_fraction": "half"}, ConfigError, "task.evaluation_fraction = 'half' is not a number"),
        ({"path": "no.csv"}, DataError, "The schema no.preferences.toml cannot be read"),
        ({"path": ""}, ConfigError, "task.path = '' is not a path"),
        ({"most": 0}, ConfigError, "task.most = 0 is not a whole number of at least 1"),
    ],
)
def test_an_option_that_cannot_be_is_refused(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        load(tmp_path, rating_rows(), RATINGS, **options)
