"""Where facenet keeps things, and how many threads it may use: the only reader of the environment.

FACENET_HOME  folder of models and remembered checks; default $XDG_DATA_HOME/facenet, else
              ~/.local/share/facenet (the XDG base directory specification).
FACENET_DEVICE  default device of the engines: cpu, cuda, coreml, gpu, npu.
"""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Environment:
    """home: folder of models. device: default device name."""

    home: Path
    device: str


def environment() -> Environment:
    """Places and devices from the environment variables, with their defaults."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    home = Path(os.environ.get("FACENET_HOME") or Path(data) / "facenet").expanduser()
    return Environment(home, os.environ.get("FACENET_DEVICE", "cpu").lower())


def cpu_threads() -> int:
    """Threads this process may keep busy: CPU affinity, cut by the container's CPU quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    quota = cpu_quota(Path("/sys/fs/cgroup"))
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(cgroup: Path) -> float | None:
    """Cores that control groups grant (version 2, then 1), or None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        used = int((cgroup / "cpu" / "cpu.cfs_quota_us").read_text())
        period_us = int((cgroup / "cpu" / "cpu.cfs_period_us").read_text())
        return used / period_us if used > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


def cpu_name() -> str:
    """Name of the processor with its numeric extensions, for the memory of checks."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    flags = set(facts.get("flags", "").split())
    present = [flag for flag in wanted if flag in flags]
    return " ".join([facts.get("model name", platform.machine()), *present])
