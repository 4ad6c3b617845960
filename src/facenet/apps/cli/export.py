"""`facenet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import Output, command
from facenet.apps.cli.outlet import note, print_json


@command
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run of facenet train.", metavar="RUN")],
    output: Output,
    name: Annotated[str, typer.Option(help="Name of the new model, for --model.")],
    which: Annotated[
        str | None,
        typer.Option(help="Weights: best or last.  [default: best, else last]", show_default=False),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model of your own of this name.")
    ] = False,
) -> int:
    """Make a model of a training run: an ONNX file and its card.

    The graph is compared with the network and not published when it answers otherwise. --model NAME
    works in every command from then on; 8-bit files come from `facenet models quantize NAME`.
    """
    from facenet.apps.jobs.exporting import export_run

    card = export_run(run, name, which=which, overwrite=overwrite)
    note(card.notes)
    answer = {"name": card.name, "dimension": card.dimension, "contract": card.contract}
    rates = {"false_match_rates": card.fmr is not None, "megabytes": round(card.bytes / 1e6, 2)}
    if output.json:
        print_json({**answer, **rates, "notes": card.notes})
    else:
        print(f"{card.name}: exported, {card.dimension} values, contract {card.contract}")
    return 0
