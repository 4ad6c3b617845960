"""Which losses there are, by name; each is a file of its own."""

from __future__ import annotations

from typing import Any

from facenet.errors import SettingsError
from facenet.train.choosing import chosen
from facenet.train.losses.adaface import AdaFace, AdaFaceSettings
from facenet.train.losses.arcface import ArcFace, ArcFaceSettings
from facenet.train.losses.combined import Combined, CombinedSettings
from facenet.train.losses.cosface import CosFace, CosFaceSettings
from facenet.train.losses.curricularface import CurricularFace, CurricularFaceSettings
from facenet.train.losses.loss import Loss, LossKind
from facenet.train.losses.magface import MagFace, MagFaceSettings
from facenet.train.losses.normface import NormFace, NormFaceSettings
from facenet.train.losses.softmax import Softmax, SoftmaxSettings
from facenet.train.losses.sphereface import SphereFace, SphereFaceSettings
from facenet.train.losses.sphereface_r import SphereFaceR, SphereFaceRSettings
from facenet.train.losses.subcenter_arcface import SubcenterArcFace, SubcenterArcFaceSettings
from facenet.train.losses.triplet import (
    AngularTriplet,
    AngularTripletSettings,
    EuclideanTriplet,
    TripletSettings,
)

LOSSES: dict[str, LossKind] = {
    "softmax": LossKind(Softmax, SoftmaxSettings, True, "facenet, train_softmax.py"),
    "normface": LossKind(NormFace, NormFaceSettings, True, "Wang et al., 2017, arXiv:1704.06369"),
    "sphereface": LossKind(
        SphereFace, SphereFaceSettings, True, "Liu et al., 2017, arXiv:1704.08063"
    ),
    "sphereface_r": LossKind(
        SphereFaceR, SphereFaceRSettings, True, "Liu et al., 2021, arXiv:2109.05565"
    ),
    "cosface": LossKind(CosFace, CosFaceSettings, True, "Wang et al., 2018, arXiv:1801.09414"),
    "arcface": LossKind(ArcFace, ArcFaceSettings, True, "Deng et al., 2019, arXiv:1801.07698"),
    "combined": LossKind(
        Combined, CombinedSettings, True, "Deng et al., 2019, arXiv:1801.07698, 2.4"
    ),
    "adaface": LossKind(AdaFace, AdaFaceSettings, True, "Kim et al., 2022, arXiv:2204.00964"),
    "magface": LossKind(MagFace, MagFaceSettings, True, "Meng et al., 2021, arXiv:2103.06627"),
    "curricularface": LossKind(
        CurricularFace, CurricularFaceSettings, True, "Huang et al., 2020, arXiv:2004.00288"
    ),
    "subcenter_arcface": LossKind(
        SubcenterArcFace, SubcenterArcFaceSettings, True, "Deng et al., 2020, ECCV"
    ),
    "triplet": LossKind(
        EuclideanTriplet, TripletSettings, False, "Schroff et al., 2015, arXiv:1503.03832"
    ),
    "angular_triplet": LossKind(
        AngularTriplet, AngularTripletSettings, False, "InsightFace 2018, loss type 13"
    ),
}


def build_loss(name: str, settings: Any, classes: int, embedding_size: int) -> Loss:
    """The loss of that name; settings None: its defaults.

    Class centres are drawn from torch's random numbers. Raises SettingsError for an unknown name,
    settings of another loss, and sizes below 1 class or 2 dimensions.
    """
    kind = chosen("loss.name", name, LOSSES)
    settings = kind.settings() if settings is None else settings
    if not isinstance(settings, kind.settings):
        raise SettingsError(
            f"The loss {name} should have settings of the type {kind.settings.__name__}; got "
            f"{type(settings).__name__}. Give it its own."
        )
    if classes < 1 or embedding_size < 2:
        raise SettingsError(
            f"A loss should have 1 class or more and embeddings of 2 dimensions or more; got "
            f"{classes} and {embedding_size}. Check the data set and the backbone."
        )
    return kind.build(settings, classes, embedding_size)
