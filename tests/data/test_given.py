"""Data in memory becomes a task, and nothing that must be public is taken from the records."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from fedsafe.data import (
    Categorical,
    Examples,
    Label,
    Numeric,
    Schema,
    Split,
    Target,
    as_task,
    federate,
    load_task,
)
from fedsafe.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
X = RNG.random((40, 3))
Y = np.arange(40) % 2
BOUNDS = {"low": 0.0, "high": 1.0}


def test_a_pair_is_split_and_a_quadruple_and_a_mapping_are_not():
    task = as_task((X, Y), **BOUNDS, evaluation_fraction=0.25, seed=3)
    assert (task.kind, len(task.train), len(task.evaluation), task.signature.inputs) == (
        "binary",
        30,
        10,
        (3,),
    )
    both = np.sort(np.concatenate([task.train.x, task.evaluation.x]), axis=0)
    np.testing.assert_array_equal(both, np.sort(X.astype(np.float32), axis=0))
    assert task.evaluation_name == "25% held out with seed 3 (private)"
    assert not task.evaluation_public
    others = (
        as_task((X[:30], Y[:30], X[30:], Y[30:]), **BOUNDS, evaluation_public=True),
        as_task({"train": (X[:30], Y[:30]), "evaluation": (X[30:], Y[30:])}, **BOUNDS),
        as_task((X[:30], Y[:30]), evaluation=(X[30:], Y[30:]), **BOUNDS),
    )
    for task in others:
        np.testing.assert_array_equal(task.train.x, X[:30].astype(np.float32))
        np.testing.assert_array_equal(task.evaluation.y, Y[30:])
    assert [task.evaluation_public for task in others] == [True, False, False]


@pytest.mark.parametrize(
    ("y", "more", "kind", "outputs"),
    [
        (Y, {}, "binary", (1,)),
        (Y.astype(bool), {}, "binary", (1,)),
        (Y.astype(np.uint8)[:, None], {}, "binary", (1,)),
        (np.arange(40) % 5, {}, "multiclass", (5,)),
        (Y, {"classes": 3}, "multiclass", (3,)),
        (Y, {"classes": ["no", "yes"]}, "binary", (1,)),
        (Y.astype(float), {"kind": "binary"}, "binary", (1,)),
        (X[:, 0], {"target": (0, 2)}, "regression", (1,)),
        (Y, {"kind": "regression", "target": Target(name="t", low=0, high=2)}, "regression", (1,)),
    ],
)
def test_the_kind_is_read_from_the_targets_and_can_be_said(y, more, kind, outputs):
    task = as_task((X, y), **BOUNDS, **more)
    assert (task.kind, task.signature.outputs) == (kind, outputs)


def test_a_regression_is_encoded_by_its_public_bounds():
    y = np.linspace(0, 10, 40)
    task = as_task((X, y), evaluation=(X, y), **BOUNDS, target=(0.1, 9.9))
    np.testing.assert_allclose(task.target.decode(task.train.y), np.clip(y, 0.1, 9.9), atol=1e-6)
    assert task.train.y.max() == 1.0


def test_inputs_are_clamped_to_the_public_range_and_never_scaled():
    low, high = np.float32(0.02), np.float32(0.99)
    task = as_task((X, Y), evaluation=(X, Y), low=0.02, high=0.99)
    np.testing.assert_array_equal(task.train.x, np.clip(X.astype(np.float32), low, high))
    assert (task.train.x != X.astype(np.float32)).any()
    images = as_task((RNG.integers(0, 256, (40, 1, 4, 4), dtype=np.uint8), Y), low=0, high=255)
    assert images.train.x.dtype == np.float32
    assert images.signature.inputs == (1, 4, 4)


def test_token_sequences_make_a_task_of_next_tokens_or_of_classes():
    tokens = RNG.integers(0, 7, (40, 6))
    following = as_task((tokens[:, :-1], tokens[:, 1:]), tokens=7)
    assert (following.kind, following.signature.vocabulary) == ("next_token", 7)
    assert following.signature.outputs == (5, 7)
    classes = as_task((tokens, Y), tokens=list("abcdefg"))
    assert (classes.kind, classes.signature.vocabulary, classes.train.x.dtype) == ("binary", 7, np.int64)
    with pytest.raises(DataError, match=r"token lies outside 0\.\.5"):
        as_task((tokens, Y), tokens=6)


class Shop(torch.utils.data.Dataset):
    def __init__(self, first: int, count: int) -> None:
        self.x = torch.arange(first, first + count, dtype=torch.float32)[:, None]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, at: int):
        return self.x[at], int(self.x[at]) % 2


def test_tensors_and_torch_data_sets_are_read_like_arrays():
    x = torch.tensor(X, dtype=torch.float32, requires_grad=True)
    made = as_task((x, torch.tensor(Y)), **BOUNDS)
    np.testing.assert_array_equal(made.train.x, as_task((X, Y), **BOUNDS).train.x)
    shop = as_task(Shop(0, 10), evaluation=Shop(10, 5), low=0, high=20)
    assert shop.train.x[:, 0].tolist() == list(range(10))
    assert shop.evaluation.y.tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("make", [Shop, lambda *a: (Shop(*a).x.numpy(), (Shop(*a).x[:, 0] % 2).long())])
def test_a_data_set_for_each_client_becomes_the_natural_partition(make):
    task = as_task(
        lambda client: make(10 * client, 4 + client), clients=12, evaluation=Shop(0, 5), low=0, high=200
    )
    cut = federate(task, clients=None, partition={"name": "natural"}, seed=0)
    assert cut.names == tuple(map(str, range(12)))
    for client, rows in enumerate(cut.records):
        assert task.train.x[rows, 0].tolist() == [*range(10 * client, 10 * client + 4 + client)]


def test_groups_and_holders_stay_with_their_records():
    group = np.array(["a", "b"])[Y]
    task = as_task((X, Y), **BOUNDS, groups={"g": group}, holders={"h": group})
    for part in (task.train, task.evaluation):
        np.testing.assert_array_equal(part.groups["g"] == "b", part.y == 1)
        np.testing.assert_array_equal(part.holders["h"] == "b", part.y == 1)
    ready = Examples(x=X, y=Y, groups={"g": group})
    assert set(as_task((X, Y), evaluation=ready, **BOUNDS).evaluation.groups) == {"g"}


SCHEMA = Schema(
    label=Label(column="bought", classes=("no", "yes")),
    columns=(
        Numeric(name="age", low=0, high=100),
        Categorical(name="shop", categories=("n", "s"), group=True),
    ),
    holders=("shop",),
)
FRAME = pd.DataFrame({"age": range(20), "shop": ["n", "s"] * 10, "bought": ["no", "no", "yes", "yes"] * 5})


def test_a_data_frame_is_read_by_its_schema():
    task = as_task(FRAME, schema=SCHEMA, name="shop", seed=1)
    assert (task.name, task.kind, len(task.train), task.features) == ("shop", "binary", 16, 4)
    assert set(task.train.holders["shop"]) == {"n", "s"}
    split = replace(SCHEMA, split=Split(column="part"), evaluation_public=True)
    parted = as_task(FRAME.assign(part=["train", "test"] * 10), schema=split)
    assert (len(parted.evaluation), parted.evaluation_name) == (10, "split column 'part' (public)")


def test_a_task_passes_unchanged():
    task = load_task("digits")
    assert as_task(task) is task


def fails(client: int):
    raise RuntimeError(f"no disk {client}")


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X, Y), {}, "need `low` and `high`, the public range"),
        ((X, X[:, 0]), BOUNDS, r"needs `target` = \(low, high\)"),
        ((X, Y), {**BOUNDS, "target": (0, 1)}, "the task is binary: leave it out"),
        ((X, Y), {**BOUNDS, "kind": "binray"}, "Did you mean 'binary'"),
        ((X, Y), {**BOUNDS, "clients": 3}, "give both or neither"),
        ((X, Y), {**BOUNDS, "schema": SCHEMA}, "describes a data frame, which the data is not"),
        ((X, Y), {**BOUNDS, "classes": "ab"}, "`classes` = 'ab': give their names"),
        ((X, Y), {"tokens": 5}, "`tokens` are whole numbers"),
        ((X, Y, X, Y), {**BOUNDS, "evaluation": (X, Y)}, "leave `evaluation` out"),
        ({"train": (X, Y)}, BOUNDS, "needs the keys 'train' and 'evaluation': got 'train'"),
        (fails, BOUNDS, "give both or neither"),
        (FRAME, {}, "A data frame needs `schema`"),
        ((X,), BOUNDS, "cannot be tuple"),
        (3, BOUNDS, "cannot be int"),
        ((RNG.integers(0, 3, (9, 4)),) * 2, {}, r"`tokens` = None: give their names, or how many"),
    ],
)
def test_what_is_not_said_or_does_not_fit_is_refused_with_a_remedy(data, options, message):
    with pytest.raises(ConfigError, match=message):
        as_task(data, **options)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ((X, Y[:-1]), BOUNDS, "need x of shape"),
        ((X[:0], Y[:0]), BOUNDS, "n at least 1"),
        ((X, np.array(["a"] * 40)), BOUNDS, "y of the data holds <U1, not real numbers"),
        ((X, Y + 0.5), {**BOUNDS, "kind": "binary"}, "whole numbers, from 0"),
        ((X, Y - 1), {**BOUNDS, "classes": 2}, r"lies outside 0\.\.1"),
        ((np.full((40, 2), np.nan), Y), BOUNDS, "not finite"),
        (fails, {**BOUNDS, "clients": 2}, "data of client 0 could not be made: RuntimeError: no disk 0"),
        (
            lambda client: (X[:, : 1 + client], Y),
            {**BOUNDS, "clients": 2},
            r"Client 1 has x and y .* = \(2,\) and \(\), client 0 \(1,\)",
        ),
        ([(X[0], 1), (X[1, :2], 0), (X[0], 1)], BOUNDS, "cannot be read as"),
    ],
)
def test_records_that_cannot_be_used_are_refused(data, options, message):
    with pytest.raises(DataError, match=message):
        as_task(data, **options)


def test_arrays_need_no_torch():
    code = (
        "import sys, numpy as np; from fedsafe.data import as_task;"
        "as_task((np.eye(9), np.arange(9) % 2), low=0, high=1); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
