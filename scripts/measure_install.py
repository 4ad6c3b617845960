"""Print what `pip install "facenet[openvino]"` costs: the size of its wheels, and the seconds to
the first result with the wheels at hand.

The wheels and the environment go to a temporary folder; nothing else is touched.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from time import perf_counter

ROOT = Path(__file__).resolve().parent.parent
PIP = ["-m", "pip", "--quiet", "--disable-pip-version-check"]


def download(folder: Path) -> list[Path]:
    """The wheels of the project and of everything it needs, the largest first."""
    command = [sys.executable, *PIP, "wheel", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*command, "-w", str(folder), f"{ROOT}[openvino]"], check=True)
    return sorted(folder.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)


def seconds(command: list[str], environment: dict[str, str] | None = None) -> float:
    """How long a command takes; it must succeed."""
    start = perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment, cwd=ROOT)
    return perf_counter() - start


def first_result(wheels: Path, folder: Path) -> list[tuple[str, float]]:
    """Seconds to install from the wheels, then of the first and the second identification."""
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv" / "bin" / "python")
    install = [python, *PIP, "install", "--no-index", "--find-links", str(wheels)]
    identify = [python, "-m", "facenet", "identify", "examples/known", "examples/photos"]
    environment = {**os.environ, "FACENET_HOME": str(folder / "home")}
    return [
        ("install from the wheels", seconds([*install, "facenet[openvino]"])),
        ("first identification, engines checked", seconds(identify, environment)),
        ("second identification", seconds(identify, environment)),
    ]


def main() -> None:
    """Download, add up, install, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels = download(folder / "wheels")
        for wheel in wheels:
            print(f"{wheel.stat().st_size / 1e6:8.1f} MB  {wheel.name}")
        total = sum(wheel.stat().st_size for wheel in wheels)
        print(f"{total / 1e6:8.1f} MB  all {len(wheels)} wheels")
        for what, spent in first_result(folder / "wheels", folder):
            print(f"{spent:8.1f} s   {what}")


if __name__ == "__main__":
    main()
