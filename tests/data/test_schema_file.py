"""A schema file is read strictly: what is not in the format is refused, with the place and the remedy."""

import textwrap

import pytest

from fedsafe.data import Categorical, Numeric, Split, Target, parse_schema, read_schema, schema_file
from fedsafe.errors import DataError

LABEL = '[label]\ncolumn = "y"\nclasses = ["no", "yes"]'
MINIMAL = """
format = "fedsafe.schema/1"
[label]
column = "y"
classes = ["no", "yes"]
[columns.age]
kind = "numeric"
low = 0
high = 100
[columns.job]
kind = "categorical"
categories = ["a", "b"]
"""


def documented() -> str:
    """The example in the module's documentation."""
    text = schema_file.__doc__ or ""
    start, end = text.index('    format = "'), text.index("An unknown key")
    return textwrap.dedent(text[start:end])


def test_the_documented_example_is_valid_and_means_what_it_says():
    schema = parse_schema(documented(), "example")
    hours, country = schema.columns
    assert hours == Numeric(name="hours-per-week", low=10, high=70, fill=40, encoded=(0, 1))
    assert country == Categorical(
        name="native-country",
        categories=("United-States", "Asia"),
        merge={"Asia": ("India", "Japan")},
        immutable=True,
    )
    assert schema.split == Split(column="split", train="train", evaluation="test")
    assert schema.missing == ("?",)
    assert schema.evaluation_public is False


def test_the_documentation_names_every_key():
    text = documented()
    for keys in (
        schema_file._TOP,
        schema_file._LABEL,
        schema_file._TARGET,
        schema_file._SPLIT,
        schema_file._NUMERIC,
        schema_file._CATEGORICAL,
    ):
        for key in keys:
            assert f"{key} = " in text or f"[{key}" in text, key


def test_a_target_and_holders_take_the_place_of_a_label():
    content = MINIMAL.replace(
        'format = "fedsafe.schema/1"', 'format = "fedsafe.schema/1"\nholders = ["clinic"]'
    )
    schema = parse_schema(
        content.replace(LABEL, '[target]\ncolumn = "y"\nlow = 0\nhigh = 9\nunit = "mg"'), "s"
    )
    assert schema.target == Target(name="y", low=0, high=9, unit="mg")
    assert (schema.label, schema.holders, schema.answer) == (None, ("clinic",), "y")
    assert parse_schema(MINIMAL, "s").target is None


def test_evaluation_is_private_unless_the_schema_says_public():
    assert not parse_schema(MINIMAL, "s").evaluation_public
    assert parse_schema('evaluation = "public"\n' + MINIMAL, "s").evaluation_public


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("low = 0", "lo = 0", r"\[columns.age\] has the unknown key 'lo'. Did you mean 'low'"),
        ("categories", "catgories", "Did you mean 'categories'"),
        ("[label]", "[lable]", "Did you mean 'label'"),
        ("high = 100\n", "", r"\[columns.age\] lacks the key 'high'"),
        ("high = 100", "high = true", "high = True; expected a number"),
        ("high = 100", "high = -1", r"\[columns.age\]: .*low < high"),
        ("high = 100", "high = 100\ntransform = 'log'", "transform = 'log'; expected 'none' or 'log1p'"),
        ("high = 100", "high = 100\nbins = [1, 'x']", "bins = .* expected a list, each item a number"),
        ("high = 100", "high = 100\nimmutable = 1", "expected true or false"),
        ('kind = "numeric"', 'kind = "number"', "kind = 'number'; use 'numeric' or 'categorical'"),
        ('kind = "numeric"', "", "kind = None"),
        ('["no", "yes"]', '["no"]', r"\[label\]: .*two or more"),
        ('["no", "yes"]', '["no", 1]', "each item a text"),
        ("schema/1", "schema/9", "reads 'fedsafe.schema/1'"),
        ('["a", "b"]', '["a", "b"]\nmerge = { c = ["d"] }', "merges into 'c'"),
        ('["a", "b"]', '["a", "b"]\nmerge = { a = "d" }', "merge = 'd'; expected a list"),
        ('["a", "b"]', '["a", "b"]\nmerge = 3', "merge = 3; expected a table"),
        ("[label]", "evaluation = 'secret'\n[label]", "use 'public' or 'private'"),
        ("[label]", "columns = 3\n[label]", "not valid TOML"),
        ("[columns.age]", "[columns]\nx = 1\n[columns.age]", "must be a table"),
        ("[label]", "split = { train = 'a' }\n[label]", r"\[split\] lacks the key 'column'"),
        ("low = 0", "low = ", "not valid TOML"),
        (
            "[label]",
            "target = { column = 'z', low = 0, high = 1 }\n[label]",
            r"needs one of \[label\] and \[target\]",
        ),
        (LABEL, "", r"needs one of \[label\] and \[target\]"),
        (
            LABEL,
            "[target]\ncolumn = 'y'\nlow = 0",
            r"\[target\] lacks the key 'high'",
        ),
        (
            LABEL,
            "[target]\ncolumn = 'y'\nlow = 1\nhigh = 0",
            r"\[target\]: .*low < high",
        ),
        ("[label]", "holders = 'clinic'\n[label]", "holders = 'clinic'; expected a list"),
        ("high = 100", "high = 100\nunknown = 'none'", "it needs encoding = 'bins'"),
    ],
)
def test_a_mistake_is_refused_with_its_place_and_the_remedy(old, new, message):
    assert old in MINIMAL
    with pytest.raises(DataError, match=message) as caught:
        parse_schema(MINIMAL.replace(old, new, 1), "my.toml")
    assert str(caught.value).startswith("my.toml")


def test_a_missing_or_binary_schema_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.toml cannot be read: No such file"):
        read_schema(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"binary.toml is not UTF-8"):
        read_schema(tmp_path / "binary.toml")
