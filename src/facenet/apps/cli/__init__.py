"""The command line: `facenet VERB`. Every verb has `--help`, `--json` and an exit code.

0: done, matched. 1: no match. 2: an error, told in one sentence on stderr. 130: stopped by
Ctrl-C. 141: whoever read the output left (`facenet detect ... | head -1`).
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; leaves with its exit code."""
    try:
        from facenet.apps.cli.program import app

        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        app(prog_name="facenet")
    except KeyboardInterrupt:  # before a verb began
        sys.exit(130)
