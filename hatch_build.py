"""Builds `kernels.c` when facenet is installed, where there is a C compiler.

Without one, or when it fails, facenet is installed all the same, works in NumPy, and
`facenet doctor` says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("src/facenet/faces/kernels.c")
LIBRARY = SOURCE.with_suffix(".lib")
FLAGS = ["-O3", "-shared", "-fPIC", "-ffp-contract=off"]


def compilers() -> list[str]:
    """Compilers that may be here, the one Python was built with first."""
    own = str(sysconfig.get_config_var("CC") or "").split()
    return [*own[:1], "cc", "gcc", "clang"]


def digest(folder: Path) -> str:
    """What the sources in a folder are; `facenet.faces.kernels` compares it with its own."""
    parts = (path.read_bytes() for path in sorted(folder.glob("*.c")))
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]


def build(source: Path, library: Path, tried: Sequence[str]) -> bool:
    """Build a library with the first compiler that can; False where none can."""
    part = library.with_suffix(".part")
    named = f'-DSOURCE="{digest(source.parent)}"'
    for compiler in filter(shutil.which, tried):
        command = [compiler, *FLAGS, named, "-o", str(part), str(source)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            os.replace(part, library)
            return True
    return False


class Hook(BuildHookInterface[Any]):
    """What hatchling calls before it makes a wheel or an editable installation."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the library and put it into the wheel."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        if not build(root / SOURCE, root / LIBRARY, compilers()):
            self.app.display_warning("No C compiler: facenet will find faces more slowly.")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        build_data["artifacts"].append(str(LIBRARY))
