"""What is measured with: frames of a video, pictures, faces; and where they come from, in words.

Without a video and pictures of the user's own, the group photo of the repository's examples is
laid on a canvas; where that is not at hand, pictures are generated, which have no faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

import facenet
from facenet.apps.jobs.photos import find_photos
from facenet.errors import ImageError, InputError
from facenet.faces.detect import Detector
from facenet.images import load_image, read_video, video_facts
from facenet.types import ImageArray

Tell = Callable[[str], None]
"""Is told a sentence."""

GREY = 118
ROOTS = (Path(), Path(facenet.__file__).resolve().parents[2])
"""Where examples may be: the work folder, and the repository where facenet runs from it."""
GRID, GAP = (5, 4), 12
"""Places for faces on the canvas of `faces_on_canvas`, across and down, and pixels around each."""
CANVAS = (1280, 720)
LARGEST = (1920, 1080)
"""Width and height of the largest frame."""
CLIP = 100
"""Frames of a video that serve as photos."""
PLAIN = ("images", "photos")
"""Names of folders that say less than the one around them."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures of any sizes, uint8 (H, W, 3) RGB each, and where they come from."""

    images: Sequence[ImageArray]
    origin: str


def examples(roots: Sequence[Path] = ROOTS) -> Path | None:
    """The folder of example photos below one of the roots; None: not here."""
    places = (place / "examples" / "photos" for place in roots)
    return next((place for place in places if (place / "group.jpg").is_file()), None)


def frames(
    video: Path | None,
    images: Path | None,
    count: int,
    *,
    roots: Sequence[Path] = ROOTS,
    tell: Tell = lambda sentence: None,
) -> Pictures:
    """`count` frames: of a video, spread over its length; else of a folder of pictures; else of
    the example photos, else generated. A picture that cannot be read is told and passed over.

    Raises InputError for a video that cannot be read, and without any picture that can be."""
    if video is not None:
        found = spread_frames(video, count)
        return Pictures(found, f"{len(found)} frames of {video.name}")
    if images is not None:
        paths = spread([photo.path for photo in find_photos([images])], count)
        found = [_shrunk(image) for _, image in readable(paths, tell)]
        if not found:
            raise InputError(f"Pictures to measure with should be readable; none of {images} was.")
        return Pictures(found, f"{len(found)} pictures of {images}")
    folder = examples(roots)
    if folder is None:
        made = [generated(number) for number in range(count)]
        return Pictures(
            made, f"{count} generated pictures without faces (give --video or --images)"
        )
    group = load_image(folder / "group.jpg")
    return Pictures([group] * count, f"{folder / 'group.jpg'}, {count} times at other heights")


def _shrunk(image: ImageArray) -> ImageArray:
    """A picture that is no larger than the largest frame: bounds memory."""
    import cv2

    scale = min(LARGEST[0] / image.shape[1], LARGEST[1] / image.shape[0])
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def files(
    video: Path | None, images: Path | None, folder: Path, *, roots: Sequence[Path] = ROOTS
) -> tuple[str, list[Path]]:
    """A name and photos: of a folder of pictures; else frames of a video, written as JPEGs into
    `folder`; else the example photos. Raises InputError when there are none."""
    if images is None and video is not None:
        return video.stem, [
            _written(frame, folder / f"frame-{number:04d}.jpg")
            for number, frame in enumerate(spread_frames(video, CLIP))
        ]
    place = images or examples(roots)
    if place is None:
        raise InputError("Photos with faces are needed to measure with; give --images DIR.")
    resolved = place.resolve()
    plain = resolved.parent if resolved.name.lower() in PLAIN else resolved
    return plain.name, [photo.path for photo in find_photos([place])]


def _written(image: ImageArray, path: Path) -> Path:
    path.write_bytes(jpeg(image))
    return path


def spread(rows: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the rows, evenly."""
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int)
    return [rows[place] for place in places]


def spread_frames(video: Path, count: int) -> list[ImageArray]:
    """At most `count` frames of a video, over its length: uint8 (H, W, 3) RGB each.

    Raises InputError when it cannot be read, MissingExtraError without what reads videos.
    """
    told = video_facts(video).frames or count
    step = max(1, told // count)
    return [frame.image for frame in islice(read_video(video, stride=step), count)]


def first_frames(video: Path, count: int) -> list[ImageArray]:
    """The first `count` frames of a video, one after the other; raises as `spread_frames`."""
    return [frame.image for frame in islice(read_video(video), count)]


def generated(number: int) -> ImageArray:
    """A picture of smooth noise: uint8 (720, 1280, 3)."""
    import cv2

    noise = np.random.default_rng(number).integers(0, 256, (72, 128, 3), np.uint8)
    return np.asarray(cv2.resize(noise, CANVAS, interpolation=cv2.INTER_CUBIC), np.uint8)


def save_frames(pictures: Sequence[ImageArray], size: tuple[int, int], path: Path) -> None:
    """Pictures (H, W, 3) brought to one width and height, as one array in a file.

    One of another shape is scaled to fit and laid on grey, each a bit lower than the one before.
    """
    shares = np.linspace(0, 1, len(pictures))
    rows = [fitted(image, size, share) for image, share in zip(pictures, shares, strict=True)]
    np.save(path, np.stack(rows))


def fitted(image: ImageArray, size: tuple[int, int], share: float) -> ImageArray:
    """A picture (H, W, 3) scaled to fit a width and height, with grey around it.

    share: how much of the free room is above it and left of it, 0 to 1.
    """
    import cv2

    width, height = size
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.resize(image, inner, interpolation=way)
    canvas = np.full((height, width, 3), GREY, np.uint8)
    top, left = round((height - inner[1]) * share), round((width - inner[0]) * share)
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return canvas


def readable(
    paths: Iterable[Path], tell: Tell = lambda sentence: None
) -> Iterator[tuple[Path, ImageArray]]:
    """The pictures that can be read, uint8 (H, W, 3) each, with their paths; of others it tells."""
    for path in paths:
        try:
            yield path, load_image(path)
        except ImageError as error:
            tell(f"{path.name} was passed over: {error}"[:300])


def one_face(
    photos: Sequence[Path], detector: Detector, *, tell: Tell = lambda sentence: None
) -> ImageArray:
    """The largest face of the first photo that has one, with room around it: uint8 (H, W, 3).

    Raises InputError when there is none.
    """
    for _, image in readable(photos, tell):
        faces = detector.detect([image])[0]
        if len(faces):
            x1, y1, x2, y2 = faces.boxes[0]
            room = 0.5 * max(x2 - x1, y2 - y1)
            rows = slice(max(0, int(y1 - room)), int(y2 + room))
            return image[rows, max(0, int(x1 - room)) : int(x2 + room)]
    raise InputError("Photos to measure with should show a face; none was found in them.")


def jpeg(image: ImageArray) -> bytes:
    """A picture (H, W, 3) as JPEG."""
    import cv2

    encoded, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not encoded:
        raise InputError("OpenCV should write a JPEG; it did not. Install it again.")
    return data.tobytes()


def faces_on_canvas(face: ImageArray, count: int) -> bytes:
    """A JPEG of 1280x720 with a face (H, W, 3) in `count` of its 20 places."""
    across, down = GRID
    width, height = CANVAS[0] // across, CANVAS[1] // down
    tile = fitted(face, (width - 2 * GAP, height - 2 * GAP), 0.5)
    canvas = np.full((*CANVAS[::-1], 3), GREY, np.uint8)
    for place in range(count):
        top, left = height * (place // across) + GAP, width * (place % across) + GAP
        canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return jpeg(canvas)
