"""A federation keeps training, own validation and held-out clients apart, and is decided by the seed alone."""

from dataclasses import replace
from itertools import chain, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsafe.data import ArraySchema, Examples, Federated, Source, Target, Task, TokenSchema, federate
from fedsafe.errors import ConfigError, DataError

SPECS = (
    {"name": "iid"},
    {"name": "iid", "sizes": {"name": "lognormal", "sigma": 1.0}},
    {"name": "iid", "sizes": {"name": "dirichlet", "alpha": 0.5}},
    {"name": "dirichlet", "alpha": 0.3},
    {"name": "classes", "per_client": 2},
    {"name": "quantity", "alpha": 0.5},
    {"name": "natural", "by": "site"},
)
KINDS = ("regression", "next_token")


def examples(n: int, sites: int, seed: int = 0, first: int = 0) -> Examples:
    """Records whose only feature is their own number, so that they can be told apart wherever they went."""
    rng = np.random.default_rng(seed)
    site = np.concatenate([np.arange(sites), rng.integers(0, sites, n - sites)])
    return Examples(
        x=np.arange(first, first + n, dtype=np.float32)[:, None],
        y=rng.integers(0, 4, n),
        holders={"site": np.array([f"{8 + number}" for number in site])},
    )


def task(n: int = 400, evaluation: int = 200, sites: int = 12, own: bool = True) -> Task:
    held = examples(evaluation, sites if own else 5, seed=1, first=10_000)
    return Task(
        name="t",
        kind="multiclass",
        classes=("a", "b", "c", "d"),
        schema=ArraySchema(shape=(1,), lowest=0, highest=20_000),
        train=examples(n, sites),
        evaluation=held if own else Examples(x=held.x, y=held.y, holders={"site": 100 + held.y}),
        evaluation_name="test",
        source=Source(name="made by hand"),
        evaluation_public=True,
    )


def made(spec=SPECS[0], *, clients=12, seed=0, given=None, **options) -> Federated:
    return federate(given or task(), clients=clients, partition=spec, seed=seed, **options)


def numbers(part: Examples) -> list[int]:
    return sorted(part.x[:, 0].astype(int).tolist())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SPECS),
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.01, 0.3]),
    st.sampled_from([0.0, 0.1, 0.9]),
)
def test_no_record_is_in_two_places_and_none_is_lost(spec, seed, held_out, client_validation):
    whole = task()
    cut = made(spec, seed=seed, held_out=held_out, client_validation=client_validation)
    rows = [*cut.records, *cut.validation]
    together = np.sort(np.concatenate(rows))
    np.testing.assert_array_equal(together, np.arange(len(cut.task.train)))
    assert all((np.diff(part) > 0).all() for part in rows)
    assert all(map(len, cut.records))
    away = numbers(cut.unseen) if cut.unseen is not None else []
    assert sorted(away + numbers(cut.task.train)) == numbers(whole.train)
    assert (
        len(cut.records)
        == len(cut.validation)
        == cut.clients
        == 12 - (max(1, round(held_out * 12)) if held_out else 0)
    )
    for kept, held in zip(cut.records, cut.validation, strict=True):
        size = len(kept) + len(held)
        assert len(held) == (
            min(max(1, round(client_validation * size)), size - 1) if client_validation else 0
        )
    assert cut.task.evaluation is not None
    assert numbers(cut.task.evaluation) == numbers(whole.evaluation)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_the_seed_decides_everything_and_another_one_decides_otherwise(spec):
    options = {"held_out": 0.2, "client_validation": 0.3, "evaluation": "client_validation"}
    first, again, other = (made(spec, seed=seed, **options) for seed in (4, 4, 6))

    def everything(cut):
        rows = (*cut.records, *cut.validation, *cut.shards)
        return numbers(cut.unseen), numbers(cut.task.evaluation), [part.tolist() for part in rows], cut.names

    assert everything(first) == everything(again)
    assert everything(first)[0] != everything(other)[0]
    assert everything(first)[2] != everything(other)[2]


def test_a_natural_client_is_one_holder_and_keeps_its_name():
    cut = made(SPECS[-1], clients=None, held_out=0.2)
    train = cut.task.train.holders["site"]
    assert cut.names == tuple(sorted(cut.names, key=int))
    assert [set(train[rows]) for rows in cut.records] == [{name} for name in cut.names]
    assert set(cut.unseen.holders["site"]).isdisjoint(cut.names)
    assert len(set(cut.unseen.holders["site"])) == 2
    evaluation = cut.task.evaluation.holders["site"]
    assert [set(evaluation[rows]) for rows in cut.shards] == [{name} for name in cut.names]
    assert made(SPECS[-1], clients=12).clients == 12


def test_what_a_natural_client_keeps_for_validation_does_not_depend_on_who_else_is_there():
    few, many = (made(SPECS[-1], clients=None, held_out=share, client_validation=0.3) for share in (0.5, 0.1))
    kept = [
        {
            name: numbers(cut.task.train.take(rows))
            for name, rows in zip(cut.names, cut.validation, strict=True)
        }
        for cut in (few, many)
    ]
    shared = kept[0].keys() & kept[1].keys()
    assert len(shared) >= 4
    assert {name: kept[0][name] for name in shared} == {name: kept[1][name] for name in shared}


def test_evaluation_records_of_other_people_are_cut_by_their_own_holders():
    cut = made(SPECS[-1], clients=None, given=task(own=False))
    evaluation = cut.task.evaluation.holders["site"]
    assert [set(evaluation[rows]) for rows in cut.shards] == [{"100"}, {"101"}, {"102"}, {"103"}]


def test_without_holders_of_its_own_or_with_too_few_records_the_evaluation_set_is_not_cut():
    whole = task()
    bare = replace(whole.evaluation, holders={})
    assert made(SPECS[-1], clients=None, given=replace(whole, evaluation=bare)).shards is None
    assert made(given=task(evaluation=11, sites=3)).shards is None
    assert len(made(given=task(evaluation=12, sites=3)).shards) == 12
    assert made({"name": "classes"}, given=task(evaluation=23, sites=3)).shards is None


@pytest.mark.parametrize(
    ("evaluation", "named"), [("held_out_clients", "no part"), ("client_validation", "kept by it")]
)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec["name"])
def test_another_evaluation_set_is_private_and_holds_the_records_that_it_says(spec, evaluation, named):
    cut = made(spec, held_out=0.25, client_validation=0.2, evaluation=evaluation)
    judged = cut.task.evaluation
    assert named in cut.task.evaluation_name
    assert "private" in cut.task.evaluation_name
    assert not cut.task.evaluation_public
    assert sorted(chain.from_iterable(part.tolist() for part in cut.shards)) == list(range(len(judged)))
    if evaluation == "held_out_clients":
        assert numbers(judged) == numbers(cut.unseen)
        assert len(cut.shards) == 3
        assert all(map(len, cut.shards))
    else:
        assert [numbers(judged.take(shard)) for shard in cut.shards] == [
            numbers(cut.task.train.take(rows)) for rows in cut.validation
        ]


def test_validation_is_taken_before_the_clients_are_cut_and_the_default_leaves_the_test_set():
    whole = task()
    cut = made(evaluation="validation", validation_fraction=0.25, seed=3)
    assert numbers(cut.task.evaluation) == numbers(whole.with_validation(0.25, 3).evaluation)
    assert len(cut.shards) == 12
    plain = made()
    assert plain.task is not None
    assert (plain.task.evaluation_name, plain.task.evaluation_public) == ("test", True)
    assert plain.unseen is None
    assert plain.names is None


def test_one_record_of_a_client_always_remains_for_training():
    cut = made(clients=250, client_validation=0.9)
    assert min(map(len, cut.records)) == 1
    assert {len(held) for held in cut.validation} == {0, 1}
    for evaluation in ("test", "client_validation"):
        with pytest.raises(DataError, match=r"No client has two records.*client_validation = 0\.5 to 0"):
            made(clients=400, client_validation=0.5, evaluation=evaluation)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"evaluation": "tset"}, r"data\.evaluation = 'tset' is unknown\. Did you mean 'test'"),
        ({"held_out": 1.0}, r"federation\.held_out = 1\.0 is not a number in \[0, 1\)"),
        ({"held_out": True}, "not a number"),
        ({"held_out": 0.99}, "leaves none to train"),
        ({"client_validation": -0.1}, r"federation\.client_validation = -0\.1"),
        ({"evaluation": "held_out_clients"}, r"needs federation\.held_out above 0"),
        ({"evaluation": "client_validation"}, r"needs federation\.client_validation above 0"),
        ({"evaluation": "validation", "validation_fraction": 1.0}, "leaves a part empty"),
        ({"clients": None}, r"federation\.clients is not set"),
        (
            {"spec": {"name": "natural"}, "clients": 11},
            r"federation\.clients = 11, but .* by 'site' has 12 clients",
        ),
        (
            {"spec": {"name": "natural", "by": "sito"}},
            r"by = 'sito'; use one of: site\. Did you mean 'site'",
        ),
        (
            {"spec": {"name": "classes", "per_client": 0}},
            r"per_client = 0 is not a whole number of at least 1",
        ),
        ({"spec": {"name": "classes", "per_client": 1}, "clients": 3}, "cannot hold 4 labels"),
        ({"spec": {"name": "quantity", "sizes": {"name": "equal"}}}, "unknown key 'sizes'"),
        ({"spec": {"name": "quantity", "alpha": 0}}, "not a positive number"),
        ({"spec": {"name": "natrual"}}, "Did you mean 'natural'"),
    ],
)
def test_an_option_that_cannot_be_met_is_refused_with_a_remedy(options, message):
    with pytest.raises(ConfigError, match=message):
        made(**options)


def test_records_without_holders_have_no_natural_partition():
    bare = Examples(x=np.zeros((4, 1)), y=[0, 1, 2, 3])
    whole = task()
    with pytest.raises(DataError, match="do not say who holds them"):
        made({"name": "natural"}, clients=None, given=replace(whole, train=bare))


def unlabelled(kind: str) -> Task:
    rng = np.random.default_rng(0)
    holders = {"site": np.repeat(["a", "b", "c"], 20)}
    if kind == "regression":
        part = Examples(x=rng.random((60, 2)), y=rng.random(60).astype(np.float32), holders=holders)
        more = {"schema": ArraySchema(shape=(2,), lowest=0, highest=1), "classes": ()}
        more["target"] = Target(name="y", low=0, high=1)
    else:
        part = Examples(x=rng.integers(0, 3, (60, 5)), y=rng.integers(0, 3, (60, 5)), holders=holders)
        more = {"schema": TokenSchema(tokens=("a", "b", "c"), length=5), "classes": ("a", "b", "c")}
    return Task(
        name="u",
        kind=kind,
        train=part,
        evaluation=part,
        evaluation_name="same",
        source=Source(name="u"),
        **more,
    )


@pytest.mark.parametrize(("kind", "name"), [*product(KINDS, ["dirichlet", "classes"])])
def test_a_task_without_class_labels_is_not_cut_by_label(kind, name):
    with pytest.raises(
        ConfigError, match=f"'{name}' goes by class labels, which this task has not: use 'iid'"
    ):
        made({"name": name}, clients=3, given=unlabelled(kind))


@pytest.mark.parametrize(("kind", "name"), [*product(KINDS, ["iid", "quantity", "natural"])])
def test_a_task_without_class_labels_is_cut_in_every_other_way(kind, name):
    cut = made({"name": name}, clients=3, given=unlabelled(kind), client_validation=0.2)
    assert len(cut.records) == len(cut.shards) == 3
