"""The quick way to read an array gives what NumPy gives, and leaves to NumPy what is not as usual."""

import io
import threading
import time

import numpy as np
import pytest
from flwr.app import Array

from fedsafe.federation import arrays
from fedsafe.federation.arrays import values_of

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "whole numbers": np.arange(-3, 4),
    "big-endian": np.arange(4, dtype=">f8"),
    "column after column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "a number": np.array(2.5),
    "nothing": np.zeros((0, 4), np.float32),
    "texts": np.array(["a", "bcd"]),
    "truths": np.array([True, False]),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_values_are_numpys_and_ones_own(name):
    array = Array(ARRAYS[name])
    for _ in range(2):  # the second time, the header is known
        found, expected = values_of(array), array.numpy()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, ARRAYS[name])
        if found.size:
            found.flat[0] = found.flat[-1]  # changes nothing that others see
    np.testing.assert_array_equal(values_of(array), ARRAYS[name])


def broken(**changed):
    whole = Array(np.arange(6, dtype=np.float32))
    return Array(**{"dtype": "float32", "shape": (6,), "stype": whole.stype, "data": whole.data, **changed})


WHOLE = Array(np.arange(6, dtype=np.float32)).data
BROKEN = {
    "cut": WHOLE[:-1],
    "cut in the header": WHOLE[:20],
    "empty": b"",
    "no such type": WHOLE.replace(b"'<f4'", b"'<q9'"),
    "objects": WHOLE.replace(b"'<f4'", b"'|O' "),
    "no header": WHOLE[:10] + b"x" * (len(WHOLE) - 10),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused_as_numpy_refuses_it(name):
    array = broken(data=BROKEN[name])
    with pytest.raises(Exception) as expected:  # noqa: PT011
        array.numpy()
    with pytest.raises(type(expected.value)):
        values_of(array)


def test_another_serialisation_is_refused():
    with pytest.raises(TypeError, match="serialization type"):
        values_of(broken(stype="safetensors"))


def test_one_thread_at_a_time_reads_a_header(monkeypatch) -> None:
    """Python 3.11 parses text for no more than one: a collection in the middle lets another one in, and both fail."""
    inside, most = 0, 0
    plain = np.lib.format.read_array_header_1_0

    def slowly(header: io.BytesIO) -> object:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)
        inside -= 1
        return plain(header)

    def read(length: int) -> None:
        written = io.BytesIO()
        described = {"descr": "<f4", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(written, described)
        assert arrays._form(written.getvalue()[8:]) == (np.dtype("<f4"), (length,))

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", slowly)
    threads = [threading.Thread(target=read, args=(length,)) for length in range(70_001, 70_009)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
