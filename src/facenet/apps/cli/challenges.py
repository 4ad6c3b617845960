"""`facenet evaluate ijb | megaface`: templates, and strangers by the million."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.evaluating import Looking, answer, save
from facenet.apps.cli.flags import Output, Recognition, command, flag
from facenet.apps.cli.outlet import bar

if TYPE_CHECKING:
    from facenet.apps.jobs.megaface import Listed
    from facenet.evaluate.templates import Pooling


@dataclass(frozen=True, slots=True)
class Templates:
    """How faces become a template."""

    aggregation: str = flag(
        "media", "media, mean, norm_weighted, quality (detector's score), medoid or trimmed_mean."
    )
    unit_norm: bool = flag(False, "Scale each feature to length one first (N0).")
    equal_weight: bool = flag(False, "Do not weigh faces by the detector's score (D0).")

    def pooling(self, flip: bool) -> Pooling:
        """The pooling that these flags ask for. Raises SettingsError."""
        from facenet.evaluate.templates import Pooling

        return Pooling(self.aggregation, not self.unit_norm, not self.equal_weight, flip)


@dataclass(frozen=True, slots=True)
class Megaface:
    """The two sides of MegaFace."""

    probe_list: Path = flag(Path("facescrub_lst"), "List of the probes.")
    probes: Path = flag(Path("facescrub_images"), "Folder of the probes.")
    probe_noises: Path | None = flag(None, "List of noisy probes.")
    distractor_list: Path = flag(Path("megaface_lst"), "List of the distractors.")
    distractors: Path = flag(Path("megaface_images"), "Folder of the distractors.")
    distractor_noises: Path | None = flag(None, "List of noisy distractors.")

    def sides(self) -> tuple[Listed, Listed]:
        """Probes and distractors."""
        from facenet.apps.jobs.megaface import Listed

        return (
            Listed("facescrub", self.probe_list, self.probes, self.probe_noises),
            Listed("megaface", self.distractor_list, self.distractors, self.distractor_noises),
        )


@command
def ijb(
    folder: Annotated[Path, typer.Argument(help="Folder that holds loose_crop and meta.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    templates: Templates,
    dataset: Annotated[str, typer.Option("--set", help="ijbb or ijbc.")] = "ijbc",
) -> int:
    """Templates of IJB-B and IJB-C, 1:1 and 1:N.

    Reads the lists that insightface distributes. --flip adds the mirrored face (F1).
    """
    from facenet.apps.jobs.templates import evaluate_ijb, ijb_text

    looking.ready()
    recognizer, how = recognition.recognizers()[0], looking.gathering(recognition.flip)
    pooling = templates.pooling(recognition.flip)
    with bar("faces") as done:
        found = evaluate_ijb(folder, dataset, recognizer, how, pooling=pooling, done=done)
    save(looking.report, f"Templates of {dataset}", *found)
    answer(found[0], ijb_text, output)
    return 0


@command
def megaface(
    features: Annotated[Path, typer.Argument(help="Folder for the feature files.")],
    output: Output,
    recognition: Recognition,
    looking: Looking,
    megaface: Megaface,
    detect: Annotated[
        bool, typer.Option("--detect", help="Find and align faces; else pictures are crops.")
    ] = False,
    as_insightface: Annotated[
        bool, typer.Option("--as-insightface", help="Replace noisy pictures as insightface does.")
    ] = False,
) -> int:
    """Rank 1 among up to a million strangers.

    Writes a feature file per picture as MegaFace's devkit reads them; those that are there are not
    made again. Noisy pictures are left out.
    """
    from facenet.apps.jobs import megaface as job

    recognizer = recognition.recognizers()[0]
    with bar("pictures") as done:
        found = job.run_megaface(
            megaface.sides(),
            recognizer,
            job.looking_at(looking.select, aligned=not detect),
            features=features,
            settings=job.rates(looking.replicates, looking.seed),
            as_insightface=as_insightface,
            done=done,
        )
    answer(found, job.megaface_text, output)
    return 0
