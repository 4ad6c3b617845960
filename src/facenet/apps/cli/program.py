"""The program: which verbs there are. The verbs themselves are beside this file."""

from __future__ import annotations

from typing import Annotated

import typer

from facenet import __version__
from facenet.apps.cli import (
    auditscore,
    bench,
    calibrate,
    challenges,
    classifier,
    cluster,
    corrections,
    doctor,
    enroll,
    evaluate,
    export,
    faces,
    finetune,
    gallery,
    models,
    people,
    train,
    upkeep,
    video,
)

app = typer.Typer(
    name="facenet",
    help="Face recognition from a photograph to a decision with a known error rate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    people.identify,
    people.verify,
    people.compare,
    faces.detect,
    faces.align,
    faces.embed,
):
    app.command()(verb)
app.command()(enroll.enroll)
app.command()(cluster.cluster)
app.add_typer(video.app, name="video")
app.command()(video.camera)
app.command()(calibrate.calibrate)
app.command()(train.train)
app.command()(finetune.finetune)
app.command()(export.export)
for verb in corrections.VERBS + upkeep.VERBS:
    gallery.app.command()(verb)
app.add_typer(gallery.app, name="gallery")
app.command()(doctor.doctor)
app.add_typer(models.app, name="models")
for verb in (
    challenges.ijb,
    challenges.megaface,
    auditscore.gallery_audit,
    auditscore.gallery_rules,
):
    evaluate.app.command()(verb)
evaluate.app.command()(cluster.clusters)
app.add_typer(evaluate.app, name="evaluate")
bench.app.command("cluster")(cluster.bench_cluster)
app.add_typer(bench.app, name="bench")
app.add_typer(classifier.app, name="classifier")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def version(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Face recognition from a photograph to a decision with a known error rate."""
