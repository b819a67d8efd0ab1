"""Cells of a grid: each computed once, kept at once, and never again; in one process as in several."""

import json
import os
from pathlib import Path

import pytest

from fedsafe.errors import EngineError
from fedsafe.runs.cells import CellStore, code_digest, compute_cells
from fedsafe.runs.config import make_config

_CALLS = "calls.txt"


def computed(configs):
    """A work that any process can import; the configuration's card says where to count."""
    for number, config in enumerate(configs):
        with (Path(config.card.contact) / _CALLS).open("a") as file:
            file.write(f"{config.seed}\n")
        if config.card.licence == f"dies at {config.seed}":
            os._exit(9)
        if config.card.licence == f"fails at {config.seed}":
            raise EngineError("this cell fails")
        yield number, {"seed": config.seed, "value": config.seed / 4}


def counted(folder, count, trouble=""):
    card = {"contact": str(folder), "licence": trouble}
    return [make_config({"seed": seed, "rounds": 1, "card": card}) for seed in range(count)]


def calls(folder):
    path = folder / _CALLS
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def store(tmp_path):
    return CellStore(tmp_path, work="counted", code="this")


def test_each_cell_is_computed_once(tmp_path, store):
    configs = counted(tmp_path, 5)
    seen = []
    found = compute_cells(configs, computed, store, stack=2, on_done=lambda done, of: seen.append((done, of)))
    assert [result["seed"] for result in found] == list(range(5))
    assert seen == [(done, 5) for done in range(6)]
    assert compute_cells(configs, computed, store) == found
    assert sorted(calls(tmp_path)) == list(range(5))


def test_equal_cells_are_one(tmp_path, store):
    configs = counted(tmp_path, 2) * 3
    found = compute_cells(configs, computed, store)
    assert [result["seed"] for result in found] == [0, 1] * 3
    assert len(calls(tmp_path)) == 2


def test_what_cannot_change_a_result_finds_it_again(tmp_path, store):
    compute_cells(counted(tmp_path, 2), computed, store)
    other = [config.model_copy(update={"sinks": ["jsonl"]}) for config in counted(tmp_path, 2)]
    compute_cells(other, computed, store)
    assert len(calls(tmp_path)) == 2


@pytest.mark.parametrize("other", [{"work": "another"}, {"code": "that"}])
def test_other_work_and_other_code_have_other_results(tmp_path, store, other):
    compute_cells(counted(tmp_path, 1), computed, store)
    fresh = CellStore(tmp_path, **{"work": "counted", "code": "this", **other})
    compute_cells(counted(tmp_path, 1), computed, fresh)
    assert calls(tmp_path) == [0, 0]


def test_a_cell_that_fails_keeps_the_others(tmp_path, store):
    broken = counted(tmp_path, 4, "fails at 2")
    alike = "{0.seed:03d}".format  # one after the other, in this order
    with pytest.raises(EngineError, match="this cell fails"):
        compute_cells(broken, computed, store, alike=alike)
    mended = counted(tmp_path, 4)
    found = compute_cells(mended, computed, store, alike=alike)
    assert [result["seed"] for result in found] == list(range(4))
    assert calls(tmp_path) == [0, 1, 2, 2, 3]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "other", "result": {}}', "null"])
def test_a_file_that_is_not_whole_is_computed_again(tmp_path, store, content):
    (config,) = counted(tmp_path, 1)
    compute_cells([config], computed, store)
    (tmp_path / "cells" / f"{store.key(config)}.json").write_text(content)
    assert compute_cells([config], computed, store) == [{"seed": 0, "value": 0.0}]
    assert calls(tmp_path) == [0, 0]


def test_processes_find_what_one_finds(tmp_path, store):
    configs = counted(tmp_path, 4)
    several = compute_cells(configs, computed, store, workers=2, stack=1)
    assert several == [{"seed": seed, "value": seed / 4} for seed in range(4)]
    assert sorted(calls(tmp_path)) == list(range(4))
    for path in (tmp_path / "cells").iterdir():
        assert json.loads(path.read_text())["key"] == path.stem


def test_a_lost_process_is_said_and_loses_its_stack_alone(tmp_path, store):
    alike = "{0.seed:03d}".format
    with pytest.raises(EngineError, match="a worker process was lost"):
        compute_cells(counted(tmp_path, 3, "dies at 2"), computed, store, workers=2, stack=1, alike=alike)
    kept = len(list((tmp_path / "cells").iterdir()))
    before = len(calls(tmp_path))
    compute_cells(counted(tmp_path, 3), computed, store)
    assert len(calls(tmp_path)) - before == 3 - kept


def test_the_code_is_recognised():
    assert code_digest() == code_digest()
    assert len(code_digest()) == 64


def test_another_version_of_a_users_module_makes_other_cells(tmp_path, store, monkeypatch):
    from fedsafe.runs import cells

    monkeypatch.syspath_prepend(str(tmp_path))
    config = make_config({"rounds": 1, "client": {"objective": "mine_alone:loss"}})
    other = make_config({"rounds": 1})
    seen = []
    for source in ("first", "second", "second"):
        (tmp_path / "mine_alone.py").write_text(f"# {source}\n")
        cells._module_digest.cache_clear()
        seen.append((store.key(config), store.key(other)))
    assert seen[0][0] != seen[1][0] == seen[2][0]
    assert len({built_in for _, built_in in seen}) == 1


def test_what_a_folder_keeps_besides_is_counted(tmp_path, store):
    configs = counted(tmp_path, 3)
    compute_cells(configs, computed, store)
    keys = [store.key(config) for config in configs]
    assert [store.others(keys), store.others(keys[:1]), store.others([])] == [0, 2, 3]
