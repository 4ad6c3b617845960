"""`facenet doctor`: what runs where on this machine, and why."""

from __future__ import annotations

from facenet.apps.cli.flags import Output, command
from facenet.apps.cli.outlet import print_json


@command
def doctor(output: Output) -> int:
    """Print what runs where on this machine, and why.

    Exit code 2 when something is wrong; a model that was not fetched is nothing wrong.
    """
    from facenet.apps.jobs.examine import examine, report

    findings = examine()
    print_json(findings) if output.json else print(report(findings))
    return 2 if findings["problems"] else 0
