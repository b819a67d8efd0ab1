import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsafe.params import Layout, fingerprint, input_digest

LAYOUT = Layout(names=("a.weight", "a.bias", "scale"), shapes=((2, 3), (2,), ()))


def test_a_layout_counts_every_value_scalars_included():
    assert LAYOUT.sizes == (6, 2, 1)
    assert LAYOUT.total == 9


@given(hnp.arrays(np.float32, (9,), elements=st.floats(width=32, allow_nan=False)))
def test_split_then_join_gives_the_same_bits(vector):
    parts = LAYOUT.split(vector)
    assert {name: part.shape for name, part in parts.items()} == dict(
        zip(LAYOUT.names, LAYOUT.shapes, strict=True)
    )
    assert LAYOUT.join(parts).tobytes() == vector.tobytes()


def test_join_follows_the_order_of_the_layout_not_of_the_mapping():
    parts = LAYOUT.split(np.arange(9, dtype=np.float32))
    shuffled = dict(reversed(parts.items()))
    np.testing.assert_array_equal(LAYOUT.join(shuffled), np.arange(9))


def test_a_missing_tensor_is_an_error_not_a_gap():
    parts = LAYOUT.split(np.zeros(9, np.float32))
    del parts["a.bias"]
    with pytest.raises(KeyError, match=r"a\.bias"):
        LAYOUT.join(parts)


def test_the_fingerprint_is_sha256_of_the_little_endian_bytes():
    vector = np.array([1.0, -2.5], np.float32)
    assert fingerprint(vector) == hashlib.sha256(bytes.fromhex("0000803f000020c0")).hexdigest()


def test_the_fingerprint_sees_a_single_bit_and_ignores_the_memory_layout():
    vector = np.arange(6, dtype=np.float32)
    changed = vector.copy()
    changed[3] = np.nextafter(changed[3], np.float32(9))
    assert fingerprint(vector) != fingerprint(changed)
    assert fingerprint(np.repeat(vector, 2)[::2]) == fingerprint(vector)
    assert fingerprint(np.array([0.0], np.float32)) != fingerprint(np.array([-0.0], np.float32))


def test_the_input_digest_changes_with_the_parameters_and_with_the_plan():
    vector = np.zeros(3, np.float32)
    digests = {
        input_digest(vector, "plan"),
        input_digest(vector + 1, "plan"),
        input_digest(vector, "other"),
        input_digest(np.zeros(4, np.float32), "plan"),
    }
    assert len(digests) == 4
    assert input_digest(vector, "plan") == input_digest(vector.copy(), "plan")
