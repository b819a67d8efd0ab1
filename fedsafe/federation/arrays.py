"""Reading the values of Flower's arrays without parsing the same header every time."""

import io
import math
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from flwr.app import Array
from flwr.common.constant import SType
from numpy.typing import NDArray

# The first version of NumPy's format: the magic string, then the length of the header in two bytes.
_MAGIC = b"\x93NUMPY\x01\x00"
_START = len(_MAGIC)


def values_of(array: Array) -> NDArray[Any]:
    """What ``array.numpy()`` gives, in an array of its own, and the errors that it raises.

    NumPy parses the header of an array as Python text, which takes longer than to copy a small model. The models and
    folds of a run have the same few headers in every round.
    """
    data = array.data
    if array.stype != SType.NUMPY or data[:_START] != _MAGIC:
        return array.numpy()
    begin = _START + 2 + int.from_bytes(data[_START : _START + 2], "little")
    form = _form(data[_START:begin])
    if form is None:
        return array.numpy()
    dtype, shape = form
    if len(data) != begin + dtype.itemsize * math.prod(shape):
        return array.numpy()
    return np.frombuffer(data, dtype, offset=begin).reshape(shape).copy()


# Python 3.11 counts the depth of the text that it parses in one place for all threads, and refuses to go on when two
# of them meet there ("AST constructor recursion depth mismatch"); a stack of runs has a thread for each.
_ONE_AT_A_TIME = Lock()


@lru_cache(maxsize=1024)
def _form(header: bytes) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """Type and shape that a header says; None where NumPy itself should read, or refuse, what follows."""
    try:
        with _ONE_AT_A_TIME:
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(io.BytesIO(header))
    except ValueError:
        return None
    return None if fortran or dtype.hasobject or dtype.itemsize == 0 else (dtype, shape)
