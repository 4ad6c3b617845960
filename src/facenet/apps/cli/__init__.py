"""The command line: `facenet VERB`. Every verb has `--help`, `--json` and an exit code.

0: done, matched. 1: no match. 2: an error, told in one sentence on stderr. 130: stopped.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; leaves with its exit code."""
    from facenet.apps.cli.program import app

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="facenet")
