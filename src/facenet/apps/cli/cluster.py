"""`facenet cluster`, `facenet evaluate clusters`, `facenet bench cluster`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.evaluating import Looking, answer
from facenet.apps.cli.flags import Output, Recognition, command, flag
from facenet.apps.cli.outlet import bar, note, note_faceless, noticed, print_json, print_rows

if TYPE_CHECKING:
    from facenet.apps.jobs.clustering import ClusteredPhotos, Clustering
    from facenet.apps.jobs.photos import Photo
    from facenet.recognizer import Recognizer

COLUMNS = ("photo", "box", "detection_score", "cluster", "size")
NAMED = (*COLUMNS, "person", "person_id")


@dataclass(frozen=True, slots=True)
class Grouping:
    """When faces are one person."""

    method: str = flag(
        "template",
        "template, average, whispers, dbscan, hdbscan, facenet-dbscan or facenet-whispers.",
    )
    fmr: float | None = flag(None, "False-match rate of two faces to decide at.  [default: 3e-6]")
    threshold: float | None = flag(None, "Similarity to decide at, in place of a rate.")
    collages: bool = flag(False, "Faces of one photo may be one person: collages, mirrors.")
    samples: int = flag(1, "dbscan: faces that the core of a cluster needs.")
    seed: int = flag(0, "whispers: seed of the order in which faces are visited.")
    calibration: str = flag(
        "auto", "Whose rates: auto (your own where measured), card, or a file of calibrate."
    )
    no_cache: bool = flag(False, "Do not remember faces for the next run, nor use those kept.")

    def how(self) -> Clustering:
        """What these flags ask for. Raises SettingsError for a method that there is not."""
        from facenet.apps.jobs.clustering import Clustering

        values = asdict(self)
        del values["calibration"]
        return Clustering(remember=not values.pop("no_cache"), **values)


@dataclass(frozen=True, slots=True)
class Measured:
    """What clustering is measured with; see `ClusterBench`."""

    rows: int = flag(100_000, "Faces to generate.")
    dimension: int = flag(512, "Values of a vector.")
    method: str = flag("template", "template, average, whispers or dbscan.")
    threshold: float = flag(0.6, "Similarity to decide at.")
    seed: int = flag(0, "Of everything that is drawn.")


@command
def cluster(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.")],
    output: Output,
    grouping: Grouping,
    recognition: Recognition,
    out: Annotated[
        Path | None, typer.Argument(help="Folder of the album; run again, it keeps names.")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Of OUT: folders (a copy of each photo) or album (a page).")
    ] = "folders",
) -> int:
    """Put the faces of photos into clusters, one per person.

    Prints CSV, or JSON with --json: photo, box, detection_score, cluster (0 is the biggest) and
    its size. With OUT also an album is written, whose people can be named and corrected; OUT
    holds face vectors, which are biometric data. Exit code 2 when a photo could not be used.
    """
    from facenet.apps.jobs import clustering as job

    found, how = job.photos_in(photos), grouping.how()
    recognizer = recognition.recognizer(calibration=grouping.calibration)
    if out:
        return _album((photos, out, layout), found, how, recognizer, output)
    with bar("photos") as done:
        clustered = job.cluster_photos(found, recognizer, how, done=done)
    return _show(clustered, COLUMNS, output, recognizer)


@command
def clusters(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    methods: Annotated[
        str, typer.Option(help="Methods, with commas.")
    ] = "template,average,whispers,dbscan,hdbscan,facenet-dbscan,facenet-whispers",
    seed: Annotated[int, typer.Option(help="Of whispers and of the halves of the people.")] = 0,
) -> int:
    """How well faces cluster, where people are known.

    Pairwise and B-cubed precision, recall and F of each method at several false-match rates,
    beside the settings of facenet's two scripts.
    """
    from facenet.apps.jobs.clusterscores import score_folder, scores_text

    recognizer, how = recognition.recognizer(), looking.gathering(recognition.flip)
    names = [name.strip() for name in methods.split(",") if name.strip()]
    with bar("pictures") as done:
        found = score_folder(images, recognizer, how, methods=names, seed=seed, done=done)
    answer(noticed(found, recognition.licence_notice()), scores_text, output)
    return 0


@command
def bench_cluster(output: Output, measured: Measured) -> int:
    """Seconds and memory of clustering generated faces."""
    from facenet.apps.jobs.clusterbench import ClusterBench, bench_text, measure_clustering

    found = measure_clustering(ClusterBench(**asdict(measured)))
    print_json(found) if output.json else print(bench_text(found))
    return 0


def _show(
    clustered: ClusteredPhotos, columns: tuple[str, ...], output: Output, recognizer: Recognizer
) -> int:
    from facenet.models.card import licence_notice

    notice = licence_notice(recognizer.cards)
    rows = [noticed(row, notice) for row in clustered.rows]
    print_json(rows) if output.json else print_rows(rows, columns)
    note_faceless(clustered.faceless)
    for text in (*clustered.notes, *clustered.problems):
        note(text)
    return 2 if clustered.problems else 0


def _album(
    place: tuple[Path, Path, str],
    found: Sequence[Photo],
    how: Clustering,
    recognizer: Recognizer,
    output: Output,
) -> int:
    from facenet.apps.jobs.album import Place, make_album

    where = Place(*place)
    with bar("photos") as done:
        made = make_album(where, found, recognizer, how, done=done)
    return _show(made, NAMED, output, recognizer)
