"""`facenet bench detect`: detectors on frames of three sizes, and MTCNN beside its floor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facenet.apps.jobs.benching.floor import pnet_work
from facenet.apps.jobs.benching.material import first_frames, frames, save_frames
from facenet.apps.jobs.benching.rows import Row, quantity
from facenet.apps.jobs.benching.runs import Outcome, Plan, memory_rows
from facenet.apps.jobs.benching.session import Session
from facenet.errors import ModelFileError
from facenet.faces.detectors import FAMILIES, family_of
from facenet.models.card import ModelCard
from facenet.models.catalog import DEFAULT_DETECTOR
from facenet.models.home import cpu_threads

Task = Mapping[str, Any]
Places = Mapping[tuple[int, int], Path]
"""Files of frames by their size."""

SIZES = ((1920, 1080), (1280, 720), (960, 540))
FRAMES, QUICK_FRAMES = 16, 8
CLIP, QUICK_CLIP = 33, 9
"""Frames of a video, one after the other, for FastMTCNN: whole strides and one."""
STRIDE = 4
PEERS = {"mtcnn": "facenet-pytorch", "yunet": "opencv", "scrfd": "insightface"}
"""Families of detectors with the peer that has the same."""
QUICK = "bf16"
"""Arithmetic that YuNet may be asked to compute in besides fp32."""
MIXED = "mixed"
"""The rows of frames that each lack some columns, so that no two are of one size."""
FETCHED = "yunet"
"""The published detector that does not come with facenet."""
SCORE = 0.7
"""Score that a face of OpenCV's YuNet must reach, as with facenet's; a time hardly depends on it.
"""


def detect(session: Session) -> Iterator[Row]:
    """Rows of every detector that is here."""
    count = QUICK_FRAMES if session.settings.quick else FRAMES
    pictures = frames(session.settings.video, session.settings.images, count, tell=session.note)
    session.note(f"Detectors saw {pictures.origin}.")
    places = {size: session.folder / f"{size[0]}x{size[1]}.npy" for size in SIZES}
    for size, place in places.items():
        save_frames(pictures.images, size, place)
    families = _families(session)
    for card in session.here("detector"):
        if card.name in families:
            peers = _peer(session, card, families[card.name])
            yield from _detector(session, card, places, len(pictures.images), peers=peers)
            if families[card.name] == "yunet":
                count = len(pictures.images)
                yield from _quick(session, card, places, count, peers=peers)


def _families(session: Session) -> dict[str, str]:
    """The family of each detector that is here; notes on those that are not, or of none."""
    found = {}
    for card in session.here("detector"):
        try:
            family = family_of(card)
        except ModelFileError as error:
            session.note(f"{card.name} was not measured: {error}")
            continue
        found[card.name] = next(name for name, known in FAMILIES.items() if known is family)
    here = set(found.values())
    if "yunet" not in here:
        session.note(
            f"{FETCHED} was not measured: it is not on this machine. Fetch it with "
            f"`facenet models pull {FETCHED}`."
        )
    if "scrfd" not in here:
        session.note(
            "scrfd was not measured: none is on this machine. Bring one in with "
            "`facenet models import`."
        )
    return found


def _detector(
    session: Session, card: ModelCard, places: Places, count: int, *, peers: dict[str, Task]
) -> Iterator[Row]:
    """Rows of one detector. peers: what each peer's task has besides facenet's."""
    outcomes, plans = [], _plans(session, card, places, count, peers=peers)
    for outcome in session.runs(cpu_threads()).measure(plans):
        outcomes.append(outcome)
        yield from outcome.rows()
    yield from memory_rows(card.name, outcomes)
    if card.name == DEFAULT_DETECTOR:
        yield from _floors(session, outcomes)
        yield from _fast(session)


def _plans(
    session: Session,
    card: ModelCard,
    places: Places,
    count: int,
    *,
    peers: dict[str, Task],
    arithmetic: str = "",
) -> list[Plan]:
    """One by one, as at a door; together, as `Recognizer` takes many; and together though no two
    are of one size. A peer looks at one after the other either way. arithmetic: another than the
    detector's own, for YuNet."""
    plans, other = [], {"arithmetic": arithmetic} if arithmetic else {}
    for size, place in places.items():
        name = "/".join([card.name, *other.values(), f"{size[0]}x{size[1]}"])
        ends = ("", f"/batch{count}", f"/batch{count}/{MIXED}")
        for end in ends[:2] if other else ends:
            task = {
                "job": "detect", "detector": card.name, "frames": str(place),
                "together": bool(end), "mixed": end.endswith(MIXED), **session.running, **other,
            }  # fmt: skip
            theirs = {} if task["mixed"] else {n: {**task, **more} for n, more in peers.items()}
            parts = (None,) * session.settings.runs
            plans.append(Plan(f"{name}{end}", "frames/s", task, theirs, parts))
    return plans


def _quick(
    session: Session, card: ModelCard, places: Places, count: int, *, peers: dict[str, Task]
) -> Iterator[Row]:
    """YuNet in bfloat16, with the share of its own faces in fp32 that it finds in the frames."""
    plans = _plans(session, card, places, count, peers=peers, arithmetic=QUICK)
    for outcome in session.runs(cpu_threads()).measure(plans):
        yield from outcome.rows()
        if outcome.plan.task["together"]:
            continue
        unit = f"share of {outcome.facts['expected']} faces"
        yield quantity(f"{outcome.plan.name}/recall", unit, outcome.facts["recall"])


def _peer(session: Session, card: ModelCard, family: str) -> dict[str, Task]:
    """The peer that has the same detector, if it was asked for, and what it is told besides."""
    if family != "yunet":
        return session.peers({PEERS[family]: {}})
    if card.name != FETCHED:  # OpenCV reads that one alone
        return {}
    file = str(next(iter(session.store.files(card).values())))
    return session.peers({PEERS[family]: {"model": file, "score": SCORE}})


def _fast(session: Session) -> Iterator[Row]:
    """FastMTCNN on frames of a video that follow one another, with what it loses."""
    video, quick = session.settings.video, session.settings.quick
    if video is None:
        session.note("fastmtcnn was not measured: it needs a video. Give --video FILE.")
        return
    clip, plans = first_frames(video, QUICK_CLIP if quick else CLIP), []
    for width, height in SIZES:
        place = session.folder / f"clip-{width}x{height}.npy"
        save_frames(clip, (width, height), place)
        task = {
            "job": "strided", "detector": DEFAULT_DETECTOR, "frames": str(place),
            "stride": STRIDE, **session.running,
        }  # fmt: skip
        name = f"fastmtcnn/stride{STRIDE}/{width}x{height}"
        plans.append(Plan(name, "frames/s", task, parts=(None,) * session.settings.runs))
    for outcome in session.runs(cpu_threads()).measure(plans):
        yield from outcome.rows()
        unit = f"share of {outcome.facts['expected']} faces"
        yield quantity(f"{outcome.plan.name}/recall", unit, outcome.facts["recall"])


def _floors(session: Session, outcomes: Sequence[Outcome]) -> Iterator[Row]:
    """How fast the processor computes, and what that makes of P-net, beside what MTCNN took."""
    plans = [
        Plan(
            f"arithmetic/{precision}", "GFLOP/s",
            {"job": "arithmetic", "precision": precision, **session.running},
            parts=(None,) * session.settings.runs,
        )
        for precision in ("fp32", "bf16")
    ]  # fmt: skip
    rates = list(session.runs(cpu_threads()).measure(plans))
    for rate in rates:
        yield from rate.rows()
    single = {o.plan.name: o for o in outcomes if not o.plan.task["together"]}
    for width, height in SIZES:
        name = f"{DEFAULT_DETECTOR}/{width}x{height}"
        if name not in single:
            continue
        took, times = 1000 * single[name].seconds_an_item(), len(single[name].ours)
        for rate in rates:
            precision = str(rate.plan.task["precision"])
            least = 1000 * pnet_work((width, height)) / 1e9 * rate.seconds_an_item()
            end = "" if precision == "fp32" else f"/{precision}"
            runs = min(times, len(rate.ours))
            yield quantity(f"{name}/floor{end}", "ms", least, "facenet", took, runs=runs)
