"""A clip that was looked at once is watched again and again, as `facenet video` does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import tee
from typing import cast

from facenet.faces.embed import Embedder
from facenet.gallery.compare import People
from facenet.images import Frame
from facenet.recognizer import Recognizer
from facenet.types import Faces, ImageArray
from facenet.video.events import Moment
from facenet.video.settings import WatchSettings
from facenet.video.watch import watch


def rewatch(
    frames: Iterable[Frame],
    looked: Sequence[Faces],
    recognizer: Recognizer,
    ways: Sequence[tuple[People | None, WatchSettings]],
) -> Iterator[tuple[Moment, ...]]:
    """Watch frames in several ways side by side: of each frame the moments, one for each way.

    looked: the faces of each frame with embeddings, as the recognizer sees them; it is not asked
    again. ways: who is known, and the settings. Frames are made once for all and few are held.
    """
    watchings = []
    for (known, how), feed in zip(ways, tee(frames, len(ways)), strict=True):
        replay = Replay(recognizer, looked)
        parts = replay.recognizer()
        watchings.append(watch(replay.frames(feed), known=known, recognizer=parts, settings=how))
    return zip(*watchings, strict=True)


class Replay:
    """A detector and an embedder that say again what was said of the frame at hand.

    looked: faces of each frame with embeddings, by the number of the frame.
    """

    def __init__(self, recognizer: Recognizer, looked: Sequence[Faces]) -> None:
        self._own, self._looked, self._number = recognizer, looked, 0
        self.card, self.contract = recognizer.embedder.card, recognizer.embedder.contract

    def recognizer(self) -> Recognizer:
        """These two with the rates of the model that they speak for."""
        return Recognizer.from_parts(self, cast(Embedder, self), self._own.calibration)

    def frames(self, feed: Iterable[Frame]) -> Iterator[Frame]:
        """Frames as they are; the last one that was given is at hand."""
        for frame in feed:
            self._number = frame.number
            yield frame

    def detect(self, images: Sequence[ImageArray]) -> list[Faces]:
        """The faces of the frame at hand, uint8 (H, W, 3), the only one of `images`."""
        return [self._looked[self._number].with_(embedding=None, contract=None)]

    def embed(self, images: Sequence[ImageArray], faces: Sequence[Faces]) -> list[Faces]:
        """The faces that `detect` gave, with their embeddings, float32 (n, d)."""
        seen = self._looked[self._number]
        return [faces[0].with_(embedding=seen.embedding, contract=seen.contract)]
