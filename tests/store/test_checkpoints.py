"""Checkpoints: exact, atomic, and damage is noticed."""

import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fedsafe.errors import RecordError
from fedsafe.store import RunFolder, content_digest

TENSORS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4).T,
    "scalar": np.float64(3.5) * np.ones(()),
    "counts": np.array([1, -2, 3], dtype=np.int64),
    "empty": np.zeros((0, 5), dtype=np.float32),
    "half": np.array([1.5], dtype=np.float16),
    "negative_zero": np.array([-0.0, np.nan, np.inf], dtype=np.float32),
}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run", "")


def test_arrays_and_metadata_are_read_back_to_the_last_bit(run):
    relative = run.write_checkpoint(3, TENSORS, {"round": "3", "head": "ff"})
    assert relative == "checkpoints/round-00003.safetensors"
    for which in (3, relative):
        tensors, metadata = run.read_checkpoint(which)
        assert metadata == {"round": "3", "head": "ff"}
        assert set(tensors) == set(TENSORS)
        for name, array in TENSORS.items():
            assert tensors[name].dtype == array.dtype
            assert tensors[name].shape == array.shape
            assert tensors[name].tobytes() == array.tobytes()


def test_the_file_is_plain_safetensors_that_other_programs_read(run):
    path = run.path / run.write_checkpoint(1, TENSORS, {})
    assert np.array_equal(load_file(path)["weight"], TENSORS["weight"])


def test_equal_content_gives_equal_bytes(run):
    metadata = {f"key{i}": str(i) for i in range(20)}
    first = (run.path / run.write_checkpoint(1, TENSORS, metadata)).read_bytes()
    second = run.write_checkpoint(2, dict(reversed(TENSORS.items())), dict(reversed(metadata.items())))
    assert (run.path / second).read_bytes() == first


def test_every_flipped_byte_is_noticed(run):
    path = run.path / run.write_checkpoint(1, {"w": np.ones(4, np.float32)}, {"a": "b"})
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        path.write_bytes(damaged)
        with pytest.raises(RecordError, match="checkpoint"):
            run.read_checkpoint(1)


def test_every_truncation_is_noticed(run):
    path = run.path / run.write_checkpoint(1, {"w": np.ones(4, np.float32)}, {})
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        with pytest.raises(RecordError, match="checkpoint"):
            run.read_checkpoint(1)


def test_an_absent_or_foreign_checkpoint_is_refused(run):
    with pytest.raises(RecordError, match="no checkpoint"):
        run.read_checkpoint(9)
    save_file({"w": np.ones(2)}, run.path / "checkpoints" / "round-00009.safetensors")
    with pytest.raises(RecordError, match="not written by fedsafe"):
        run.read_checkpoint(9)


def test_a_write_that_fails_leaves_the_old_checkpoint_and_nothing_else(run, monkeypatch):
    run.write_checkpoint(1, {"w": np.ones(2)}, {})

    def refuse(source: object, target: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(KeyboardInterrupt):
        run.write_checkpoint(1, {"w": np.zeros(2)}, {})
    assert os.listdir(run.path / "checkpoints") == ["round-00001.safetensors"]
    assert run.read_checkpoint(1)[0]["w"].tolist() == [1.0, 1.0]


def test_all_checkpoints_stay_unless_a_number_is_given(run):
    for number in range(1, 6):
        run.write_checkpoint(number, {"w": np.ones(1)}, {})
    assert run.checkpoints() == [1, 2, 3, 4, 5]
    run.write_checkpoint(6, {"w": np.ones(1)}, {}, keep=2)
    assert run.checkpoints() == [5, 6]
    with pytest.raises(RecordError, match="keep"):
        run.write_checkpoint(7, {"w": np.ones(1)}, {}, keep=0)


def test_rounds_sort_by_number_beyond_five_digits(run):
    for number in (123456, 99999, 2):
        run.write_checkpoint(number, {"w": np.ones(1)}, {})
    assert run.checkpoints() == [2, 99999, 123456]


def test_arrays_that_safetensors_cannot_hold_are_refused(run):
    with pytest.raises(RecordError, match="cannot write"):
        run.write_checkpoint(1, {"w": np.array(["text"])}, {})
    assert run.checkpoints() == []


def test_the_digest_tells_names_shapes_types_and_values_apart_and_not_the_order():
    a, b = np.arange(6, dtype=np.float32), np.ones(2, dtype=np.float32)
    digest = content_digest({"a": a, "b": b})
    assert digest == content_digest({"b": b, "a": a})
    others = [
        {"a": a, "c": b},
        {"a": a.reshape(2, 3), "b": b},
        {"a": a.astype(np.float64), "b": b},
        {"a": a, "b": np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], dtype=np.float32)},
        {"a": a},
    ]
    assert len({digest, *(content_digest(other) for other in others)}) == 6
