"""`facenet evaluate`: pairs, folders and what is wrong with them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from facenet.apps.cli.evaluating import (
    Evaluating,
    Looking,
    Reported,
    Sampled,
    answer,
    forgotten,
    refuse_detection,
    run_pairs,
    save,
    show,
)
from facenet.apps.cli.flags import Deciding, Output, Recognition, command, flag
from facenet.apps.cli.outlet import bar
from facenet.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Filtering:
    """Which pictures are kept."""

    percentile: float = flag(95.0, "So many in a hundred stay, the nearest to their person's mean.")
    min_images: int = flag(1, "People with fewer pictures left are left out.")
    histogram: bool = flag(False, "Find the limit as facenet did, on a histogram of 100 bins.")


@dataclass(frozen=True, slots=True)
class Following:
    """The clips in which faces are followed."""

    clips: int = flag(12, "Clips to make: people walk, cross, meet, stop, return, come nearer.")
    people: int = flag(24, "People drawn from the folder, at the most.")
    min_images: int = flag(1, "People with fewer pictures are left out.")
    together: int = flag(5, "People in a clip, at the most.")
    seconds: float = flag(5.0, "Length of a clip, at 25 frames a second.")
    seed: int = flag(0, "Seed of all draws: the same clips again.")

    def require_place(self, place: Path, truth: Path | None) -> None:
        """Raises SettingsError for a video without its truth, and for a flag of clips with it."""
        from facenet.images import is_video_name

        if truth is None and is_video_name(place) and not place.is_dir():
            raise SettingsError(
                f"{str(place)[:300]} is a video, and who is where in it is not known. Say so with "
                "--truth GT.txt, or give a folder of people."
            )
        given, usual = asdict(self), asdict(Following())
        names = [name for name in given if given[name] != usual[name]]
        if truth is not None and names:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in names)
            raise SettingsError(
                f"{flags} would change nothing: no clips are made with --truth. Leave it out."
            )


app = typer.Typer(help="Accuracy and error rates on a data set.", no_args_is_help=True)


@app.command()
@command
def lfw(
    images: Annotated[Path, typer.Option(help="Folder of Name/Name_0001.jpg.")],
    pairs: Annotated[Path, typer.Option(help="The pairs file, pairs.txt.")],
    output: Output,
    recognition: Recognition,
    evaluating: Evaluating,
) -> int:
    """Accuracy on Labeled Faces in the Wild.

    A pair of which a picture is missing or has no face counts as "different". Several models,
    separated by commas, are compared on the same pairs.
    """
    from facenet.data.pairs import lfw_pairs

    listed = lfw_pairs(images, pairs)
    return run_pairs(listed, recognition, evaluating, output, figure="LFW accuracy")


@app.command()
@command
def pairs(
    file: Annotated[Path, typer.Argument(help="CSV: a, b, same[, fold, person_a, person_b].")],
    output: Output,
    recognition: Recognition,
    evaluating: Evaluating,
    root: Annotated[
        Path | None, typer.Option(help="Folder of the pictures.  [default: that of the CSV]")
    ] = None,
) -> int:
    """Accuracy on your own list of pairs."""
    from facenet.data.csvpairs import read_csv_pairs

    return run_pairs(read_csv_pairs(file, root), recognition, evaluating, output)


@app.command(name="bin")
@command
def bin_(
    file: Annotated[Path, typer.Argument(help="Verification set of InsightFace, NAME.bin.")],
    output: Output,
    recognition: Recognition,
    evaluating: Evaluating,
    detect: Annotated[
        bool, typer.Option("--detect", help="Find and align the face in each crop anew.")
    ] = False,
) -> int:
    """Accuracy on an InsightFace verification set.

    Its pictures are crops that others aligned to 112x112; they are used as they are, unless
    --detect is given. --select and the flags from --detector to --exactness are for --detect.
    """
    from facenet.data.bins import read_bin

    if not detect:
        why = "the pictures are crops, in which no face is looked for"
        refuse_detection(recognition, why, evaluating.select)
    pairs = replace(read_bin(file), aligned=not detect)
    return run_pairs(pairs, recognition, evaluating, output)


@app.command()
@command
def cfp(
    root: Annotated[Path, typer.Argument(help="Folder that holds Data and Protocol.")],
    output: Output,
    recognition: Recognition,
    evaluating: Evaluating,
    views: Annotated[str, typer.Option(help="FF: frontal-frontal, FP: frontal-profile.")] = "FP",
) -> int:
    """Accuracy on Celebrities in Frontal-Profile in the Wild."""
    from facenet.data.cfp import read_cfp

    return run_pairs(read_cfp(root, views), recognition, evaluating, output)


@app.command()
@command
def agedb(
    root: Annotated[Path, typer.Argument(help="Folder of ID_Name_age_gender.jpg.")],
    output: Output,
    recognition: Recognition,
    evaluating: Evaluating,
    pairs: Annotated[
        Path | None, typer.Option(help="List of pairs, text or CSV.  [default: drawn]")
    ] = None,
    gap: Annotated[int, typer.Option(help="Years between the pictures of drawn pairs.")] = 30,
) -> int:
    """Accuracy across ages on AgeDB.

    Without a list, pairs are drawn as its protocols draw them, reproducibly.
    """
    from facenet.data.agedb import draw_agedb, read_agedb

    listed = read_agedb(root, pairs) if pairs else draw_agedb(root, gap=gap, seed=evaluating.seed)
    return run_pairs(listed, recognition, evaluating, output)


@app.command()
@command
def folder(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    evaluating: Evaluating,
    pairs: Annotated[int, typer.Option(help="Pairs to draw, half of them of one person.")] = 6000,
    enrol: Annotated[int, typer.Option(help="Pictures per person in the gallery.", min=1)] = 1,
    attributes: Annotated[
        Path | None, typer.Option(help="CSV of groups: person or picture, then attributes.")
    ] = None,
) -> int:
    """A folder per person from all sides.

    Verification on drawn pairs, identification (CMC, FNIR at FPIR, sizes of the gallery), the
    worth of each measure of quality, and rates of groups with --attributes.
    """
    from facenet.apps.jobs.folderset import FolderSettings, evaluate_folder

    evaluating.ready()
    how, recognizers = evaluating.how(recognition.flip), evaluating.recognizers(recognition)
    settings = FolderSettings(pairs, enrol, attributes)
    with bar("pictures") as done:
        evaluated = evaluate_folder(images, recognizers, how, settings, done=done)
    show(images.resolve().name, evaluated, evaluating.report, output)
    return 0


@app.command(name="all-pairs")
@command
def all_pairs(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Sampled,
    dataset: Annotated[
        str | None, typer.Option(help="Its name in the table.  [default: the folder's]")
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Card (JSON) to write the table into.")] = None,
) -> int:
    """False-match rates over every pair of pictures.

    Every picture against every other; the table of a model's card comes from here.
    """
    from facenet.apps.jobs import allpairs as job

    looking.ready()
    recognizer, how = recognition.recognizer(), looking.gathering(recognition.flip)
    job.require_card(card, recognizer.embedder.contract)
    with bar("pictures") as done:
        seen = job.look_at_folder(images, recognizer, how, dataset=dataset, done=done)
    with bar("pairs") as done:
        found = job.compare_all(seen, replicates=looking.replicates, seed=looking.seed, done=done)
    if card:
        job.write_table(card, found["fmr_table"])
    save(looking.report, f"All pairs of {seen.dataset}", found, seen.pictures, seen.gathered)
    answer(found, job.all_pairs_text, output)
    return 0


@app.command()
@command
def audit(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Reported,
    duplicate_at: Annotated[
        float, typer.Option(help="Similarity from which two pictures are near-duplicates.")
    ] = 0.95,
) -> int:
    """Wrong labels and pictures that are there twice.

    Lists pictures that are closer to another person than to the rest of their own, and pairs that
    are nearly one picture. Nothing is changed.
    """
    from facenet.apps.jobs.auditing import audit_folder, audit_text

    looking.ready()
    recognizer, how = recognition.recognizer(), looking.gathering(recognition.flip)
    with bar("pictures") as done:
        found = audit_folder(images, recognizer, how, duplicate_at=duplicate_at, done=done)
    save(looking.report, f"Audit of {images.name}", found.values, found.pictures, found.gathered)
    answer(found.values, audit_text, output)
    return 0


@app.command("filter")
@command
def filter_pictures(
    images: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    filtering: Filtering,
    out: Annotated[Path, typer.Option(help="The list, a CSV file.")] = Path("kept.csv"),
) -> int:
    """Leave out pictures far from the mean of their person.

    Writes a list (picture, keep, reason) for `data.keep` of a recipe; no picture is changed.
    """
    from facenet.apps.jobs import filtering as job

    settings = job.Filtering(**asdict(filtering))
    recognizer, how = recognition.recognizer(), looking.gathering(recognition.flip)
    with bar("pictures") as done:
        values = job.filter_folder(images, out, recognizer, how, filtering=settings, done=done)
    answer(values, job.filter_text, output)
    return 0


@app.command()
@command
def overlap(
    first: Annotated[Path, typer.Argument(help="Data set: a folder per person.")],
    second: Annotated[Path, typer.Argument(help="Another one.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    deciding: Deciding,
) -> int:
    """People who are in two data sets.

    For training and evaluation sets this should be nobody. Compares every picture with every
    other; --fmr or --threshold say from which similarity on two people are reported.
    """
    from facenet.apps.jobs.auditing import find_overlap, overlap_text

    recognizer = recognition.recognizer(calibration=deciding.calibration)
    how, level = looking.gathering(recognition.flip), recognizer.threshold(**deciding.rates())
    with bar("pictures") as done:
        found = find_overlap((first, second), recognizer, how, threshold=level, done=done)
    answer(found, overlap_text, output)
    return 0


@app.command()
@command
def tracking(
    images: Annotated[
        Path,
        typer.Argument(
            metavar="DIR|VIDEO",
            help="Folder: a picture or a sub-folder per person. Or a video, with --truth.",
        ),
    ],
    output: Output,
    recognition: Recognition,
    following: Following,
    truth: Annotated[
        Path | None,
        typer.Option(help="Who is where in VIDEO: a gt.txt of MOTChallenge, ids from 1."),
    ] = None,
) -> int:
    """How well faces are followed.

    In clips that are made of the people in DIR, with the truth about every frame, or in VIDEO:
    followed in every frame and in every second, fourth and eighth, with and without embeddings.
    Then watched as `facenet video` does: is each visit reported once? In clips also: by the right
    name? Half of the people are known, by their third picture where there is one.
    """
    following.require_place(images, truth)
    if truth is not None:
        from facenet.apps.jobs.truthscoring import evaluate_video, video_text

        with bar("frames") as done:
            found = evaluate_video(images, truth, recognition.recognizer(), done=done)
        answer(found, video_text, output)
        return 0
    from facenet.apps.jobs.trackscoring import Scoring, evaluate_tracking, tracking_text

    how, recognizer = Scoring(**asdict(following)), recognition.recognizer()
    with bar("clips") as done:
        found = evaluate_tracking(images, recognizer, how, done=done)
    answer(found, tracking_text, output)
    return 0


@app.command()
@command
def forget(output: Output) -> int:
    """Remove the face vectors that evaluations remembered."""
    from facenet.apps.jobs.vectorcache import forget as remove

    files, size = remove()
    answer({"files": files, "bytes": size, "problems": []}, forgotten, output)
    return 0
