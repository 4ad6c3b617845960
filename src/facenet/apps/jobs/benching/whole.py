"""Benchmarks by name, and all of them in one: the work behind `facenet bench`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from facenet.apps.jobs.benching import machine
from facenet.apps.jobs.benching.detection import detect
from facenet.apps.jobs.benching.embedding import embed
from facenet.apps.jobs.benching.filming import video
from facenet.apps.jobs.benching.latency import latency
from facenet.apps.jobs.benching.link import Opening
from facenet.apps.jobs.benching.pipelines import pipeline
from facenet.apps.jobs.benching.rows import Row
from facenet.apps.jobs.benching.runs import Ledger, require_rows
from facenet.apps.jobs.benching.session import Session
from facenet.apps.jobs.benching.settings import BenchSettings
from facenet.apps.jobs.benching.training import train
from facenet.apps.jobs.searchbench import SearchBench, measure_search
from facenet.errors import FacenetError
from facenet.models.store import ModelStore

ROWS, QUICK_ROWS, QUICK_CHECK = 100_000, 10_000, 100
"""Faces of the gallery that is searched along with the rest, and queries of its check."""
FAISS = "faiss"
HELD = (
    "Instructions were held to {}, as on an older processor: OpenVINO keeps to them, ONNX Runtime "
    "cannot. bf16 and int8 are left out."
)
UNSEEN = "A search looks at no pictures and needs no peer's Python: {} was not looked at."


def search(session: Session) -> Iterator[Row]:
    """Rows of the search in a small generated gallery; `facenet bench search` has a large one."""
    named = session.settings.against
    found = measure_search(
        SearchBench(
            rows=QUICK_ROWS if session.settings.quick else ROWS,
            check=QUICK_CHECK if session.settings.quick else 1000,
            against=FAISS if FAISS in named or not named else "none",
        )
    )
    session.ledger.asked.add(FAISS)
    for text in found["notes"]:
        session.note(text)
    yield from found["results"]


def measure_search_alone(
    settings: BenchSettings,
    options: Mapping[str, Any],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """`facenet bench search`: results, machine and notes.

    settings: `quick` and `against` of it count, with "none" for no peer; by default FAISS is the
    peer. options: the other fields of `SearchBench`. progress: (rows written, rows).
    """
    chosen = dict(options)
    if settings.quick:
        chosen["rows"] = min(chosen["rows"], QUICK_ROWS)
        chosen["check"] = min(chosen["check"], QUICK_CHECK)
        chosen["rounds"] = min(chosen["rounds"], 5)
    named = settings.against
    peer = FAISS if FAISS in named or not named else "none"
    found = measure_search(SearchBench(**chosen, against=peer), progress)
    ignored = [name for name in named if name not in (FAISS, "none")]
    notes = [f"{name} was not measured: it has no search to compare with." for name in ignored]
    unseen = [name for name in ("video", "images", "peer_python") if getattr(settings, name)]
    notes += [UNSEEN.format(f"--{name.replace('_', '-')}") for name in unseen]
    return {**found, "notes": found["notes"] + notes + machine.warnings(found["machine"])}


STAGES: Mapping[str, Callable[[Session], Iterator[Row]]] = {
    "detect": detect,
    "embed": embed,
    "pipeline": pipeline,
    "latency": latency,
    "search": search,
    "train": train,
    "video": video,
}
"""What can be measured, by name; the order in which all are."""


def measure(
    stages: Sequence[str],
    settings: BenchSettings,
    *,
    progress: Callable[[str], None] = lambda name: None,
    opening: Opening | None = None,
) -> dict[str, Any]:
    """Results, machine and notes of some stages, as `facenet bench` prints them.

    progress: is told of each finished measurement. opening: opens facenet and the peers, by
    default as processes. A stage that cannot be measured is a note; when none can, its error is
    raised: InputError, DataError, ModelError, StorageError.
    """
    ledger, rows, before = Ledger(progress), list[Row](), machine.now()
    if settings.instructions != "auto":
        ledger.note(HELD.format(settings.instructions))
    with tempfile.TemporaryDirectory(prefix="facenet-bench-") as folder:
        opened = opening or settings.open
        session = Session(settings, opened, Path(folder), ledger, ModelStore())
        for name in stages:
            try:
                rows += STAGES[name](session)
            except FacenetError as error:
                if len(stages) == 1:
                    raise
                ledger.note(f"{name} was not measured: {error}")
        session.tell_unasked()
    require_rows(rows, ledger.notes)
    facts = {**machine.describe(before, machine.now()), **session.running, "peers": ledger.versions}
    return {"results": rows, "machine": facts, "notes": ledger.notes + machine.warnings(facts)}
