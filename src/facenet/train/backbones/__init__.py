"""Which backbones there are; each family is a file of its own with its own table."""

from __future__ import annotations

from typing import Any

from facenet.train.backbones import (
    densenet,
    dpn,
    inception_resnet_v1,
    inception_resnet_v2,
    iresnet,
    mobilefacenet,
    mobilefacenet_tf,
    mobilenet,
    smallnet,
    squeezenet,
    vit,
)
from facenet.train.backbones.backbone import Backbone, BackboneKind
from facenet.train.choosing import chosen

BACKBONES: dict[str, BackboneKind] = {
    **inception_resnet_v1.KINDS,
    **inception_resnet_v2.KINDS,
    **squeezenet.KINDS,
    **iresnet.KINDS,
    **mobilefacenet.KINDS,
    **mobilefacenet_tf.KINDS,
    **mobilenet.KINDS,
    **densenet.KINDS,
    **dpn.KINDS,
    **vit.KINDS,
    **smallnet.KINDS,
}


def build_backbone(name: str, settings: Any = None) -> Backbone:
    """The backbone of that name; None: with the settings it was published with.

    Its weights are drawn from torch's random numbers. Raises SettingsError for an unknown name.
    """
    kind = chosen("backbone.name", name, BACKBONES)
    return kind.build(kind.settings() if settings is None else settings)
