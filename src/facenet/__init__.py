"""facenet: from a photograph to a decision with a known error rate.

    >>> import facenet
    >>> facenet.verify("a.jpg", "b.jpg").match  # doctest: +SKIP
    True

Every public name is here, and is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_NAMES = {
    "Candidate": "gallery.answers",
    "Change": "gallery.corrections",
    "ContractError": "errors",
    "DamagedGalleryError": "errors",
    "DataError": "errors",
    "DigestError": "errors",
    "DownloadError": "errors",
    "EngineError": "errors",
    "EngineSettings": "models.engine",
    "Enrolled": "gallery.enrolment",
    "EnrolledFace": "gallery.records",
    "Enrolment": "recognizer",
    "EnrolmentRules": "gallery.judgement",
    "Face": "types",
    "FacenetError": "errors",
    "Faces": "types",
    "Frame": "images",
    "Gallery": "galleries",
    "GalleryError": "errors",
    "GalleryIdentification": "gallery.answers",
    "Identification": "gallery.compare",
    "ImageError": "errors",
    "ImageLimits": "images",
    "InputError": "errors",
    "MissingExtraError": "errors",
    "ModelCard": "models.card",
    "ModelError": "errors",
    "ModelFileError": "errors",
    "ModelStore": "models.store",
    "Moment": "video.events",
    "MtcnnSettings": "faces.mtcnn",
    "NoFaceError": "errors",
    "People": "gallery.compare",
    "Person": "gallery.records",
    "PersonVerification": "gallery.answers",
    "Preprocess": "models.card",
    "Recognizer": "recognizer",
    "ScrfdSettings": "faces.scrfd",
    "Seen": "faces.pipeline",
    "SettingsError": "errors",
    "SeveralFacesError": "errors",
    "SourceSettings": "images",
    "StorageError": "errors",
    "Strided": "faces.strided",
    "Track": "video.events",
    "TrackSettings": "faces.track",
    "TrainingError": "errors",
    "UnknownModelError": "errors",
    "UnknownPersonError": "errors",
    "Verification": "gallery.compare",
    "VideoEvent": "video.events",
    "WatchSettings": "video.settings",
    "Watching": "video.watch",
    "YunetSettings": "faces.yunet",
    "compare": "shortcuts",
    "crop_faces": "faces.align",
    "detect": "shortcuts",
    "detect_video": "faces.video",
    "draw_faces": "faces.draw",
    "embed": "shortcuts",
    "enroll_track": "video.enrolling",
    "find_card": "models.catalog",
    "identify": "shortcuts",
    "load_image": "images",
    "open_source": "images",
    "read_video": "images",
    "resume_training": "train.runs",
    "select_faces": "faces.detect",
    "train_embedder": "train.runs",
    "verify": "shortcuts",
    "watch": "video.watch",
}

__all__ = sorted([*_NAMES, "__version__"])

if TYPE_CHECKING:
    from facenet.errors import (  # noqa: I001 - one import per module
        ContractError as ContractError,
        DamagedGalleryError as DamagedGalleryError,
        DataError as DataError,
        DigestError as DigestError,
        DownloadError as DownloadError,
        EngineError as EngineError,
        FacenetError as FacenetError,
        GalleryError as GalleryError,
        ImageError as ImageError,
        InputError as InputError,
        MissingExtraError as MissingExtraError,
        ModelError as ModelError,
        ModelFileError as ModelFileError,
        NoFaceError as NoFaceError,
        SettingsError as SettingsError,
        SeveralFacesError as SeveralFacesError,
        StorageError as StorageError,
        TrainingError as TrainingError,
        UnknownModelError as UnknownModelError,
        UnknownPersonError as UnknownPersonError,
    )
    from facenet.faces.align import crop_faces as crop_faces
    from facenet.faces.detect import select_faces as select_faces
    from facenet.faces.draw import draw_faces as draw_faces
    from facenet.faces.mtcnn import MtcnnSettings as MtcnnSettings
    from facenet.faces.pipeline import Seen as Seen
    from facenet.faces.scrfd import ScrfdSettings as ScrfdSettings
    from facenet.faces.strided import Strided as Strided
    from facenet.faces.track import TrackSettings as TrackSettings
    from facenet.faces.video import detect_video as detect_video
    from facenet.faces.yunet import YunetSettings as YunetSettings
    from facenet.galleries import Gallery as Gallery
    from facenet.gallery.answers import (
        Candidate as Candidate,
        GalleryIdentification as GalleryIdentification,
        PersonVerification as PersonVerification,
    )
    from facenet.gallery.compare import (
        Identification as Identification,
        People as People,
        Verification as Verification,
    )
    from facenet.gallery.corrections import Change as Change
    from facenet.gallery.enrolment import Enrolled as Enrolled
    from facenet.gallery.judgement import EnrolmentRules as EnrolmentRules
    from facenet.gallery.records import EnrolledFace as EnrolledFace, Person as Person
    from facenet.images import (
        Frame as Frame,
        ImageLimits as ImageLimits,
        SourceSettings as SourceSettings,
        load_image as load_image,
        open_source as open_source,
        read_video as read_video,
    )
    from facenet.models.card import ModelCard as ModelCard, Preprocess as Preprocess
    from facenet.models.catalog import find_card as find_card
    from facenet.models.engine import EngineSettings as EngineSettings
    from facenet.models.store import ModelStore as ModelStore
    from facenet.recognizer import (
        Enrolment as Enrolment,
        Recognizer as Recognizer,
    )
    from facenet.shortcuts import (
        compare as compare,
        detect as detect,
        embed as embed,
        identify as identify,
        verify as verify,
    )
    from facenet.train.runs import (
        resume_training as resume_training,
        train_embedder as train_embedder,
    )
    from facenet.types import Face as Face, Faces as Faces
    from facenet.video.events import Moment as Moment, Track as Track, VideoEvent as VideoEvent
    from facenet.video.settings import WatchSettings as WatchSettings
    from facenet.video.enrolling import enroll_track as enroll_track
    from facenet.video.watch import Watching as Watching, watch as watch


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"facenet has no {name!r}; its names are in facenet.__all__.")
    return getattr(import_module(f"facenet.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
