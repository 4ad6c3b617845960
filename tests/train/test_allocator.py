"""What is freed is kept: page faults of large blocks, counted in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, numpy
from facenet.train.allocator import keep_memory
told = keep_memory() if {told} else None
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    numpy.ones(48 << 20, numpy.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(told, max(faults() for _ in range(3)))
"""


def counted(told: bool, **environment: str) -> tuple[str, int]:
    child = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(told=told)],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    answer, faults = child.stdout.split()
    return answer, int(faults)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_blocks_that_are_given_back_are_not_asked_for_again():
    huge_pages = 48 << 20 >> 21  # as few as this where the system gives pages of 2 MB
    assert counted(False)[1] >= huge_pages
    assert counted(True) == ("True", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_the_environment_comes_first():
    answer, faults = counted(True, MALLOC_MMAP_MAX_="65536")
    assert answer == "False"
    assert faults > 0
