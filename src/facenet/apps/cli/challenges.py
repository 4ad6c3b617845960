"""`facenet evaluate ijb | megaface`: templates, and strangers by the million."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.evaluating import answer, require_report, save
from facenet.apps.cli.flags import Output, Recognition, command, flag
from facenet.apps.cli.outlet import bar

if TYPE_CHECKING:
    from facenet.apps.jobs.megaface import MegafaceRun
    from facenet.apps.jobs.templates import TemplateSettings


@dataclass(frozen=True, slots=True)
class Templates:
    """How faces become a template."""

    aggregation: str = flag(
        "media", "media, mean, norm_weighted, quality (detector's score), medoid or trimmed_mean."
    )
    unit_norm: bool = flag(False, "Scale each feature to length one first (N0).")
    equal_weight: bool = flag(False, "Do not weigh faces by the detector's score (D0).")
    no_cache: bool = flag(False, "Do not remember vectors for the next run, nor use those kept.")
    replicates: int = flag(1000, "Draws of the bootstrap behind the intervals.")
    seed: int = flag(0, "Seed of the draws.")
    report: Path | None = flag(None, "Folder for report.html, report.json and report.csv.")

    def how(self, flip: bool) -> TemplateSettings:
        """What these flags ask for. Raises SettingsError."""
        from facenet.apps.jobs.templates import TemplateSettings
        from facenet.evaluate.templates import Pooling

        pooling = Pooling(self.aggregation, not self.unit_norm, not self.equal_weight, flip)
        return TemplateSettings(pooling, not self.no_cache, self.replicates, self.seed)


@dataclass(frozen=True, slots=True)
class Megaface:
    """The two sides of MegaFace."""

    probe_list: Path = flag(Path("facescrub_lst"), "List of the probes.")
    probes: Path = flag(Path("facescrub_images"), "Folder of the probes.")
    probe_noises: Path | None = flag(None, "List of noisy probes.")
    distractor_list: Path = flag(Path("megaface_lst"), "List of the distractors.")
    distractors: Path = flag(Path("megaface_images"), "Folder of the distractors.")
    distractor_noises: Path | None = flag(None, "List of noisy distractors.")
    detect: bool = flag(False, "Find and align the face in each picture; else they are crops.")
    as_insightface: bool = flag(False, "Replace noisy pictures as insightface does.")
    replicates: int = flag(1000, "Draws of the bootstrap behind the intervals.")
    seed: int = flag(0, "Seed of the subsets and of the draws.")
    report: Path | None = flag(None, "Folder for report.html, report.json and report.csv.")

    def how(self, features: Path) -> MegafaceRun:
        """What these flags ask for."""
        from facenet.apps.jobs.megaface import Listed, MegafaceRun

        probes = Listed("facescrub", self.probe_list, self.probes, self.probe_noises)
        others = Listed("megaface", self.distractor_list, self.distractors, self.distractor_noises)
        return MegafaceRun(
            (probes, others),
            features,
            detect=self.detect,
            as_insightface=self.as_insightface,
            replicates=self.replicates,
            seed=self.seed,
        )


@command
def ijb(
    folder: Annotated[Path, typer.Argument(help="Folder that holds loose_crop and meta.")],
    output: Output,
    recognition: Recognition,
    templates: Templates,
    dataset: Annotated[str, typer.Option("--set", help="ijbb or ijbc.")] = "ijbc",
) -> int:
    """Templates of IJB-B and IJB-C, 1:1 and 1:N.

    Reads the lists that insightface distributes. --flip adds the mirrored face (F1).
    """
    from facenet.apps.jobs.templates import evaluate_ijb, ijb_text

    require_report(templates.report)
    how, recognizer = templates.how(recognition.flip), recognition.recognizer()
    with bar("faces") as done:
        found = evaluate_ijb(folder, dataset, recognizer, how, done=done)
    save(templates.report, f"Templates of {dataset}", *found)
    answer(found[0], ijb_text, output)
    return 0


@command
def megaface(
    features: Annotated[Path, typer.Argument(help="Folder for the feature files.")],
    output: Output,
    recognition: Recognition,
    megaface: Megaface,
) -> int:
    """Rank 1 among up to a million strangers.

    Writes a feature file per picture (with the mirrored face summed in) as MegaFace's devkit reads
    them; those that are there are not made again. Noisy pictures are left out.
    """
    from facenet.apps.jobs.megaface import megaface_text, run_megaface

    require_report(megaface.report)
    recognizer = recognition.recognizer()
    with bar("pictures") as done:
        found = run_megaface(megaface.how(features), recognizer, done)
    save(megaface.report, "MegaFace", found)
    answer(found, megaface_text, output)
    return 0
