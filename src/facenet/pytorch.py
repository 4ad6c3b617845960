"""facenet-pytorch's classes and functions, on facenet's detector, networks and model store.

The arguments, attributes, types and shapes are those of timesler/facenet-pytorch 2.6; docs/
facenet-pytorch.md lists what differs on purpose. Needs the extra `train` (torch).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from facenet.errors import MissingExtraError, ModelError, SettingsError
from facenet.faces.detect import CENTER_WEIGHT, SURE, Detector
from facenet.faces.detectors import open_detector
from facenet.faces.mtcnn import MtcnnSettings
from facenet.models.engine import EngineSettings
from facenet.types import Faces

try:
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import normalize
except ImportError as error:
    raise MissingExtraError(
        "facenet.pytorch needs the extra train: pip install 'facenet[train]'."
    ) from error

from facenet.train.backbones import inception_resnet_v1
from facenet.train.backbones.inception_resnet_v1 import FacenetSettings
from facenet.train.peercrops import (
    Picture,
    Pictures,
    Places,
    check_crop,
    check_rule,
    extract_face,
    fixed_image_standardization,
    listed,
    paths_for,
    pixels_of,
    prewhiten,
    selected,
    size_of,
    together,
)
from facenet.train.weights import load_into

__all__ = [
    "MTCNN",
    "InceptionResnetV1",
    "extract_face",
    "fixed_image_standardization",
    "prewhiten",
]

PRETRAINED = {
    "vggface2": ("facenet-vggface2", 8631),
    "casia-webface": ("facenet-casia-webface", 10575),
}
"""facenet-pytorch's name of weights -> the model of the store, and people of its class layer."""
MOMENTUM = 0.1
"""Share of a batch in the running statistics; facenet itself has 0.005."""


class InceptionResnetV1(inception_resnet_v1.InceptionResnetV1):
    """facenet-pytorch's InceptionResnetV1: crops -> unit vectors, or what a class layer says.

    pretrained: "vggface2" or "casia-webface", from the model store (`facenet models pull`); None:
    random weights. classify: give the class layer's values (n, num_classes), not embeddings; the
    attribute may be changed afterwards. num_classes: people of a fresh class layer. dropout_prob:
    share of values dropped before the last layer while training. device: where to put it.
    The names of its weights are facenet-pytorch's. Raises SettingsError for arguments that do
    nothing or do not exist, ModelError for weights that are not on this machine and for the
    published class layers, which are only in facenet-pytorch's own files.
    """

    def __init__(
        self,
        pretrained: str | None = None,
        classify: bool = False,
        num_classes: int | None = None,
        dropout_prob: float = 0.6,
        device: str | torch.device | None = None,
    ) -> None:
        _check_classes(pretrained, classify, num_classes)
        super().__init__(FacenetSettings(512, dropout_prob, bn_momentum=MOMENTUM, gamma=True))
        self.pretrained, self.num_classes = pretrained, num_classes
        self.classify = False
        if pretrained is not None:
            load_into(self, PRETRAINED[pretrained][0])
        if num_classes is not None:
            self.logits = nn.Linear(512, num_classes)
        self.classify = classify
        self.device = torch.device("cpu" if device is None else device)
        self.to(self.device)

    def forward(self, x: Tensor) -> Tensor:
        """Standardised crops float32 (n, 3, h, w), made for 160 x 160 -> unit vectors (n, 512).

        With `classify` values of the class layer, float32 (n, num_classes). Raises SettingsError
        when there is none, ImageError for crops of another shape.
        """
        embeddings = super().forward(x)
        if not self.classify:
            return normalize(embeddings, p=2, dim=1)
        if "logits" not in self._modules:
            raise SettingsError(
                "classify needs a class layer; this network was built without one. Build it with "
                "num_classes."
            )
        values: Tensor = self.logits(embeddings)
        return values


def _check_classes(pretrained: str | None, classify: bool, num_classes: int | None) -> None:
    """Raises SettingsError, or ModelError for a class layer that cannot be had."""
    if pretrained is not None and pretrained not in PRETRAINED:
        raise SettingsError(
            f"pretrained should be {', '.join(PRETRAINED)} or None; got {pretrained!r:.60}. Other "
            "models are loaded with facenet.train.weights.load_backbone."
        )
    if num_classes is not None and num_classes < 1:
        raise SettingsError(f"num_classes should be 1 or more; got {num_classes}.")
    if num_classes is not None and not (classify or pretrained):
        raise SettingsError(
            "num_classes makes a class layer, which classify=False does not use; facenet-pytorch "
            "leaves it out without a word. Pass classify=True, or leave num_classes out."
        )
    if classify and num_classes is None and pretrained is None:
        raise SettingsError("classify needs a class layer: pass num_classes.")
    if classify and num_classes is None and pretrained is not None:
        people = PRETRAINED[pretrained][1]
        raise ModelError(
            f"The class layer of {people} people is in no model of the store. Pass num_classes for "
            f"a fresh one, or build it with num_classes={people}, without pretrained, and give it "
            "facenet-pytorch's own file with facenet.train.weights.load_weights."
        )


class MTCNN(nn.Module):
    """facenet-pytorch's MTCNN: pictures -> crops of faces, or their boxes.

    image_size: side of the crops in pixels. margin: pixels of the crop that lie around the box.
    min_face_size: smallest face looked for, in pixels. thresholds: of P-, R- and O-net, 0 to 1.
    factor: between levels of the pyramid. post_process: crops standardised to (x - 127.5) / 128,
    else 0 to 255. select_largest: the largest face is taken and comes first, else the surest one.
    selection_method: a rule of `facenet.faces.detect.RULES` in place of that. keep_all: all faces,
    not one. device: where the networks run, "cpu" or "cuda"; None: cpu.
    The attributes of these names may be changed afterwards. Raises SettingsError for options that
    make no sense, EngineError for a device that is not there. No gradient flows through it.
    """

    def __init__(  # noqa: PLR0913 - facenet-pytorch's arguments, each written by name
        self,
        image_size: int = 160,
        margin: int = 0,
        min_face_size: int = 20,
        thresholds: Sequence[float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        post_process: bool = True,
        select_largest: bool = True,
        selection_method: str | None = None,
        keep_all: bool = False,
        device: str | torch.device | None = None,
    ) -> None:
        super().__init__()
        self.image_size, self.margin = image_size, margin
        self.min_face_size, self.thresholds = min_face_size, list(thresholds)
        self.factor, self.post_process = factor, post_process
        self.select_largest, self.keep_all = select_largest, keep_all
        self.selection_method = selection_method or ("largest" if select_largest else "probability")
        self.device = torch.device("cpu" if device is None else device)
        self._opened: tuple[MtcnnSettings, Detector] | None = None
        check_crop(image_size, margin)
        check_rule(self.selection_method)
        self._detector()

    def forward(
        self,
        img: Pictures,
        save_path: Places = None,
        return_prob: bool = False,
    ) -> Any:
        """Crops of the faces of one picture or several.

        img: see `Pictures`. save_path: file of the crop (before it is standardised), one for each
        picture; further faces go to NAME_2, NAME_3 and so on. Returns a float32 tensor (3, s, s),
        with keep_all (n, 3, s, s), None where there is no face, and a list of these for several
        pictures; with return_prob also the probabilities, as `select_boxes` or `detect` gives them.
        Raises ImageError for what is no picture, StorageError when a crop cannot be written.
        """
        boxes, probs, points = self.detect(img, landmarks=True)
        if not self.keep_all:
            boxes, probs, points = self.select_boxes(
                boxes, probs, points, img, method=self.selection_method
            )
        faces = self.extract(img, boxes, save_path)
        return (faces, probs) if return_prob else faces

    def detect(self, img: Pictures, landmarks: bool = False) -> tuple[Any, ...]:
        """Boxes, probabilities and, if asked for, landmarks of the faces.

        Of one picture: float32 (n, 4) x1 y1 x2 y2, (n,) and (n, 5, 2), in pixels; or None, [None]
        and None without a face. Of several: arrays with such an entry for each picture, one dense
        float32 array where all have as many faces. The largest face comes first, without
        select_largest the surest. Raises ImageError for what is no picture.
        """
        pictures, many = listed(img)
        found = self._detector().detect([pixels_of(picture) for picture in pictures])
        found = [faces if self.select_largest else _surest_first(faces) for faces in found]
        boxes = [np.array(faces.boxes) if len(faces) else None for faces in found]
        probs = [np.array(faces.detection_score) if len(faces) else [None] for faces in found]
        points = [np.array(faces.landmarks) if len(faces) else None for faces in found]
        answer: tuple[Any, ...] = (together(boxes), together(probs), together(points))
        if not many:
            answer = (boxes[0], np.array(probs[0]), points[0])
        return answer if landmarks else answer[:2]

    def select_boxes(
        self,
        all_boxes: Any,
        all_probs: Any,
        all_points: Any,
        imgs: Pictures,
        method: str = "probability",
        threshold: float = SURE,
        center_weight: float = CENTER_WEIGHT,
    ) -> tuple[Any, Any, Any]:
        """The one face of each picture that a rule prefers, from what `detect` gave.

        method: "probability", "largest", "largest_over_threshold" (a probability above threshold)
        or "center_weighted_size" (area minus center_weight times the squared distance from the
        middle of the picture). Of one picture: box (1, 4), the probability as a number, landmarks
        (1, 5, 2), or None three times; of several: arrays of (1, 4), (1,) and (1, 5, 2), with None,
        [None] and None for no face. Raises SettingsError for another method.
        """
        check_rule(method)
        pictures, many = listed(imgs)
        if not many:
            all_boxes, all_probs, all_points = [all_boxes], [all_probs], [all_points]
        weights = (threshold, center_weight)
        chosen = [
            selected(boxes, probs, points, size_of(picture), method, weights)
            for boxes, probs, points, picture in zip(
                all_boxes, all_probs, all_points, pictures, strict=True
            )
        ]
        boxes, probs, points = ([one[part] for one in chosen] for part in range(3))
        if many:
            return together(boxes), together(probs), together(points)
        prob = probs[0][0]
        return boxes[0], None if prob is None else float(prob), points[0]

    def extract(self, img: Pictures, batch_boxes: Any, save_path: Places) -> Any:
        """The crops of boxes (n, 4) that `detect` or `select_boxes` gave; see `forward`."""
        pictures, many = listed(img)
        boxes = batch_boxes if many else [batch_boxes]
        paths = paths_for(save_path, len(pictures))
        faces = [
            None if one is None else self._extracted(picture, one, path)
            for picture, one, path in zip(pictures, boxes, paths, strict=True)
        ]
        return faces if many else faces[0]

    def _extracted(self, picture: Picture, boxes: Any, path: Path | None) -> Tensor:
        faces = []
        for number, box in enumerate(boxes if self.keep_all else boxes[:1]):
            place = path
            if path is not None and number > 0:
                place = path.with_name(f"{path.stem}_{number + 1}{path.suffix}")
            face = extract_face(picture, box, self.image_size, self.margin, place)
            faces.append(fixed_image_standardization(face) if self.post_process else face)
        return torch.stack(faces) if self.keep_all else faces[0]

    def _detector(self) -> Detector:
        """The detector for the options as they are now."""
        first, second, third = self.thresholds if len(self.thresholds) == 3 else (2.0, 2.0, 2.0)
        settings = MtcnnSettings(self.min_face_size, (first, second, third), self.factor)
        if self._opened is None or self._opened[0] != settings:
            running = EngineSettings(device=torch.device(self.device).type)
            self._opened = (settings, open_detector("mtcnn", running, options=settings))
        return self._opened[1]


def _surest_first(faces: Faces) -> Faces:
    return faces[np.argsort(-faces.detection_score, kind="stable")]
