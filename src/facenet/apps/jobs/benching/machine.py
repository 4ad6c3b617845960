"""The machine that figures come from, in plain values, and whether it had other things to do."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

from facenet import __version__
from facenet.models.home import cpu_name, cpu_threads
from facenet.products import best_products

PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "openvino", "faiss-cpu")
FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""Extensions of the processor that `cpu_name` tells."""
BUSY = 0.25
"""Processors that others may use before a note is due."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time. at: seconds. load: over the last minute, None where not told. busy:
    seconds that all processors have worked, own: those of them for this process and its ended
    children."""

    at: float
    load: float | None
    busy: float | None
    own: float


def now() -> Moment:
    """This moment."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    used = os.times()
    own = used.user + used.system + used.children_user + used.children_system
    return Moment(perf_counter(), load, _busy(), own)


def _busy() -> float | None:
    """Seconds of work of all processors, and of those that were taken away, since the start."""
    try:
        first = Path("/proc/stat").read_text().splitlines()[0].split()
        user, nice, system, _, _, irq, soft, steal = map(int, first[1:9])
    except (OSError, ValueError, IndexError):
        return None
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


def describe(before: Moment, after: Moment) -> dict[str, Any]:
    """Processor, threads, versions, and the load before and after.

    others: processors that were busy with something else on average, None where not told.
    """
    name = cpu_name()
    return {
        "processor": name,
        "features": [feature for feature in FEATURES if feature in name.split()],
        "cores": os.cpu_count(),
        "threads": cpu_threads(),
        "memory_gb": _memory(),
        "load": before.load,
        "load_after": after.load,
        "others": others(before, after),
        "system": platform.platform(),
        "python": platform.python_version(),
        "facenet": __version__,
        **{package: _version(package) for package in PACKAGES},
        "products": f"{type(best_products()).__name__}, {best_products().limit}",
    }


def others(before: Moment, after: Moment) -> float | None:
    """Processors that were busy with something else between two moments, on average."""
    if before.busy is None or after.busy is None or after.at <= before.at:
        return None
    spent = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, spent / (after.at - before.at))


def warnings(facts: Mapping[str, Any]) -> list[str]:
    """Sentences about a machine that was too busy to be measured on."""
    found = []
    if facts["load"] is not None and facts["load"] > facts["threads"]:
        found.append(
            f"The machine was busy before anything was measured: a load of {facts['load']:.1f} on "
            f"{facts['threads']} threads. Measure again when it is quiet: even ratios suffer."
        )
    if facts["others"] is not None and facts["others"] > BUSY:
        found.append(
            f"Other programs kept {facts['others']:.1f} processors busy while it was measured. "
            "Measure again when it is quiet: even ratios suffer."
        )
    return found


def _memory() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    except (AttributeError, ValueError, OSError):  # Windows
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
