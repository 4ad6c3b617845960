"""From the run of a training to a model by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from facenet.apps.jobs.training import training_room
from facenet.models.card import ModelCard, card_from_dict
from facenet.models.store import ModelStore

BEST = "best"


def export_run(
    run: Path,
    name: str,
    *,
    which: str | None = None,
    store: ModelStore | None = None,
    overwrite: bool = False,
    anyway: bool = False,
) -> ModelCard:
    """Put the weights of a run of `facenet train` into the model store under a name.

    which: "best" or "last"; None: best where there is one. anyway: also a model that failed the
    gate of `facenet finetune`. The card of the best weights has the figures and false-match rates
    of the run's validation, which are theirs alone. Raises DataError for a folder that is no run,
    TrainingError for a model that failed its gate, MissingExtraError without torch, ModelFileError
    for weights of another network and for a graph that does not answer as they do, SettingsError
    for a name that is taken, StorageError.
    """
    if not anyway:
        training_room("gaterecord").check_gate(run)
    export, files = training_room("export"), training_room("weightfiles")
    found = files.read_run(run, which)
    told = _judged(run, found.card) if found.which == BEST else found.card
    origin = f"{run.resolve().name[:100]}/{found.which}"
    publication = export.Publication(
        name,
        told.preprocess,
        told.licence,
        told.training_data,
        told.figures,
        told.fmr,
        origin,
        found.network,
    )
    loaded = training_room("weights").make_network(found, origin)
    card: ModelCard = export.export_model(
        loaded.backbone, publication, store=store, overwrite=overwrite
    )
    return card


def _judged(run: Path, card: ModelCard) -> ModelCard:
    """The card with what the run's validation measured, where there was one."""
    folder = training_room("runfolder")
    path = run / folder.VALIDATION
    if not path.exists():
        return card
    measured: dict[str, Any] = folder.read_record(path)
    told = {key: measured.get(key) for key in ("figures", "fmr")}
    told["figures"] = told["figures"] or []
    return card_from_dict({**card.to_dict(), **told}, origin=path.name)
