"""From a face in a photo to the crop an embedder wants.

Three conventions, named in every card: the five-point similarity of ArcFace and InsightFace,
`margin_original` of facenet (margin in pixels of the photo), `margin_output` of facenet-pytorch
(margin in pixels of the crop). All crops are uint8 RGB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from facenet.errors import InputError
from facenet.faces.bilinear import resize_bilinear
from facenet.models.card import Preprocess
from facenet.types import Face, Faces, FloatArray, ImageArray

TEMPLATE_112 = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ],
    np.float64,
)
"""Where the five points lie in a 112x112 crop (InsightFace, 2018)."""


def template(width: int, height: int) -> NDArray[np.float64]:
    """The five target points of a crop: float64 (5, 2), x y in pixels.

    The 112x112 template scaled to the height; a width other than the height cuts or adds the
    same on both sides, which gives the published 112 high, 96 wide template (x - 8).
    """
    scale = height / 112
    shift = np.array([(112 * scale - width) / 2, 0.0])
    return np.asarray(TEMPLATE_112 * scale - shift)


def similarity_transform(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Least-squares scale, rotation and shift that takes points to points.

    source, target: (n, 2), n >= 2. Returns float64 (2, 3), [sR | t], never a reflection.
    Umeyama, "Least-squares estimation of transformation parameters" (1991), in two dimensions,
    where the rotation has a closed form. Raises InputError when all source points coincide.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    spread = float(np.sum(a * a))
    if not np.isfinite(spread) or spread < 1e-12:
        raise InputError(
            "The landmarks of a face should be five different points; these coincide. "
            "Use a detector with landmarks, or a crop with a margin."
        )
    cosine = float(np.sum(a * b)) / spread
    sine = float(np.sum(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])) / spread
    matrix = np.array([[cosine, -sine], [sine, cosine]])
    return np.column_stack([matrix, target_mean - matrix @ source_mean])


def similarity_crop(
    image: ImageArray, landmarks: FloatArray, *, width: int = 112, height: int = 112
) -> ImageArray:
    """Warp a face so that its five points lie on the template; black outside the photo.

    image: uint8 (H, W, 3). landmarks: (5, 2). Returns uint8 (height, width, 3).
    A face twice too large or more is first reduced by area, to 1 to 1.7 times too large, so that
    fine detail neither aliases nor blurs.
    """
    import cv2

    matrix = similarity_transform(landmarks, template(width, height))
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    reduce = round(0.75 / scale) if scale > 0 else 1
    if reduce >= 2:
        size = (max(1, image.shape[1] // reduce), max(1, image.shape[0] // reduce))
        ratio = np.array([image.shape[1] / size[0], image.shape[0] / size[1]])
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        shift = matrix[:, :2] @ ((ratio - 1) / 2)
        matrix = np.column_stack([matrix[:, :2] * ratio, matrix[:, 2] + shift])
    warped = cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, np.uint8)


def margin_box(
    box: FloatArray, size: tuple[int, int], *, margin: int, output: tuple[int, int] | None = None
) -> tuple[int, int, int, int]:
    """A box with its margin, cut at the photo: whole pixels x1 y1 x2 y2.

    box: (4,). size: width and height of the photo. margin: pixels in all, half on each side; of
    the photo (facenet), or of the crop when `output`, its width and height, is given
    (facenet-pytorch). Raises InputError when nothing of the box lies in the photo.
    """
    x1, y1, x2, y2 = (float(v) for v in box)
    extra_x = extra_y = float(margin)
    if output:
        extra_x = margin * (x2 - x1) / (output[0] - margin)
        extra_y = margin * (y2 - y1) / (output[1] - margin)
    left, top = int(max(x1 - extra_x / 2, 0)), int(max(y1 - extra_y / 2, 0))
    right, bottom = int(min(x2 + extra_x / 2, size[0])), int(min(y2 + extra_y / 2, size[1]))
    if right <= left or bottom <= top:
        raise InputError(
            f"The box {[round(v) for v in (x1, y1, x2, y2)]} should lie in the photo of "
            f"{size[0]}x{size[1]} pixels; it does not. Pass the photo that the box was found in."
        )
    return left, top, right, bottom


def margin_crop(
    image: ImageArray, box: tuple[int, int, int, int], size: tuple[int, int]
) -> ImageArray:
    """Cut whole pixels x1 y1 x2 y2 and resize bilinearly as Pillow does, which both systems use
    for files (facenet-pytorch takes another way for arrays; golden values: `crops_pil`).

    image: uint8 (H, W, 3). size: width and height of the crop; the aspect ratio is not kept, as
    in both systems. Returns uint8 (height, width, 3).
    """
    left, top, right, bottom = box
    return resize_bilinear(image[top:bottom, left:right], *size)


def crop_face(image: ImageArray, face: Face, preprocess: Preprocess) -> ImageArray:
    """The crop that a card asks for: uint8 (H, W, 3) RGB -> uint8 (height, width, 3) RGB.

    Raises InputError when the box lies outside the photo, or landmarks are needed and missing.
    """
    size = (preprocess.width, preprocess.height)
    if preprocess.crop == "similarity":
        if face.landmarks is None:
            raise InputError(
                "This model aligns by five landmarks; the detector gave none. "
                'Use a detector with landmarks, such as "mtcnn".'
            )
        return similarity_crop(image, face.landmarks, width=size[0], height=size[1])
    output = size if preprocess.crop == "margin_output" else None
    photo = (image.shape[1], image.shape[0])
    box = margin_box(face.box, photo, margin=preprocess.margin, output=output)
    return margin_crop(image, box, size)


def crop_faces(image: ImageArray, faces: Faces, preprocess: Preprocess) -> ImageArray:
    """All crops of a photo: uint8 (H, W, 3) RGB -> uint8 (n, height, width, 3) RGB.

    Raises InputError as `crop_face` does.
    """
    shape = (len(faces), preprocess.height, preprocess.width, 3)
    out = np.empty(shape, np.uint8)
    for row, face in enumerate(faces):
        out[row] = crop_face(image, face, preprocess)
    return out
