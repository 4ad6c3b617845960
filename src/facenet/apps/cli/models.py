"""`facenet models list | show | pull | check | import`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenet.apps.cli.flags import Output, command, flag, parse_size
from facenet.apps.cli.outlet import fetch_bar, note, print_json, print_rows

if TYPE_CHECKING:
    from facenet.models.card import ModelCard

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
    size: str | None = flag(
        None, "Side of the input in pixels, or WIDTHxHEIGHT.  [default: what it says, else 112]"
    )
    crop: str | None = flag(None, "similarity, margin_original or margin_output.")
    standardise: str | None = flag(None, "fixed, per_image, insightface or none.")
    margin: int | None = flag(None, "Margin of the crop in pixels.  [default: 0]")
    color: str | None = flag(
        None, "Channel order the network was trained with: rgb or bgr.  [default: rgb]"
    )
    overwrite: bool = flag(False, "Replace an imported model of the same name.")


@app.command("import")
@command
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="A published file or archive, an ONNX file or a folder of them, .pt, .h5, "
            ".pb, .params, or a TensorFlow checkpoint (prefix or folder).",
            metavar="FILE_OR_FOLDER",
        ),
    ],
    importing: Importing,
    output: Output,
) -> int:
    """Take a model of this machine into FACENET_HOME.

    A published file is recognised by its SHA-256, others by their contents. What those cannot
    tell is asked for: --name, and of an embedder --crop and --standardise, as it was trained.
    """
    from facenet.apps.jobs.modelroom import OwnModel, import_file

    told = asdict(importing)
    overwrite, size = told.pop("overwrite"), told.pop("size")
    width, height = parse_size(size) if size is not None else (None, None)
    done = import_file(file, OwnModel(width, height, **told), overwrite=overwrite)
    for line in done.lines:
        note(line)
    rows = [_imported(card) for card in done.cards]
    if output.json:
        print_json(rows[0] if len(rows) == 1 else rows)
    else:
        print("\n".join(map(_sentence, rows)))
    return 0


def _sentence(row: dict[str, Any]) -> str:
    what = f"{row['dimension']} values" if row["kind"] == "embedder" else row["kind"]
    return f"{row['name']}: imported, {what}, contract {row['contract']}"


def _imported(card: ModelCard) -> dict[str, Any]:
    """What is said of a model after its import."""
    if card.licence.commercial is False:
        note(f"The weights of {card.name} are for non-commercial use: {card.licence.weights}.")
    return {
        "name": card.name,
        "kind": card.kind,
        "contract": card.contract,
        "dimension": card.dimension,
        "commercial": card.licence.commercial,
    }
