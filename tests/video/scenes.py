"""People who walk through small made-up videos: `from scenes import Scene, known_people`.

A scene says who is where in each frame. Its frames carry their number in a corner, by which the
fakes of a detector and an embedder know what to say. Vectors of one person are alike (about 0.8),
those of two are not.
"""

from __future__ import annotations

import zlib

import numpy as np
from fakes import ToyDetector, toy_card, toy_faces, toy_fmr

from facenet import vectors
from facenet.faces.track import Tracker
from facenet.gallery.compare import People
from facenet.gallery.levels import Rates
from facenet.images import Frame
from facenet.types import Faces
from facenet.video.identity import KnownPeople
from facenet.video.levels import agreement, same_person
from facenet.video.looking import Looking
from facenet.video.naming import Naming
from facenet.video.settings import WatchSettings
from facenet.video.visits import Likeness, Visits
from facenet.video.watch import Parts, Watching

WIDTH = 256
CARD = toy_card(fmr=toy_fmr(), dimension=WIDTH)
RATES = Rates(CARD, CARD.contract)
SIZE = (120, 200)
QUICK = WatchSettings(settle=4)
TEXTURE = np.random.default_rng(0).integers(1, 256, (*SIZE, 3)).astype(np.uint8)


def looks(name, seed=None):
    """The vector of a person; with a seed, of one face of theirs."""
    number = zlib.crc32(name.encode())
    own = vectors.unit(np.random.default_rng(number).normal(size=WIDTH))
    if seed is None:
        return own
    noise = vectors.unit(np.random.default_rng((number, seed)).normal(size=WIDTH))
    return vectors.unit(own + 0.5 * noise)


def known_people(*names, settings=QUICK, rates=RATES):
    people = People(names, np.stack([looks(name) for name in names]), rates.contract)
    return KnownPeople(people, rates, settings)


def visits(*names, settings=QUICK, decider=None, on_track=None):
    decider = decider or (known_people(*names, settings=settings) if names else None)
    same = same_person(RATES, settings.same_fmr, None)
    likeness = Likeness(same, agreement(RATES), CARD.contract)
    return Visits(Naming(decider), settings, likeness, on_track)


def frame(number, time_s=None, size=SIZE):
    image = np.resize(TEXTURE, (*size, 3)).copy()
    image[0, 0] = (number // 256, number % 256, 0)
    return Frame(number, number / 25 if time_s is None else time_s, image)


def faces_of(*people, seed=0, ids=None):
    """Faces with vectors: people are (name, box); names are told apart by their own noise."""
    if not people:
        return Faces.empty().with_(
            embedding=np.zeros((0, WIDTH)), contract=CARD.contract, track_id=np.zeros(0, np.int64)
        )
    found = toy_faces(*(box for _, box in people))
    rows = [looks(name, 1000 * seed + n) for n, (name, _) in enumerate(people)]
    found = found.with_(embedding=np.stack(rows), contract=CARD.contract)
    return found if ids is None else found.with_(track_id=np.array(ids, np.int64))


class Scene:
    """frames: how many. where: number of a frame -> list of (name, box)."""

    def __init__(self, frames, where, *, sizes=None):
        self.count, self.where, self.sizes = frames, where, sizes
        self.given = 0
        self.embedded = []

    def frames(self):
        for number in range(self.count):
            self.given += 1
            yield frame(number, size=self.sizes(number) if self.sizes else SIZE)

    @staticmethod
    def number(image):
        return int(image[0, 0, 0]) * 256 + int(image[0, 0, 1])

    def detect(self, image):
        there = self.where(self.number(image))
        return toy_faces(*(box for _, box in there)) if there else Faces.empty()

    contract = CARD.contract
    card = CARD

    def embed(self, images, faces):
        number = self.number(images[0])
        self.embedded.append(number)
        found = faces_of(*self.where(number), seed=number)
        return [faces[0].with_(embedding=found.embedding, contract=CARD.contract)]

    def watching(self, *names, settings=QUICK, source=None, **more):
        on_track, decider = more.pop("on_track", None), more.pop("decider", None)
        seen = visits(*names, settings=settings, decider=decider, on_track=on_track)
        embedder = self if settings.embed else None
        looking = Looking(ToyDetector(self.detect), embedder, settings, seen.settled)
        parts = Parts(looking, Tracker(settings.track), seen)
        return Watching(self.frames() if source is None else source, parts, settings, **more)


def walk(start, step=1.0, *, top=30, side=40):
    """A box that goes to the right: number of the frame -> x1 y1 x2 y2."""
    return lambda number: (
        start + step * number,
        top,
        start + step * number + side,
        top + 1.2 * side,
    )


def told(events):
    """What happened, in short: type, track, who."""
    return [(event.type, event.track, event.person or event.stranger) for event in events]
