"""Measuring the search of a gallery: the work behind `facenet bench search`.

A gallery of generated people is written to a file, and the index, its memory, its opening from a
snapshot and FAISS (https://github.com/facebookresearch/faiss, IndexFlatIP, fp32) are measured on
it, each in a process of its own. Then the answers are compared with every vector in fp32.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from facenet.apps.jobs import bruteforce, generated
from facenet.apps.jobs.benching import machine
from facenet.apps.jobs.benching.rows import quantity
from facenet.errors import InputError, SettingsError
from facenet.gallery.index import Index
from facenet.gallery.nearest import LEAST, Approximation, Recall
from facenet.gallery.snapshot import snapshot_path
from facenet.gallery.store import Store, open_store
from facenet.models.home import cpu_threads
from facenet.types import FloatArray
from facenet.vectors import unit

PEERS = {"faiss": "faiss-cpu"}
"""What a search can be measured against, with the package that holds it."""
TOP = 5
WARM = 3
CHECKED_ALONE = 1000
"""Queries at most that approximate search is checked with."""


@dataclass(frozen=True, slots=True)
class SearchBench:
    """What is measured. rows, dimension: of the generated gallery. queries: at once. rounds: runs;
    the median counts. check: queries whose answers are compared with fp32. against: "faiss" or
    "none". seed: of everything drawn. approximate: measure approximate search too, against the
    exact one. force: even for fewer rows than it is offered for."""

    rows: int = 1_000_000
    dimension: int = 512
    queries: int = 64
    rounds: int = 9
    check: int = 10_000
    against: str = "faiss"
    seed: int = 0
    approximate: bool = False
    force: bool = False

    def __post_init__(self) -> None:
        low = {"rows": 100, "dimension": 1, "queries": 1, "rounds": 1, "check": 0}
        for name, least in low.items():
            if getattr(self, name) < least:
                raise SettingsError(f"{name} should be {least} or more; got {getattr(self, name)}.")
        if self.against not in (*PEERS, "none"):
            raise SettingsError(
                f"against should be {', '.join(PEERS)} or none; got {self.against:.40}."
            )
        if self.approximate:
            self.approximation.require_enough(self.rows)

    @property
    def approximation(self) -> Approximation:
        """How approximate search is made."""
        return Approximation(least=0 if self.force else LEAST, seed=self.seed)


def measure_search(
    settings: SearchBench, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Results and machine, as `facenet bench` prints them; progress: (rows written, rows).

    The gallery lies in the system's folder for temporary files, 2.6 KB for each row of 512 values,
    and is removed at the end. Raises StorageError when there is no room for it.
    """
    with tempfile.TemporaryDirectory(prefix="facenet-bench-") as folder:
        place = Path(folder) / "gallery.db"
        store = generated.fill(place, settings.rows, settings.dimension, settings.seed, progress)
        try:
            return _measured(place, store, settings)
        finally:
            store.close()


def _measured(place: Path, store: Store, settings: SearchBench) -> dict[str, Any]:
    before = machine.now()
    rebuild = _child("rebuild", place, settings)
    ours = _child("search", place, settings)
    peer = {} if settings.against == "none" else _child(settings.against, place, settings)
    name = f"search/{settings.rows}x{settings.dimension}"
    label = settings.against if "1query" in peer else None
    results = [
        _timed(f"{name}/1query", ours["1query"], label, peer.get("1query")),
        _timed(f"{name}/{settings.queries}queries", ours["batch"], label, peer.get("batch")),
        quantity(f"{name}/throughput_of_batch", "times one by one", ours["throughput"]),
        quantity(f"{name}/memory", "GB", ours["memory"], label, peer.get("memory")),
        quantity(f"{name}/memory_of_arrays", "GB", ours["arrays"]),
        quantity(f"{name}/open_from_snapshot", "s", ours["open"]),
        quantity(f"{name}/build_from_store", "s", rebuild["open"]),
    ]
    if settings.check:
        right, ties = _recall(place, store, settings)
        results.append(quantity(f"{name}/recall", f"share of {settings.check} queries", right))
        results.append(quantity(f"{name}/recall_with_ties", "queries with equal answers", ties))
    if settings.approximate:
        results += _approximate(f"{name}/approximate", _child("approximate", place, settings), ours)
    notes = [peer["missing"]] if "missing" in peer else []
    facts = machine.describe(before, machine.now())
    return {"results": results, "machine": facts, "notes": notes}


def _approximate(
    name: str, found: Mapping[str, Any], exact: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Results of approximate search; its peer is the exact one."""
    recall = Recall(**found["recall"])
    rows = [
        _timed(f"{name}/1query", found["1query"], "exact", exact["1query"]),
        _timed(f"{name}/batch", found["batch"], "exact", exact["batch"]),
        quantity(f"{name}/memory", "GB", found["memory"], "exact", exact["memory"]),
        quantity(f"{name}/open_from_snapshot", "s", found["open"], "exact", exact["open"]),
        quantity(f"{name}/cells_looked_at", f"of {recall.cells}", recall.probed),
        quantity(f"{name}/recall@1", f"share of {recall.queries} changed faces", recall.at_1),
        quantity(f"{name}/recall@5", f"share of {recall.queries} changed faces", recall.at_5),
    ]
    if found["checked"]:
        for at, share in zip(("recall@1", "recall@5"), found["checked"], strict=True):
            rows.append(quantity(f"{name}/{at}_of_check", "share of the check's queries", share))
    return rows


def child(what: str, place: str, options: str) -> None:
    """One measurement in this process, printed as JSON: the door of the processes started here."""
    settings = SearchBench(**json.loads(options))
    parts: Mapping[str, Callable[[Path, SearchBench], dict[str, Any]]] = {
        "rebuild": _measure_opening,
        "search": _measure_index,
        "approximate": _measure_approximate,
        "faiss": _measure_faiss,
    }
    print(json.dumps(parts[what](Path(place), settings)))


def _child(what: str, place: Path, settings: SearchBench) -> dict[str, Any]:
    options = json.dumps({name: getattr(settings, name) for name in SearchBench.__slots__})
    code = "import sys; from facenet.apps.jobs.searchbench import child; child(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, what, str(place), options],
        stdout=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise InputError(
            f"The measurement of {what} should end by itself; it ended with {done.returncode}. "
            "Perhaps there is too little memory: ask for fewer rows."
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measure_opening(place: Path, settings: SearchBench) -> dict[str, Any]:
    """Seconds to make the index from the store; its snapshot is left for the next."""
    with _opened(place) as store:
        start = perf_counter()
        index = Index(store, generated.CONTRACT, snapshot=_snapshot(place), threads=cpu_threads())
        index.refresh()
        seconds = perf_counter() - start
        index.save()
    return {"open": seconds}


def _measure_index(place: Path, settings: SearchBench) -> dict[str, Any]:
    """Opening, memory and speed, from a snapshot that the system does not hold in memory."""
    _forget_pages(_snapshot(place))
    with _opened(place) as store:
        start = perf_counter()
        index = Index(store, generated.CONTRACT, snapshot=_snapshot(place), threads=cpu_threads())
        index.refresh()
        opened = perf_counter() - start
        queries = draw_queries(store, settings, max(settings.queries, settings.rounds))
        clocks = _clocks(lambda rows: index.search(rows, TOP), queries, settings)
        one_by_one = sum(clocks["1query"][: settings.queries])
        return {
            **clocks,
            "open": opened,
            "arrays": index.bytes_held / 1e9,
            "memory": _memory(),
            "throughput": one_by_one / float(np.median(clocks["batch"])),
        }


def _measure_approximate(place: Path, settings: SearchBench) -> dict[str, Any]:
    """The same of approximate search, with the recall that it was made with and that of a check
    with other queries: faces of people here, strangers, and copies."""
    _forget_pages(_snapshot(place))
    with _opened(place) as store:
        start = perf_counter()
        index = Index(
            store, generated.CONTRACT, snapshot=_snapshot(place), threads=cpu_threads(),
            approximate=settings.approximation,
        )  # fmt: skip
        index.refresh()
        opened = perf_counter() - start
        queries = draw_queries(store, settings, max(settings.queries, settings.rounds))
        clocks = _clocks(lambda rows: index.search(rows, TOP), queries, settings)
        found = {**clocks, "open": opened, "memory": _memory(), "recall": asdict(_known(index))}
        checked = _shares(store, place, index, settings) if settings.check else None
    return {**found, "checked": checked}


def _known(index: Index) -> Recall:
    recall = index.recall
    if recall is None:
        raise InputError("The index should be approximate; it is exact. Report this as a fault.")
    return recall


def _shares(store: Store, place: Path, index: Index, settings: SearchBench) -> tuple[float, float]:
    """Of the first answers of exact search, and of the first five, what an index finds.

    Queries are asked one by one: together they may be searched exactly.
    """
    exact = Index(store, generated.CONTRACT, snapshot=_snapshot(place), threads=cpu_threads())
    queries = draw_queries(store, settings, min(settings.check, CHECKED_ALONE))
    first = five = wanted = 0
    for row, right in zip(queries, exact.search(queries, TOP), strict=True):
        hits = index.search(row[None], TOP)[0]
        first += hits[:1] == right[:1]
        five += len(set(hits) & set(right))
        wanted += len(right)
    return first / len(queries), five / wanted


def _measure_faiss(place: Path, settings: SearchBench) -> dict[str, Any]:
    try:
        import faiss
    except ImportError:
        return {"missing": f"{PEERS['faiss']} is not installed, so it was not measured."}
    faiss.omp_set_num_threads(cpu_threads())
    peer = faiss.IndexFlatIP(settings.dimension)
    with _opened(place) as store:
        for block in generated.blocks(store):
            peer.add(block.rows)
        queries = draw_queries(store, settings, max(settings.queries, settings.rounds))
    clocks = _clocks(lambda rows: peer.search(rows, TOP), queries, settings)
    return {**clocks, "memory": _memory()}


def _clocks(
    search: Callable[[FloatArray], object], queries: FloatArray, settings: SearchBench
) -> dict[str, list[float]]:
    """Milliseconds of searches: of each query by itself, and of all at once."""
    for row in queries[:WARM]:
        search(row[None])
    one = [_clock(search, row[None]) for row in queries]
    many = queries[: settings.queries]
    search(many)
    return {"1query": one, "batch": [_clock(search, many) for _ in range(settings.rounds)]}


def _clock(search: Callable[[FloatArray], object], queries: FloatArray) -> float:
    start = perf_counter()
    search(queries)
    return 1000 * (perf_counter() - start)


def draw_queries(store: Store, settings: SearchBench, count: int) -> FloatArray:
    """Unit queries float32 (count, d): other pictures of people of the gallery, strangers, and
    enrolled vectors themselves, among which there are equal and nearly equal ones."""
    rng = np.random.default_rng([settings.seed, 1])
    faces = rng.integers(1, settings.rows + 1, count)
    faces[::4] = generated.copied(settings.rows, count)[::4]
    with store.read() as view:
        unique, back = np.unique(faces, return_inverse=True)
        rows = view.vectors(generated.CONTRACT, ids=unique.tolist()).rows[back]
    other = rng.standard_normal(rows.shape) / np.sqrt(settings.dimension)
    mixed = rows + other
    mixed[1::4] = other[1::4]
    mixed[::4] = rows[::4]
    return unit(mixed)


def _recall(place: Path, store: Store, settings: SearchBench) -> tuple[float, int]:
    """Share of queries whose whole answer is that of fp32 brute force, ids, order and values; and
    how many of them hold two equal similarities."""
    queries = draw_queries(store, settings, settings.check)
    index = Index(store, generated.CONTRACT, snapshot=_snapshot(place), threads=cpu_threads())
    truth = bruteforce.search(generated.blocks(store), queries, TOP)
    right = ties = 0
    for start in range(0, len(queries), 1000):
        for hits, wanted in zip(
            index.search(queries[start : start + 1000], TOP), truth[start : start + 1000],
            strict=True,
        ):  # fmt: skip
            found = [(hit.person, hit.face, hit.similarity) for hit in hits]
            right += found == wanted
            ties += len({similarity for _, _, similarity in found}) < len(found)
    return right / len(queries), ties


@contextmanager
def _opened(place: Path) -> Iterator[Store]:
    store = open_store(place)
    try:
        yield store
    finally:
        store.close()


def _snapshot(place: Path) -> Path:
    return snapshot_path(place, generated.CONTRACT)


def _forget_pages(path: Path) -> None:
    """Ask the system to read a file from the disk the next time, where it can be asked."""
    with suppress(AttributeError, OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _memory() -> float | None:
    """The most memory that this process has had, GB; None where only Linux would tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e9


def _timed(
    name: str, clocks: Sequence[float], peer: str | None, theirs: Sequence[float] | None
) -> dict[str, Any]:
    row = quantity(name, "ms", float(np.median(clocks)), peer, _median(theirs))
    return {**row, "p95": float(np.percentile(clocks, 95)), "runs": len(clocks)}


def _median(clocks: Sequence[float] | None) -> float | None:
    return None if clocks is None else float(np.median(clocks))
