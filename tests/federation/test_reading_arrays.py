"""The quick way to read an array gives what NumPy gives, and leaves to NumPy what is not as usual."""

import gc
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


def test_threads_may_read_headers_at_once() -> None:
    """Python 3.11 parses text for one thread at a time only; a collection in the middle lets another one in."""

    def header(length: int) -> bytes:
        written = io.BytesIO()
        described = {"descr": "<f4", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(written, described)
        return written.getvalue()[8:]

    def below(depth: int, found: bytes) -> object:
        # Threads at different depths are what Python takes for a mistake.
        return below(depth - 1, found) if depth else arrays._form(found)

    def read(thread: int) -> None:
        try:
            for found in headers[thread::8]:
                below(5 * thread, found)
        except SystemError as error:
            errors.append(str(error))

    def let_others_in(phase: str, info: object) -> None:
        time.sleep(0.0002)

    headers, errors = [header(length) for length in range(70_001, 70_161)], list[str]()
    threads = [threading.Thread(target=read, args=(thread,)) for thread in range(8)]
    before = gc.get_threshold()
    gc.callbacks.append(let_others_in)
    gc.set_threshold(3)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(let_others_in)
    assert errors == []
