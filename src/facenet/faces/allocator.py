"""Memory that a picture is done with goes back to the system, so that a long run stays as it was.

What a thread frees stays with its own place, an arena of glibc's malloc, and grows there for
thousands of pictures. After the first large piece malloc takes all up to 32 MB from such a place
too, where smaller ones that stay keep its gaps from being of use. Training wants the contrary, see
`train.allocator`.
"""

from __future__ import annotations

import ctypes
import os
import sys

ARENAS = 2
"""Places that all threads get their memory from."""
LARGE = 1 << 17
"""Bytes from which on a piece of memory is the system's own, and goes back to it at once."""
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
"""Numbers of these options in glibc's `malloc.h`."""


def clear_gaps() -> None:
    """Give the system what is free between pieces that are in use: some 3 ms, which keeps a run of
    any length at what it needs. Elsewhere than with glibc nothing is done."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def share_arenas() -> None:
    """Let all threads get small pieces from `ARENAS` places.

    It holds for the process, from now on; MALLOC_ARENA_MAX in the environment comes first.
    Elsewhere than with glibc nothing is done.
    """
    _set("MALLOC_ARENA_MAX", _M_ARENA_MAX, ARENAS)


def give_memory_back() -> None:
    """The same, and get `LARGE` pieces from the system. Not for videos, whose frames are all large:
    it takes a seventh of their pace. MALLOC_MMAP_THRESHOLD_ in the environment comes first."""
    share_arenas()
    _set("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, LARGE)


def _set(name: str, option: int, value: int) -> None:
    if sys.platform != "linux" or name in os.environ:
        return
    try:
        ctypes.CDLL(None).mallopt(option, value)
    except AttributeError:  # not glibc
        return
