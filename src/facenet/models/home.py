"""Where facenet keeps things, and how many threads it may use: the only reader of the environment.

FACENET_HOME  folder of models and remembered checks; default $XDG_DATA_HOME/facenet, else
              ~/.local/share/facenet (the XDG base directory specification).
FACENET_DEVICE  default device of the engines: cpu, cuda, coreml, gpu, npu.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from facenet.errors import SettingsError

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


@dataclass(frozen=True, slots=True)
class Environment:
    """home: folder of models. device: default device name."""

    home: Path
    device: str


def environment() -> Environment:
    """Places and devices from the environment variables, with their defaults.

    Raises SettingsError when no home is named and the user has none.
    """
    device = os.environ.get("FACENET_DEVICE") or "cpu"
    return Environment(_home().absolute(), device.lower())


def _home() -> Path:
    try:
        if named := os.environ.get("FACENET_HOME"):
            return Path(named).expanduser()
        data = Path(os.environ.get("XDG_DATA_HOME", ""))
        if data.is_absolute():  # the specification: a relative path is to be ignored
            return data / "facenet"
        return Path.home() / ".local" / "share" / "facenet"
    except RuntimeError as error:
        raise SettingsError(
            f"facenet needs a folder for its models and this user has no home ({error}). "
            "Set FACENET_HOME to a folder."
        ) from error


def cpu_threads() -> int:
    """Threads this process may keep busy: CPU affinity, cut by the container's CPU quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:
        allowed = os.cpu_count() or 1
    quota = cpu_quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def cpu_quota(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> float | None:
    """Cores that control groups grant, or None without a limit.

    cgroups: where they are mounted. membership: the list of this process's groups. Both versions
    are read (`cpu.max`, else `cpu.cfs_quota_us`); a group's parents limit it too.
    """
    limits = [_limit(group) for group in _groups(cgroups, membership)]
    return min((limit for limit in limits if limit is not None), default=None)


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Folders of the CPU groups of this process and of their parents, up to the mount."""
    places = {(cgroups, "/"), (cgroups / "cpu", "/")}
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if not controllers:
            places.add((cgroups, path))
        elif "cpu" in controllers.split(","):
            places.add((cgroups / "cpu", path))
    for mount, path in places:
        inside = Path(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield mount / part


def _limit(group: Path) -> float | None:
    try:
        if (group / "cpu.max").is_file():
            quota, period = (group / "cpu.max").read_text().split()
        else:
            quota = (group / "cpu.cfs_quota_us").read_text()
            period = (group / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError, ZeroDivisionError):  # "max", -1, no such file
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
