"""`facenet models list | show | pull | check | quantize | import`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenet.apps.cli.flags import Output, command, flag, parse_size
from facenet.apps.cli.outlet import bar, fetch_bar, note, noticed, print_json, print_rows

if TYPE_CHECKING:
    from facenet.models.card import ModelCard

app = typer.Typer(
    help="The models: list, show, fetch, check, quantize, import.", no_args_is_help=True
)

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

    Origin, licence, preprocessing in words, figures with their protocol, false-match rates, and
    what `facenet models quantize` measured here.
    """
    from facenet.apps.jobs.cardtext import card_facts, card_text
    from facenet.models.card import licence_notice
    from facenet.models.catalog import find_card
    from facenet.models.home import environment

    card, home = find_card(name), environment().home
    if output.json:
        print_json(noticed(card_facts(card, home), licence_notice([card])))
    else:
        print(card_text(card, home))
    return 0


@app.command()
@command
def pull(
    name: Name,
    output: Output,
    file: Annotated[
        Path | None,
        typer.Option("--file", "--from", help="The source file or its archive, when you have it."),
    ] = None,
) -> int:
    """Fetch a model, check it, convert it where needed. Run again to go on."""
    from facenet.models.catalog import find_card
    from facenet.models.store import ModelStore

    card, store = find_card(name), ModelStore()
    with fetch_bar() as progress:
        fetched = store.pull(card, progress, given=file)
    answer = {"name": card.name, "fetched": fetched, "folder": str(store.folder(card))}
    licence = _licence(card)
    if output.json:
        print_json({**answer, **licence})
    else:
        print(f"{card.name}: {'fetched into' if fetched else 'already in'} {answer['folder']}")
    return 0


@app.command()
@command
def check(
    output: Output,
    names: Annotated[list[str] | None, typer.Argument(help="Models; none = all here.")] = None,
) -> int:
    """Check the files of models, and their answers on every engine.

    Files by their SHA-256; answers by the golden ones on the cards, with each engine and
    precision of this machine; an 8-bit file by its own answer when it was made. Prints the largest
    difference of a value, and for embedders 1 - the cosine of the vectors. Exit code 2 when one is
    not right.
    """
    from facenet.apps.jobs.modelroom import COLUMNS, check_models

    rows = check_models(names or [])
    print_json(rows) if output.json else print_rows(rows, COLUMNS)
    return 2 if any(row["ok"] is False for row in rows) else 0


def _licence(card: ModelCard) -> dict[str, Any]:
    """What there is to say of the licence of a model that was fetched; said on stderr too."""
    from facenet.models.card import licence_notice

    notice, remark = licence_notice([card]), card.licence.note
    for text in (notice and f"{notice}.", remark):
        if text:
            note(text)
    return noticed({"commercial": card.licence.commercial, "licence_note": remark}, notice)


@app.command()
@command
def quantize(
    name: Name,
    output: Output,
    images: Annotated[Path, typer.Option(help="Photos that show a face each: a folder.")],
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Pairs to compare the decisions on: LFW's pairs.txt, or a CSV as for `facenet "
            "evaluate pairs`; pictures below --images.  [default: drawn, from a folder per person]"
        ),
    ] = None,
    count: Annotated[int, typer.Option(help="Faces that the ranges are taken from.")] = 300,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    precision: Annotated[
        str, typer.Option(help="int8, or bf16: measured only, so that auto may take it.")
    ] = "int8",
) -> int:
    """Make an embedder int8, or measure it in bf16.

    Kept only when it is as good as fp32: a median cosine of 0.99 or more between the vectors of
    faces held out, and an accuracy on the pairs that changes by 0.001 at most; layers that 8 bits
    harm are put back into float, in steps. What was measured is shown by `facenet models show`,
    also of a file that was refused. It takes the place of what an earlier run made. Nothing is
    written before the end. Exit code 1 when it is refused. With bf16 there is no file to make, and
    the median cosine has to be 0.999.
    """
    from facenet.apps.jobs.quantizing import Quantising
    from facenet.apps.jobs.rounding import reduce_model, reduced_text

    record = reduce_model(name, precision, Quantising(images, pairs, count, seed), bar)
    print_json(record.summary()) if output.json else print(reduced_text(record))
    return 0 if record.offered else 1


@dataclass(frozen=True, slots=True)
class Importing:
    """What a file of one's own cannot say of itself."""

    name: str | None = flag(None, "Name for a model of your own.")
    kind: str | None = flag(None, "embedder or detector.  [default: what it says, else embedder]")
    size: str | None = flag(
        None, "Side of the input in pixels, or WIDTHxHEIGHT.  [default: what it says]"
    )
    crop: str | None = flag(None, "similarity, margin_original or margin_output.")
    standardise: str | None = flag(
        None, "fixed: (x-127.5)/128, per_image, insightface: (x-127.5)/127.5, or none: 0 to 255."
    )
    margin: int | None = flag(None, "Margin of the crop in pixels.  [default: 0]")
    color: str | None = flag(
        None, "Channel order the network was trained with: rgb or bgr.  [default: rgb]"
    )
    mean: str | None = flag(
        None, "Detectors: taken from each channel, one number or three.  [default: what it says]"
    )
    scale: str | None = flag(None, "Detectors: what is left is divided by it, one or three.")
    overwrite: bool = flag(False, "Replace an imported model of the same name.")


@app.command("import")
@command
def import_(
    file: Annotated[
        Path,
        typer.Argument(
            help="A published file or archive, an ONNX file, a folder or zip of them, .pt, .h5, "
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
    What is said counts more than what was recognised, and goes onto the card.
    """
    from facenet.apps.jobs.importroom import OwnModel, import_file, parse_channels

    told = asdict(importing)
    overwrite, size = told.pop("overwrite"), told.pop("size")
    width, height = parse_size(size) if size is not None else (None, None)
    told |= {key: parse_channels(key, told[key]) for key in ("mean", "scale")}
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
    from facenet.models.card import licence_notice

    notice = licence_notice([card])
    if notice:
        note(f"{notice}.")
    answer = {
        "name": card.name,
        "kind": card.kind,
        "contract": card.contract,
        "dimension": card.dimension,
        "commercial": card.licence.commercial,
    }
    return noticed(answer, notice)
