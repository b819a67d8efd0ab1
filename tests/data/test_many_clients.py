"""Many clients: which rows are whose takes two arrays, records stay in their files, and not a bit changes."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import tiny_federation
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_federation import apps, parts, plan, play

from fedsafe.data import ClientRows, Examples, as_task, federate, partition
from fedsafe.data.mapped import blocks, extremes, file_array
from fedsafe.engine import InlineGrid
from fedsafe.errors import DataError
from fedsafe.federation import client_app
from fedsafe.params import fingerprint
from fedsafe.runs.compose import compose
from fedsafe.runs.config import make_config

lists = st.lists(
    st.lists(st.integers(0, 50), max_size=5).map(lambda rows: np.array(rows, np.int64)), min_size=1
)


@given(lists)
def test_compact_rows_are_the_rows_that_they_were_made_of(given_rows):
    rows = ClientRows.of(given_rows)
    assert len(rows) == len(given_rows)
    assert [part.tolist() for part in rows] == [part.tolist() for part in given_rows]
    assert rows[-1].tolist() == given_rows[-1].tolist()
    assert [part.tolist() for part in rows[1:3]] == [part.tolist() for part in given_rows[1:3]]
    assert rows.sizes.tolist() == [len(part) for part in given_rows]
    assert rows.together.tolist() == np.concatenate([np.empty(0, np.int64), *given_rows]).tolist()
    assert rows.last == max(map(int, rows.together), default=-1)
    some = np.arange(len(rows))[::-2]
    assert [part.tolist() for part in rows.take(some)] == [given_rows[k].tolist() for k in some]
    assert ClientRows.of(rows) is rows
    again = pickle.loads(pickle.dumps(rows))
    assert [part.tolist() for part in again] == [part.tolist() for part in given_rows]


def test_rows_in_order_take_no_memory_and_are_recognised():
    rows = ClientRows.of([np.arange(3), np.arange(3, 3), np.arange(3, 10)])
    assert rows.order is None
    assert [array.tolist() for array in rows.arrays()] == [[0, 3, 3, 10]]
    assert ClientRows.of([np.arange(3, 10), np.arange(3)]).order is not None
    with pytest.raises(IndexError, match="no client 3 among 3"):
        rows[3]


def test_rows_that_are_handed_out_are_nobody_elses():
    for rows in (ClientRows.of([np.arange(4)]), ClientRows.of([np.array([2, 0, 5])])):
        before = rows[0].tolist()
        rows[0][:] = 7
        rows.together[:] = 7
        assert rows[0].tolist() == before


def test_a_contiguous_partition_keeps_the_order_of_the_records():
    labels = np.zeros(1001, np.int64)
    rows = partition(labels, 10, {"name": "contiguous"}, 0)
    assert sorted({len(part) for part in rows}) == [100, 101]
    np.testing.assert_array_equal(np.concatenate(list(rows)), np.arange(1001))
    sizes = [
        len(part) for part in partition(labels, 10, {"name": "contiguous", "sizes": {"name": "lognormal"}}, 0)
    ]
    assert sum(sizes) == 1001
    assert len(set(sizes)) > 5


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.uniform(-1, 1, (600, 3)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, 2, 600))
    return tmp_path


def opened(folder, name="x"):
    return np.load(folder / f"{name}.npy", mmap_mode="r")


def mapped_task(folder, records=slice(None), **options):
    x, y = opened(folder)[records], opened(folder, "y")[records]
    return as_task((x, y, np.array(x[:50]), np.array(y[:50])), **{"low": -1, "high": 1, **options})


@pytest.mark.parametrize("rows", [slice(None), slice(100, 400), slice(599, 600)])
def test_an_array_in_a_file_is_sent_as_its_place_and_found_again(folder, rows):
    array = opened(folder)[rows]
    found = file_array(np.ascontiguousarray(array))
    assert found is not None
    assert len(pickle.dumps(found)) < 500
    np.testing.assert_array_equal(found.open(), array)
    assert file_array(found.open()) == found


def test_what_is_not_the_files_is_sent_itself(folder):
    array = opened(folder)
    for other in (np.array(array), array[:, :2], array[:0], np.load(folder / "x.npy", mmap_mode="c")):
        assert file_array(other) is None


def test_examples_in_files_stay_there_and_are_opened_elsewhere(folder):
    task = mapped_task(folder)
    assert all(file_array(array) is not None for array in (task.train.x, task.train.y))
    sent = pickle.dumps(task.train)
    assert len(sent) < 2000 < task.train.x.nbytes
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again.x, np.load(folder / "x.npy"))
    np.testing.assert_array_equal(again.y, np.load(folder / "y.npy"))
    assert not again.x.flags.writeable
    inside = Examples(x=np.array(task.train.x), y=np.array(task.train.y))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(inside)).x, inside.x)


def test_a_file_that_changed_or_is_gone_is_refused_in_one_line(folder):
    sent = pickle.dumps(mapped_task(folder).train)
    np.save(folder / "y.npy", np.zeros(600, np.int64))
    with pytest.raises(
        DataError, match=r"y\.npy was changed while it was in use: a run needs the same records"
    ):
        pickle.loads(sent)
    (folder / "x.npy").unlink()
    with pytest.raises(
        DataError, match=r"x\.npy cannot be opened .* put the file at the same place"
    ) as raised:
        pickle.loads(sent)
    assert "\n" not in str(raised.value)


def test_values_that_must_be_clamped_leave_the_file_for_the_memory(folder):
    low = float(np.sort(opened(folder).reshape(-1))[20])
    task = mapped_task(folder, low=low)
    assert file_array(task.train.x) is None
    np.testing.assert_array_equal(task.train.x, np.clip(np.load(folder / "x.npy"), np.float32(low), 1))


def test_blocks_are_the_array_and_every_value_is_looked_at(folder, monkeypatch):
    monkeypatch.setattr("fedsafe.data.mapped._BLOCK", 100)
    array = opened(folder)
    assert len(list(blocks(array))) > 50
    np.testing.assert_array_equal(np.concatenate(list(blocks(array))), array)
    assert extremes(array) == (array.min(), array.max())
    broken = np.array(array)
    broken[577, 2] = np.inf
    with pytest.raises(DataError, match=r"Row 577 .* has inf"):
        Examples(x=broken, y=np.zeros(600, np.int64))


def final(of, tmp_path, name, noise=1.0):
    by = plan(of, noise=noise)
    made = apps(of, by)()
    (tmp_path / name).mkdir()
    outcomes = play(of, by, InlineGrid(clients=by.clients, apps=made), tmp_path / name / "ledger.sqlite")
    assert [outcome.failures for outcome in outcomes] == [0] * by.rounds
    return fingerprint(outcomes[-1].parameters)


def test_a_list_of_arrays_and_compact_rows_train_the_same_model(tmp_path):
    of = parts()
    slow = [np.array(rows) for rows in of.records]
    listed = replace(of, federated=replace(of.federated, records=slow))
    by = plan(of)
    made = apps(listed, by)
    grid = InlineGrid(clients=by.clients, apps=made())
    outcomes = play(listed, by, grid, tmp_path / "ledger.sqlite")
    assert fingerprint(outcomes[-1].parameters) == final(of, tmp_path, "compact")


def mapped_parts(folder, **changes):
    values = tiny_federation.config(
        federation__clients=12, federation__partition={"name": "contiguous"}, **changes
    )
    return compose(make_config(values), data=mapped_task(folder, evaluation_public=True))


def test_records_in_a_file_train_the_model_that_they_train_in_memory(folder, tmp_path):
    of = mapped_parts(folder)
    train = of.task.train
    copied = Examples(x=np.array(train.x), y=np.array(train.y))
    inside = replace(of, federated=replace(of.federated, task=replace(of.task, train=copied)))
    assert file_array(train.x) is not None
    assert file_array(inside.task.train.x) is None
    assert final(of, tmp_path, "mapped") == final(inside, tmp_path, "inside")


@pytest.mark.parametrize(("rule", "noise"), [("noisy_mean", 1.0), ("noisy_mean", 0.0), ("median", 0.0)])
def test_a_chunk_is_trained_some_clients_at_a_time_without_changing_a_bit(
    folder, tmp_path, monkeypatch, rule, noise
):
    of = mapped_parts(folder, server__aggregator=rule, privacy__client={"epsilon": float("inf")})
    whole = final(of, tmp_path, "whole", noise)
    monkeypatch.setattr(client_app, "_FEWEST_AT_ONCE", 1)
    for most in (1, 3):
        monkeypatch.setattr(client_app, "_MOST_AT_ONCE", most)
        assert final(of, tmp_path, f"by {most}", noise) == whole


def test_what_is_released_is_a_function_of_every_record_in_the_file(folder, tmp_path):
    """The tests above could not fail if the file were not read."""
    before = final(mapped_parts(folder), tmp_path, "before")
    x = np.load(folder / "x.npy")
    np.save(folder / "x.npy", -x)
    assert final(mapped_parts(folder), tmp_path, "after") != before


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3]), st.sampled_from([0.0, 0.2]))
def test_a_federation_of_a_partition_by_hand_is_the_one_of_the_built_in(seed, held_out, validation):
    task = tiny_federation.task()
    options = {"clients": 12, "held_out": held_out, "client_validation": validation, "seed": seed}
    cut = federate(task, partition={"name": "iid"}, **options)
    by_hand = federate(task, partition={"name": "test_many_clients:iid_by_hand"}, **options)
    for name in ("records", "validation", "shards"):
        first, second = getattr(cut, name), getattr(by_hand, name)
        assert [part.tolist() for part in first] == [part.tolist() for part in second]
        assert [array.tolist() for array in first.arrays()] == [array.tolist() for array in second.arrays()]


def iid_by_hand(labels, clients, seed):
    """A random split as a list of arrays: the slow oracle of the built-in one."""
    from fedsafe.rng import public_generator

    order = public_generator(seed, "partition order").permutation(len(labels))
    return [np.sort(part) for part in np.array_split(order, clients)]


def test_twenty_thousand_clients_in_files_run_to_the_end(tmp_path):
    import fedsafe

    clients, records = 20_000, 5
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (clients * records, 2)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", (x[:, 0] > 0).astype(np.int64))
    values = tiny_federation.config(
        model="logistic",
        rounds=2,
        federation__clients=clients,
        federation__partition={"name": "contiguous"},
        federation__cohort={"rate": 0.02},
    )
    run = fedsafe.run(values, data=mapped_task(tmp_path, evaluation_public=True), out=tmp_path / "run")
    line = json.loads((tmp_path / "run" / "record.jsonl").read_text().splitlines()[0])
    assert line["federation"]["records_per_client"] == {"min": 5, "median": 5.0, "max": 5}
    assert len(run.rounds()) == 2
