"""`facenet doctor`: what runs where on this machine, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from facenet.apps.cli.flags import INSTRUCTIONS, Output, command
from facenet.apps.cli.outlet import print_json


@command
def doctor(
    output: Output,
    instructions: Annotated[str, typer.Option(help=INSTRUCTIONS)] = "auto",
) -> int:
    """Print what runs where on this machine, and why.

    For each embedder also which precision is the fastest that computes right, with the times of
    each beside fp32, and what is against the others; it is measured the first time. Exit code 2
    when something is wrong; a model that was not fetched is nothing wrong.
    """
    from facenet.apps.jobs.examine import examine, report

    findings = examine(instructions)
    print_json(findings) if output.json else print(report(findings))
    return 2 if findings["problems"] else 0
