"""A disk that is full or fails at any call: proper errors, nothing half done, and on it goes.

`scripts/crash --faults` fails every call; here it is a sample of them.
"""

from __future__ import annotations

import shutil
import sys

import pytest
from crashing import faults

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None,
    reason="the shim under SQLite needs Linux and a C compiler (apt-get install gcc libc6-dev)",
)


def test_each_operation_fails_whole_reading_goes_on_and_writing_resumes() -> None:
    rows = faults.collect(50)
    assert [row["name"] for row in rows] == [name for name in faults.CASES for _ in faults.MODES]
    assert [problem for row in rows for problem in row["problems"]] == []
    assert min(row["calls"] for row in rows) >= 4
    assert len(faults.CASES) == 8


def test_a_store_whose_drafts_are_not_whole_is_found_out() -> None:
    rows = faults.collect(23, broken=True)
    assert {row["name"] for row in rows} == {"enrol", "import", "delete", "merge"}
    for row in rows:
        assert any("it failed and changed something" in one for one in row["problems"])
