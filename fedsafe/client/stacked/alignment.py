"""Tensors whose parts for each client lie alike in memory.

A matrix product takes another kernel, with other bits, where its operands are aligned differently. What starts at a
multiple of 16 values is aligned alike wherever it lies in a stack (``docs/decisions/0003``).
"""

import functools
import math

import torch
from torch import Tensor

ALIGNMENT = 16


def aligned_rows(rows: int, columns: int, dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
    """``(rows, columns)`` uninitialised values, every row aligned like the first."""
    width = ALIGNMENT * math.ceil(columns / ALIGNMENT)
    return torch.empty(rows, width, dtype=dtype, device=device)[:, :columns]


def aligned_copy(values: Tensor) -> Tensor:
    """The same ``(clients, ...)`` values, every client's aligned like the first's."""
    rows = aligned_rows(len(values), values[0].numel(), values.dtype, values.device).view(values.shape)
    return rows.copy_(values)


def aligned_product(left: Tensor, right: Tensor) -> Tensor:
    """``(clients, n, m)`` products of ``(clients, n, k)`` and ``(clients, k, m)``, aligned alike."""
    shape = (len(left), left.shape[1], right.shape[2])
    out = aligned_rows(shape[0], shape[1] * shape[2], left.dtype, left.device).view(shape)
    return torch.bmm(left, right, out=out)


def aligned_matrices(count: int, rows: int, columns: int, like: Tensor) -> Tensor:
    """``(count, rows, columns)`` uninitialised values of the type of others, every row aligned like the first."""
    width = ALIGNMENT * math.ceil(columns / ALIGNMENT)
    return like.new_empty(count, rows, width)[:, :, :columns]


@functools.cache
def keep_freed_memory() -> None:
    """Let the C library keep what is freed for the next step, up to some 60 MB.

    It hands memory back to the system after each step otherwise, which zeroes it before it is used again: a fifth of
    the time of a small network. glibc keeps blocks up to the size of the largest that was freed before
    (up to 32 MB), so one is: untouched, it costs nothing.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)
