"""Print the size of all wheels that `pip install facenet[openvino]` downloads, largest first.

The wheels go to a temporary folder; nothing is installed.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def download(folder: Path) -> list[Path]:
    """The wheels of the project and of everything it needs."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    command += ["-c", str(ROOT / "constraints.txt"), "-w", str(folder), f"{ROOT}[openvino]"]
    subprocess.run(command, check=True)
    return sorted(folder.glob("*.whl"), key=lambda wheel: -wheel.stat().st_size)


def main() -> None:
    """Download, add up, print."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = download(Path(folder))
        for wheel in wheels:
            print(f"{wheel.stat().st_size / 1e6:8.1f} MB  {wheel.name}")
        total = sum(wheel.stat().st_size for wheel in wheels)
        print(f"{total / 1e6:8.1f} MB  all {len(wheels)} wheels")


if __name__ == "__main__":
    main()
