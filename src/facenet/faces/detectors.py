"""Which detectors there are: the name of a card to the class that runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from facenet.errors import ModelFileError
from facenet.faces.detect import Detector
from facenet.faces.mtcnn import Mtcnn, MtcnnSettings
from facenet.models.engine import EngineSettings
from facenet.models.loader import Model, load_model

DetectorSettings: TypeAlias = MtcnnSettings
"""Options of a detector."""

DETECTORS: dict[str, Callable[[Model, DetectorSettings | None], Detector]] = {
    "mtcnn": lambda model, options: Mtcnn(model.engines, options),
}
"""Card name -> a detector of its running engines and its options."""


def open_detector(
    name: str, running: EngineSettings, *, options: DetectorSettings | None = None
) -> Detector:
    """Load a detector by name or alias.

    Raises UnknownModelError, EngineError, and ModelFileError for a card nothing here can run.
    """
    model = load_model(name, kind="detector", settings=running)
    if model.card.name not in DETECTORS:
        raise ModelFileError(
            f"The detector {model.card.name} is not one that facenet can run: "
            f"{', '.join(DETECTORS)}. Choose one of these."
        )
    return DETECTORS[model.card.name](model, options)
