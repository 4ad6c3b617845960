"""`facenet doctor`: what runs where on this machine, and why."""

from __future__ import annotations

from facenet.apps.cli.flags import Output, command
from facenet.apps.cli.outlet import print_json


@command
def doctor(output: Output) -> int:
    """Print what runs where and why: versions, processor, threads, engines, models, home."""
    from facenet.apps.jobs.examine import examine, report

    findings = examine()
    print_json(findings) if output.json else print(report(findings))
    return 0 if all(model["ok"] for model in findings["models"]) else 2
