"""`facenet gallery create | add | import | list | show | search | export`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from facenet.apps.cli.flags import Detection, Output, Recognition, command, flag
from facenet.apps.cli.outlet import bar, note, noticed, print_json, print_rows, tidy

if TYPE_CHECKING:
    from facenet.galleries import Gallery
    from facenet.gallery.records import Space

app = typer.Typer(
    help="Galleries: people who are enrolled, kept in one file.", no_args_is_help=True
)

Place = Annotated[str, typer.Argument(help="The gallery, one file.", metavar="GALLERY")]
"""A text, as a `Path` would make sqlite:/x of the address sqlite:///x."""
Who = Annotated[str, typer.Argument(help="A person: name, id or external id.", metavar="PERSON")]
ALLOW = (
    "Reasons that do not count, with commas: several_faces, too_small, blurred, extreme_pose, "
    "low_score, conflict, unlike."
)
Allow = Annotated[str, typer.Option(help=ALLOW)]
Where = Annotated[
    list[str] | None,
    typer.Option(help="Only people with this in their metadata.", metavar="NAME=VALUE"),
]
PEOPLE = ("id", "name", "external_id", "faces", "metadata")
FACES = ("id", "source", "box", "quality", "measures")
SELECT = (
    "With several faces in a photo: largest, probability, largest_over_threshold or "
    "center_weighted_size.  [default: an error]"
)


@dataclass(frozen=True, slots=True)
class Embedding:
    """The model of a new gallery."""

    model: str = flag("mobilefacenet", "Embedder, see `facenet models list`.")
    precision: str = flag(
        "fp32",
        "Arithmetic of the embedder, for good: fp32, bf16 (OpenVINO) or int8 (see `facenet models "
        "quantize`).",
    )
    flip: bool = flag(False, "Use the mirrored face too: slower, a little better.")


@dataclass(frozen=True, slots=True)
class Among:
    """Which enrolled people count, and how; options of a gallery alone."""

    where: list[str] | None = flag(None, "Gallery: only people with this metadata, NAME=VALUE.")
    template: bool = flag(False, "Gallery: compare with pooled faces, not the best one.")
    repeat: bool = flag(False, "Gallery: a person may be in a photo several times.")

    def asked(self) -> dict[str, Any]:
        """As `Gallery.question` takes them."""
        where = metadata_of(self.where, "--where")
        return {"where": where, "template": self.template, "once": not self.repeat}

    def require_unused(self) -> None:
        """Raise SettingsError when one of them is given."""
        from facenet.errors import SettingsError

        given = [f"--{entry.name}" for entry in fields(self) if getattr(self, entry.name)]
        if given:
            raise SettingsError(
                f"{' and '.join(given)} is for people in a gallery: give --gallery too."
            )


@dataclass(frozen=True, slots=True)
class Searching:
    """Which face of a photo is looked for, among whom."""

    select: str | None = flag(None, SELECT)
    where: list[str] | None = flag(None, "Only people with this metadata, NAME=VALUE.")
    template: bool = flag(False, "Compare with pooled faces.")

    def asked(self) -> dict[str, Any]:
        """As `Gallery.search` takes them."""
        where = metadata_of(self.where, "--where")
        return {"select": self.select, "where": where, "template": self.template}


def opened(place: str, detection: Detection, calibration: str = "auto") -> Gallery:
    """The gallery of a command, with a recognizer of its own model and these options."""
    from facenet.faces.embed import FLIPPED
    from facenet.galleries import Gallery
    from facenet.recognizer import Recognizer

    gallery = Gallery.open(place)
    space = gallery.space
    if isinstance(detection, Recognition):
        _require_same(detection, space)
    recognizer = Recognizer(
        **Detection.options(detection),
        model=space.model,
        precision=space.precision,
        flip=space.contract.endswith(FLIPPED),
        calibration=calibration,
    )
    detection.tell_held_back()
    return Gallery(gallery.store, recognizer=recognizer)


def notice_of(gallery: Gallery) -> str | None:
    """Which of the models a gallery used have weights that may not be used commercially."""
    from facenet.models.card import licence_notice

    return licence_notice(gallery.recognizer.cards)


def _require_same(given: Recognition, space: Space) -> None:
    """Raise ContractError when another model is asked for than that of the gallery."""
    from facenet.errors import ContractError
    from facenet.models.catalog import find_card

    asked = given.model != Recognition().model or given.flip or given.precision != "fp32"
    flip = space.contract.endswith("+flip")
    mine = (find_card(given.model, kind="embedder").name, given.precision, given.flip)
    if asked and mine != (space.model, space.precision, flip):
        raise ContractError(
            f"The gallery is of {space.model} in {space.precision}{' with flip' if flip else ''}; "
            f"{given.model} in {given.precision}{' with flip' if given.flip else ''} was asked "
            "for. Leave model, precision and flip out: the gallery knows its own."
        )


def metadata_of(pairs: list[str] | None, option: str = "--set") -> dict[str, str] | None:
    """NAME=VALUE texts as a mapping; None without any.

    Raises SettingsError for another form, and for two values of one name. option: where they were
    given.
    """
    from facenet.errors import SettingsError

    told: dict[str, str] = {}
    for pair in pairs or []:
        name, sign, value = pair.partition("=")
        if not sign or not name.strip():
            raise SettingsError(f"Metadata should be given as NAME=VALUE; got {pair:.80}.")
        if told.setdefault(name, value) != value:
            raise SettingsError(
                f"{option} should give one value for {name:.80}; got {told[name]:.80} and "
                f"{value:.80}. Give it once."
            )
    return told or None


def note_unknown(gallery: Gallery, where: Mapping[str, Any] | None) -> None:
    """A sentence for each name of `where` that nobody's metadata has: a slip, as a rule."""
    from facenet.apps.jobs.galleryfacts import unknown_names

    for sentence in unknown_names(gallery, where):
        note(sentence)


def plain(value: Any) -> str:
    """A value for a person at a terminal: a mapping as JSON, nothing for None, yes or no."""
    if value is None or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return json.dumps(tidy(value), ensure_ascii=False)
    if isinstance(value, list | tuple):
        return " ".join(map(plain, value))
    return str(tidy(value))


def plain_rows(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Rows for a person at a terminal."""
    return [{name: plain(value) for name, value in row.items()} for row in rows]


def reasons(allow: str) -> list[str]:
    """The codes of a list with commas."""
    return [code.strip() for code in allow.split(",") if code.strip()]


@app.command()
@command
def create(
    place: Place,
    output: Output,
    embedding: Embedding,
    keep_crops: Annotated[
        bool, typer.Option("--keep-crops", help="Keep pictures of faces.")
    ] = False,
) -> int:
    """Make an empty gallery in a folder that is there.

    Its model is chosen here; `facenet gallery upgrade` changes it.
    """
    from facenet.galleries import Gallery

    _require_folder(place)
    with Gallery.create(place, keep_crops=keep_crops, **asdict(embedding)) as gallery:
        space = gallery.space
    made = {"gallery": place, "model": space.model, "contract": space.contract}
    print_json(made) if output.json else print(f"{place}: an empty gallery of {space.model}")
    return 0


def _require_folder(place: str) -> None:
    """Raise GalleryError when a gallery is to be made in a folder that is not there: a slip."""
    from facenet.errors import GalleryError
    from facenet.gallery.store import gallery_file

    folder = gallery_file(place).parent
    if not folder.is_dir():
        raise GalleryError(
            f"A gallery should be made in a folder that is there; {str(folder)[:200]} is none. "
            "Check the spelling, or make the folder first."
        )


@app.command()
@command
def add(
    place: Place,
    name: Annotated[str, typer.Argument(help="Name of the new person.")],
    output: Output,
    external_id: Annotated[str | None, typer.Option(help="Their id elsewhere, unique.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Metadata.", metavar="NAME=VALUE")
    ] = None,
) -> int:
    """Add a person without a photo. Two people may bear one name."""
    from facenet.galleries import Gallery

    with Gallery.open(place) as gallery:
        person = gallery.add(name, external_id=external_id, metadata=metadata_of(set_))
    print_json(asdict(person)) if output.json else print(f"{person.id} {person.name}")
    return 0


@app.command("import")
@command
def import_(
    place: Place,
    source: Annotated[
        Path, typer.Argument(help="Folder of people, list (person,photo) or export.")
    ],
    output: Output,
    detection: Detection,
    allow: Allow = "",
    report: Annotated[Path | None, typer.Option(help="CSV of what came of each photo.")] = None,
) -> int:
    """Enrol many people: a folder each, a CSV list, or an exported gallery.

    Run it again after an interruption: what is enrolled is passed over. Exit code 1 when photos
    were refused, or a folder holds no picture that can be read.
    """
    from facenet.apps.jobs.enrolling import import_any

    with opened(place, detection) as gallery, bar("photos") as done:
        made = import_any(
            gallery, source, allow=reasons(allow), report=report, done=done, stopped=note
        )
        facts = noticed(made.to_dict(), notice_of(gallery))
    print_json(facts) if output.json else print(made.text())
    for sentence in made.notes():
        note(sentence)
    return 1 if made.incomplete else 0


@app.command("list")
@command
def list_people(place: Place, output: Output, where: Where = None) -> int:
    """List the people of a gallery."""
    from facenet.apps.jobs.galleryfacts import person_rows
    from facenet.galleries import Gallery

    asked = metadata_of(where, "--where")
    with Gallery.open(place) as gallery:
        rows = person_rows(gallery, asked)
        note_unknown(gallery, None if rows else asked)
    print_json(rows) if output.json else print_rows(plain_rows(rows), PEOPLE)
    return 0


@app.command()
@command
def show(
    place: Place,
    output: Output,
    who: Annotated[
        str | None, typer.Argument(help="A person: name or id.", metavar="PERSON")
    ] = None,
) -> int:
    """Show a person and their faces, or what the gallery is."""
    from facenet.apps.jobs.galleryfacts import gallery_facts, person_facts
    from facenet.galleries import Gallery

    with Gallery.open(place) as gallery:
        facts = person_facts(gallery, who) if who else gallery_facts(gallery)
    if output.json:
        print_json(facts)
        return 0
    faces = facts.pop("faces_", None)
    print("\n".join(f"{name}: {plain(value)}".rstrip() for name, value in facts.items()))
    print_rows(plain_rows(faces or []), FACES) if who else None
    return 0


@app.command()
@command
def search(
    place: Place,
    photo: Annotated[Path, typer.Argument(help="A photo with one face.")],
    output: Output,
    detection: Detection,
    top: Annotated[int, typer.Option(help="People to show.", min=1)] = 5,
    *,
    searching: Searching,
) -> int:
    """Who looks most like the face of a photo, whatever the similarity? No decision is made."""
    asked = searching.asked()
    with opened(place, detection) as gallery:
        found = gallery.search(photo, top, **asked)
        note_unknown(gallery, None if found else asked["where"])
        rows = [noticed(candidate.to_dict(), notice_of(gallery)) for candidate in found]
    columns = ("person", "person_id", "similarity", "face")
    print_json(rows) if output.json else print_rows(rows, columns)
    return 0 if rows else 1


@app.command()
@command
def export(
    place: Place,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    output: Output,
) -> int:
    """Write a whole gallery as plain files: JSON Lines and safetensors. It is biometric data."""
    from facenet.galleries import Gallery
    from facenet.gallery.exchange import export_gallery

    with Gallery.open(place) as gallery, bar("faces") as done:
        made = export_gallery(gallery.store, folder, done)
    people, faces = made["people"], made["faces"]
    print_json(made) if output.json else print(f"{folder}: {people:,} people, {faces:,} faces")
    return 0
