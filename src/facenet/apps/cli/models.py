"""`facenet models list | show | pull | check | import`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.flags import Output, command, flag, parse_size
from facenet.apps.cli.outlet import fetch_bar, note, print_json, print_rows

app = typer.Typer(help="The models: list, show, fetch, check, import.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(help="Model name or alias, see `facenet models list`.", metavar="NAME")
]


@app.command("list")
@command
def list_models(output: Output) -> int:
    """List the models: name, kind, here or not, licence."""
    from facenet.apps.jobs.modelroom import overview

    rows = overview()
    columns = ["name", "kind", "installed", "megabytes", "dimension", "licence", "title"]
    print_json(rows) if output.json else print_rows(rows, columns)
    return 0


@app.command()
@command
def show(name: Name, output: Output) -> int:
    """Show the card of a model.

    Origin, licence, preprocessing, figures, false-match rates.
    """
    from facenet.apps.jobs.modelroom import card_text
    from facenet.models.catalog import find_card

    card = find_card(name)
    if output.json:
        print_json({**card.to_dict(), "contract": card.contract})
    else:
        print(card_text(card))
    return 0


@app.command()
@command
def pull(
    name: Name,
    output: Output,
    file: Annotated[
        Path | None, typer.Option(help="The source file or its archive, when you have it.")
    ] = None,
) -> int:
    """Fetch a model, check it, convert it where needed. Run again to go on."""
    from facenet.models.catalog import find_card
    from facenet.models.store import ModelStore

    card, store = find_card(name), ModelStore()
    with fetch_bar() as progress:
        fetched = store.pull(card, progress, given=file)
    if card.licence.commercial is False:
        note(f"The weights of {card.name} are for non-commercial use: {card.licence.weights}.")
    answer = {"name": card.name, "fetched": fetched, "folder": str(store.folder(card))}
    if output.json:
        print_json({**answer, "commercial": card.licence.commercial})
    else:
        print(f"{card.name}: {'fetched into' if fetched else 'already in'} {answer['folder']}")
    return 0


@app.command()
@command
def check(
    output: Output,
    names: Annotated[list[str] | None, typer.Argument(help="Models; none = all here.")] = None,
) -> int:
    """Check the files of models, and their answers.

    Files by their SHA-256, answers by the golden ones on the cards.
    """
    from facenet.apps.jobs.modelroom import check_models

    rows = check_models(names or [])
    print_json(rows) if output.json else print_rows(rows, ["name", "ok", "reason"])
    return 0 if all(row["ok"] for row in rows) else 2


@dataclass(frozen=True, slots=True)
class Importing:
    """What a file of one's own cannot say of itself."""

    name: str | None = flag(None, "Name for a model of your own.")
    size: str = flag("112", "Side of the input in pixels, or WIDTHxHEIGHT.")
    crop: str | None = flag(None, "similarity, margin_original or margin_output.")
    standardise: str | None = flag(None, "fixed, per_image or insightface.")
    margin: int = flag(0, "Margin of the crop in pixels.")
    color: str = flag("rgb", "Channel order the network was trained with: rgb or bgr.")
    overwrite: bool = flag(False, "Replace an imported model of the same name.")


@app.command("import")
@command
def import_(
    file: Annotated[Path, typer.Argument(help="A published file or archive, or an ONNX embedder.")],
    importing: Importing,
    output: Output,
) -> int:
    """Take a model file of this machine into FACENET_HOME.

    A published file is recognised by its SHA-256. Any other ONNX embedder needs --name, --crop
    and --standardise: what it was trained with.
    """
    from facenet.apps.jobs.modelroom import OwnModel, import_file

    told = asdict(importing)
    overwrite = told.pop("overwrite")
    width, height = parse_size(told.pop("size"))
    card = import_file(file, OwnModel(width, height, **told), overwrite=overwrite)
    if output.json:
        print_json({"name": card.name, "contract": card.contract, "dimension": card.dimension})
    else:
        print(f"{card.name}: imported, {card.dimension} values, contract {card.contract}")
    return 0
