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


def give_memory_back() -> None:
    """Let all threads get small pieces from `ARENAS` places, and `LARGE` ones from the system.

    It holds for the process, from now on; MALLOC_ARENA_MAX and MALLOC_MMAP_THRESHOLD_ in the
    environment come first. Elsewhere than with glibc nothing is done.
    """
    if sys.platform != "linux":
        return
    options = {
        "MALLOC_ARENA_MAX": (_M_ARENA_MAX, ARENAS),
        "MALLOC_MMAP_THRESHOLD_": (_M_MMAP_THRESHOLD, LARGE),
    }
    try:
        for name, (option, value) in options.items():
            if name not in os.environ:
                ctypes.CDLL(None).mallopt(option, value)
    except AttributeError:  # not glibc
        return
