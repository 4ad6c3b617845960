"""Print what FastMTCNN loses: faces of every n-th frame against detection in every frame.

Three videos: two that are made here, in which the faces of examples/photos/group.jpg cross the
picture, and the test data's clip of people who walk through a street (FACENET_TEST_DATA, or
--data). Recall is of boxes at an overlap (IoU) of 0.5. How fast it is, `facenet bench` tells.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import facenet
from facenet.faces.detect import Detector
from facenet.faces.strided import Strided, recall_against
from facenet.types import ImageArray

ROOT = Path(__file__).resolve().parent.parent
SIZE = (640, 360)
FRAMES = 120
SPEEDS = {
    "crossing at up to 4 widths a second": ((6, 2), (10, -4), (14, 6)),
    "crossing at up to 9 widths a second": ((12, 5), (20, -9), (28, 13)),
}
"""Pixels a frame, across and down, of the faces of the made videos: 80 wide, 25 frames a second."""
WAYS = [(stride, between, 1.0) for stride in (2, 4, 8) for between in ("reuse", "interpolate")]
WAYS += [(4, "reuse", 0.5), (4, "interpolate", 0.5)]


def crossing(speeds: tuple[tuple[int, int], ...]) -> Iterator[ImageArray]:
    """Frames, (H, W, 3), in which three faces cross a grey room and bounce off its walls."""
    import cv2

    group = facenet.load_image(ROOT / "examples" / "photos" / "group.jpg")
    people = []
    for left, top in ((60, 50), (370, 50), (690, 50)):
        crop = group[top : top + 280, left : left + 230]
        people.append(cv2.resize(crop, (138, 168), interpolation=cv2.INTER_AREA))
    for number in range(FRAMES):
        frame = np.full((SIZE[1], SIZE[0], 3), 110, np.uint8)
        for person, (across, down) in zip(people, speeds, strict=True):
            height, width = person.shape[:2]
            x = bounced(across * number, SIZE[0] - width)
            y = bounced(100 + down * number, SIZE[1] - height)
            frame[y : y + height, x : x + width] = person
        yield frame


def bounced(way: int, room: int) -> int:
    """Where something is that has gone so far between two walls."""
    place = way % (2 * room)
    return place if place <= room else 2 * room - place


def report(name: str, frames: list[ImageArray], detector: Detector) -> None:
    """Print a line for each way."""
    full = list(Strided(detector, stride=1).frames(frames))
    print(f"{name}: {len(frames)} frames, {sum(map(len, full))} faces")
    for stride, between, resize in WAYS:
        found = list(Strided(detector, stride, between, resize).frames(frames))
        lost = recall_against(found, full)
        print(
            f"  stride {stride}, {between}, resize {resize}: recall {lost.share:.3f}, "
            f"lost {lost.lost}, extra {lost.extra}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("FACENET_TEST_DATA"))
    parser.add_argument("--detector", default="mtcnn")
    given = parser.parse_args()
    detector = facenet.Recognizer(detector=given.detector).detector
    for name, speeds in SPEEDS.items():
        report(name, list(crossing(speeds)), detector)
    if given.data:
        clip = Path(given.data) / "video" / "faces-1080p.mp4"
        report(clip.name, [frame.image for frame in facenet.read_video(clip)], detector)


if __name__ == "__main__":
    main()
