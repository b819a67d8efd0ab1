"""What every shipped task keeps: the facts that it is listed with, public bounds, and a split that separates."""

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from fedsafe.data import ArraySchema, Schema, Task, TokenSchema, federate, load_task
from fedsafe.data.dataset import Examples
from fedsafe.data.tasks import SHIPPED
from fedsafe.errors import ConfigError

FOLDERS = {
    "mnist-writers": "mnist", "heart": "heart_disease", "acs-states": "acs_pums",
    "parkinsons": "parkinsons_telemonitoring", "shakespeare": "tinyshakespeare",
    "offensiveness": "popquorn_offensiveness", "pandalm": "pandalm_human",
}  # fmt: skip
DATA = Path(os.environ.get("FEDSAFE_DATA_DIR", "/nonexistent"))


def marked(name: str, *more: object):
    """A parameter that is skipped where the task's files are not at hand: no test downloads."""
    folder = FOLDERS.get(name)
    absent = folder is not None and not (DATA / folder).is_dir()
    marks = [pytest.mark.needs_data] if folder else []
    marks += (
        [pytest.mark.skip(reason=f"FEDSAFE_DATA_DIR does not name a folder with {folder}")] if absent else []
    )
    return pytest.param(name, *more, marks=marks, id=" ".join([name, *map(str, more)]))


ALL = [marked(name) for name in SHIPPED]
NATURAL = [marked(name) for name, shipped in SHIPPED.items() if shipped.holders]


def load(spec: str | dict[str, object]) -> Task:
    """With made-up vectors of texts: those of the encoder, which have tests of their own, take a minute."""
    with ExitStack() as patched:
        for name in ("offensiveness", "pandalm"):
            patched.enter_context(mock.patch(f"fedsafe.data.catalogue.{name}.embed", vectors))
        return load_task(spec)


def vectors(texts: Sequence[str], **_: object) -> np.ndarray:
    """``(n, 4)`` of unit length, which follow from the texts."""
    raw = [np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], "<u4") / 2.0**31 - 1 for text in texts]
    return np.array([row / np.linalg.norm(row) for row in raw], np.float32)


@cache
def task(name: str) -> Task:
    return load(name)


def parts(name: str) -> tuple[Examples, Examples]:
    return task(name).train, task(name).evaluation


@pytest.mark.parametrize("name", ALL)
def test_kind_sizes_and_holders_are_those_that_are_listed(name):
    made, listed = task(name), SHIPPED[name]
    assert (made.name, made.kind) == (name, listed.kind)
    assert (len(made.train), len(made.evaluation)) == listed.records
    assert bool(made.train.holders) == bool(made.evaluation.holders) == bool(listed.holders)
    if listed.holders:
        ((what, names),) = made.train.holders.items()
        assert listed.holders == f"{len(set(names))} {what}s"
    for fact in (
        made.source.name,
        made.source.licence,
        made.source.url,
        made.source.sha256,
        made.evaluation_name,
    ):
        assert fact
    assert made.source.url.startswith("https://")
    assert len(made.source.sha256) == 64
    assert made.evaluation_public


@pytest.mark.parametrize("name", ALL)
def test_inputs_have_the_public_shape_and_lie_in_the_public_bounds(name):
    schema = task(name).schema
    assert len(schema.feature_names) == len(set(schema.feature_names)) == task(name).features
    for part in parts(name):
        assert part.x.dtype == (np.float32 if schema.vocabulary is None else np.int64)
        assert part.x.flags.c_contiguous
        assert (
            part.x.shape[1:]
            == schema.shape
            == schema.low.shape
            == schema.high.shape
            == schema.perturbable.shape
        )
        # As extremes over records, which need no copy of MNIST.
        assert (part.x.min(axis=0) >= schema.low).all()
        assert (part.x.max(axis=0) <= schema.high).all()
        for group in schema.one_hot:
            np.testing.assert_array_equal(part.x[:, list(group)].sum(axis=1), 1)


@pytest.mark.parametrize("name", ALL)
def test_targets_have_the_type_and_range_of_their_kind(name):
    made = task(name)
    for part in parts(name):
        if made.kind == "regression":
            assert part.y.dtype == np.float32
            assert np.abs(part.y).max() <= 1
        else:
            assert part.y.dtype == np.int64
            assert 0 <= part.y.min() <= part.y.max() < len(made.classes)
    outputs = {"binary": (1,), "regression": (1,), "multiclass": (len(made.classes),)}
    assert made.signature.inputs == made.schema.shape
    expected = outputs.get(made.kind, (*made.schema.shape, len(made.classes)))
    assert made.signature.outputs == expected


@pytest.mark.parametrize("name", ALL)
def test_a_task_is_the_same_every_time(name):
    again = load(name)
    for first, second in zip(parts(name), (again.train, again.evaluation), strict=True):
        np.testing.assert_array_equal(first.x, second.x)
        np.testing.assert_array_equal(first.y, second.y)
        for ours, others in ((first.groups, second.groups), (first.holders, second.holders)):
            assert ours.keys() == others.keys()
            assert all(np.array_equal(ours[column], others[column]) for column in ours)


# Of heart, acs-states and adult two people can have the same features.
@pytest.mark.parametrize(
    "name",
    [marked(name) for name in ("digits", "breast-cancer", "mnist-writers", "parkinsons", "shakespeare")],
)
def test_no_record_is_for_training_and_for_evaluation(name):
    train, evaluation = ({record.tobytes() for record in part.x} for part in parts(name))
    assert train.isdisjoint(evaluation)


@pytest.mark.parametrize("name", [marked("mnist-writers"), marked("parkinsons")])
def test_people_who_are_evaluated_take_no_part_in_training(name):
    train, evaluation = (set(next(iter(part.holders.values()))) for part in parts(name))
    assert train.isdisjoint(evaluation)


@pytest.mark.parametrize("name", [marked("heart"), marked("acs-states"), marked("shakespeare")])
def test_every_holder_of_training_records_has_evaluation_records_too(name):
    train, evaluation = (set(next(iter(part.holders.values()))) for part in parts(name))
    assert train == evaluation


@pytest.mark.parametrize("name", [marked("offensiveness"), marked("pandalm")])
def test_no_text_is_trained_on_and_judged(name):
    made = task(name)
    train, evaluation = (
        {item.tobytes() for item in part.x.reshape(-1, part.x.shape[-1])} for part in parts(name)
    )
    assert train.isdisjoint(evaluation)
    assert len(made.preferences) == len(made.evaluation)
    np.testing.assert_array_equal(made.preferences.features[made.preferences.second], made.evaluation.x[:, 1])
    assert [*map(len, made.preferences.items)] == made.preferences.lengths.tolist()
    assert set(made.preferences.annotators) <= set(made.train.holders["annotator"])


@pytest.mark.parametrize("name", [marked("offensiveness")])
def test_offensiveness_has_the_groups_that_people_say_they_are_in(name):
    made = task(name)
    assert set(made.train.groups["gender"]) == {"Woman", "Man", "Non-binary"}
    assert {*made.train.groups} == {"gender", "race", "age", "education"}
    # Ratings of 1 to 5, and the lower is preferred.
    assert set(made.preferences.ratings) == {-1.0, -2.0, -3.0, -4.0, -5.0}
    assert len(made.preferences.raters) > 3000


@pytest.mark.parametrize("name", NATURAL)
def test_the_natural_partition_has_one_client_for_each_holder(name):
    cut = federate(task(name), clients=None, partition={"name": "natural"}, seed=0)
    assert f"{cut.clients} " in f"{SHIPPED[name].holders} "
    assert cut.shards is not None
    (names,) = cut.task.train.holders.values()
    for client in (0, cut.clients - 1):
        assert set(names[cut.records[client]]) == {cut.names[client]}


@pytest.mark.parametrize("name", ALL)
def test_sex_and_age_are_groups_wherever_they_are_known(name):
    schema = task(name).schema
    columns = {column.name for column in schema.columns} if isinstance(schema, Schema) else set()
    assert set(task(name).train.groups) >= columns & {"sex", "age"}
    assert isinstance(schema, Schema | ArraySchema | TokenSchema)


@pytest.mark.parametrize(
    "name", [marked(name) for name in ("adult", "breast-cancer", "heart", "acs-states", "parkinsons")]
)
def test_the_answer_and_the_holder_are_no_features(name):
    schema = task(name).schema
    features = {column.name for column in schema.columns}
    assert schema.answer not in features
    assert features.isdisjoint(schema.holders)
    income = {
        "pincp",
        "wagp",
        "intp",
        "pap",
        "retp",
        "ssip",
        "ssp",
        "otherincp",
        "incgroup",
        "num",
        "motor_UPDRS",
    }
    assert features.isdisjoint(income)


@pytest.mark.parametrize("name", [marked("parkinsons")])
def test_parkinsons_takes_another_target_and_another_split(name):
    total, motor = task(name), load_task({"name": name, "target": "motor"})
    np.testing.assert_array_equal(total.train.x, motor.train.x)
    assert (total.target.high, motor.target.high) == (80, 60)
    # The motor score is a part of the total one.
    assert (motor.target.decode(motor.train.y) <= total.target.decode(total.train.y) + 1e-4).all()
    mixed = load_task({"name": name, "split": "record"})
    assert len(set(mixed.train.holders["patient"])) == 42
    assert set(mixed.evaluation.holders["patient"]) <= set(mixed.train.holders["patient"])


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        ("parkinsons", {"target": "motro"}, "task.target = 'motro' is unknown. Did you mean 'motor'"),
        ("parkinsons", {"split": 3}, "task.split = 3 is unknown"),
        ("parkinsons", {"spilt": "patient"}, "takes target, split: got spilt. Did you mean 'split'"),
        ("shakespeare", {"length": 0}, "task.length = 0 is not a whole number"),
        ("offensiveness", {"ties": "kept"}, "task.ties = 'kept' is unknown"),
        ("offensiveness", {"features": "words"}, "task.features = 'words' is unknown"),
        ("pandalm", {"seed": -1}, "task.seed = -1 is not a whole number of at least 0"),
        ("digits", {"seed": 1}, "takes no options: got seed"),
        ("heart", {"environment": {}}, "takes no options: got environment"),
    ],
)
def test_an_option_that_a_task_has_not_is_refused(name, spec, message):
    with pytest.raises(ConfigError, match=message):
        load_task({"name": name, **spec})
