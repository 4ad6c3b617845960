"""`facenet evaluate ijb | megaface`: templates, and strangers by the million."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from facenet.apps.cli.evaluating import (
    answer,
    refuse_detection,
    replicates_flag,
    require_draws,
    require_report,
    save,
)
from facenet.apps.cli.flags import ARITHMETIC, Detection, Output, command, flag
from facenet.apps.cli.outlet import bar
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.apps.jobs.megaface import MegafaceRun
    from facenet.apps.jobs.templates import TemplateSettings
    from facenet.recognizer import Recognizer

WITH_LENGTHS = ("media", "norm_weighted")
"""Aggregations in which the lengths of features matter."""


@dataclass(frozen=True, slots=True)
class Templates:
    """How faces become vectors and those a template; no face is looked for."""

    model: str = flag("mobilefacenet", "Embedder with the crop `similarity`.")
    precision: str = flag("fp32", ARITHMETIC)
    engine: str = flag("auto", "Runtime: auto, onnxruntime or openvino.")
    device: str | None = flag(
        None, "Device: cpu, cuda, coreml, gpu or npu.  [default: FACENET_DEVICE, else cpu]"
    )
    flip: bool = flag(False, "Add the output for the mirrored face (F1).")
    aggregation: str = flag(
        "media", "media, mean, norm_weighted, quality (detector's score), medoid or trimmed_mean."
    )
    unit_norm: bool = flag(
        False, "Scale each feature to length one first (N0), for media and norm_weighted."
    )
    equal_weight: bool = flag(False, "Do not weigh faces by the detector's score (D0).")
    no_cache: bool = flag(False, "Do not remember vectors for the next run, nor use those kept.")
    replicates: int = replicates_flag()
    seed: int = flag(0, "Seed of the draws.")
    report: Path | None = flag(None, "Folder for report.html, report.json and report.csv.")

    def how(self) -> TemplateSettings:
        """What these flags ask for. Raises SettingsError."""
        from facenet.apps.jobs.templates import TemplateSettings
        from facenet.evaluate.templates import Pooling

        require_draws(self.replicates, self.seed)
        pooling = Pooling(self.aggregation, not self.unit_norm, not self.equal_weight, self.flip)
        if self.unit_norm and self.aggregation not in WITH_LENGTHS:
            raise SettingsError(
                f"--unit-norm would change nothing: {self.aggregation} looks at no lengths. Leave "
                "it out, or choose media or norm_weighted."
            )
        return TemplateSettings(pooling, not self.no_cache, self.replicates, self.seed)

    def recognizer(self) -> Recognizer:
        """The embedder; its outputs are taken one by one, so that no flip is mixed in."""
        from facenet.recognizer import Recognizer

        return Recognizer(
            model=self.model, precision=self.precision, engine=self.engine, device=self.device
        )


@dataclass(frozen=True, slots=True)
class Megaface(Detection):
    """The two sides of MegaFace, and what looks at them."""

    model: str = flag("mobilefacenet", "Embedder, see `facenet models list`.")
    precision: str = flag("fp32", ARITHMETIC)
    probe_list: Path = flag(Path("facescrub_lst"), "List of the probes.")
    probes: Path = flag(Path("facescrub_images"), "Folder of the probes.")
    probe_noises: Path | None = flag(None, "List of noisy probes.")
    distractor_list: Path = flag(Path("megaface_lst"), "List of the distractors.")
    distractors: Path = flag(Path("megaface_images"), "Folder of the distractors.")
    distractor_noises: Path | None = flag(None, "List of noisy distractors.")
    detect: bool = flag(
        False,
        "Find and align the face in each picture, as the flags from --detector to --exactness "
        "say; else the pictures are crops, and those flags are refused.",
    )
    as_insightface: bool = flag(False, "Replace noisy pictures as insightface does.")
    replicates: int = replicates_flag()
    seed: int = flag(0, "Seed of the subsets and of the draws.")
    report: Path | None = flag(None, "Folder for report.html, report.json and report.csv.")

    def how(self, features: Path) -> MegafaceRun:
        """What these flags ask for. Raises SettingsError."""
        from facenet.apps.jobs.megaface import Listed, MegafaceRun

        require_draws(self.replicates, self.seed)
        if self.as_insightface and not (self.probe_noises or self.distractor_noises):
            raise SettingsError(
                "--as-insightface would change nothing: it replaces noisy pictures, and no list "
                "names any. Give --probe-noises and --distractor-noises, or leave it out."
            )
        if not self.detect:
            refuse_detection(self, "the pictures are crops, in which no face is looked for")
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
    templates: Templates,
    dataset: Annotated[str, typer.Option("--set", help="ijbb or ijbc.")] = "ijbc",
) -> int:
    """Templates of IJB-B and IJB-C, 1:1 and 1:N.

    Reads the lists that insightface distributes; they give the points of each face.
    """
    from facenet.apps.jobs.templates import evaluate_ijb, ijb_text

    require_report(templates.report)
    how, recognizer = templates.how(), templates.recognizer()
    with bar("faces") as done:
        found = evaluate_ijb(folder, dataset, recognizer, how, done=done)
    save(templates.report, f"Templates of {dataset}", *found)
    answer(found[0], ijb_text, output)
    return 0


@command
def megaface(
    features: Annotated[Path, typer.Argument(help="Folder for the feature files.")],
    output: Output,
    megaface: Megaface,
) -> int:
    """Rank 1 among up to a million strangers.

    Writes a feature file per picture (with the mirrored face summed in) as MegaFace's devkit reads
    them; those that are there are not made again. Noisy pictures are left out.
    """
    from facenet.apps.jobs.megaface import megaface_text, run_megaface

    require_report(megaface.report)
    how = megaface.how(features)
    recognizer = megaface.recognizer(model=megaface.model, precision=megaface.precision)
    with bar("pictures") as done:
        found = run_megaface(how, recognizer, done)
    save(megaface.report, "MegaFace", found)
    answer(found, megaface_text, output)
    return 0
