"""One file of a source distribution (sdist), fetched with pip and never run.

To learn an sdist's name and version, pip calls the build backend, and setuptools then runs the
sdist's `setup.py`: somebody else's code. Here pip gets the SHA-256 of the whole sdist from the card
and opens no other archive, and in place of setuptools it finds a stand-in of a few lines that
reads the two facts from `PKG-INFO`. So this is for sdists that are built with setuptools, as all
are that have no `pyproject.toml` (PEP 517).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from facenet.errors import DownloadError, ModelFileError, StorageError
from facenet.models import disk
from facenet.models.card import Source

GZIP = b"\x1f\x8b"
"""First bytes of a gzip file, as sdists are."""

ADVICE = "Get the archive again."

STAND_IN = '''\
"""Stands in for setuptools: name and version of an sdist from its PKG-INFO, nothing is run."""

import email
import os
import sys

__legacy__ = sys.modules[__name__]


def get_requires_for_build_wheel(config_settings=None):
    return []


def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    with open("PKG-INFO", "rb") as file:
        facts = email.message_from_binary_file(file)
    name, version = facts["Name"], facts["Version"]
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    os.mkdir(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w", encoding="utf-8") as out:
        out.write(f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return folder
'''


def pip_arguments(source: Source, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Arguments of `pip download` for an sdist, and the environment it needs.

    folder: gets a list with the one requirement and its SHA-256, and the stand-in.
    Raises StorageError, and DownloadError when Python would not take the stand-in.
    """
    folder = folder.absolute()  # pip runs the backend in a folder of its own
    requirements, package = folder / "sdist.txt", folder / "stand-in" / "setuptools"
    disk.write_new(requirements, f"{source.requirement} --hash=sha256:{source.archive}\n".encode())
    disk.write_new(package / "__init__.py", b"")
    disk.write_new(package / "build_meta.py", STAND_IN.encode())
    arguments = ["--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PIP_USE_PEP517": "1",  # before pip 25.3 `setup.py` is run without a backend otherwise
    }
    _require_stand_in(package, environment)
    return [*arguments, "--requirement", str(requirements)], environment


def _require_stand_in(package: Path, environment: dict[str, str]) -> None:
    """Raises DownloadError unless a new Python finds the stand-in before setuptools itself."""
    command = [sys.executable, "-c", "import setuptools; print(setuptools.__file__)"]
    answer = subprocess.run(
        command, env=environment, cwd=package, capture_output=True, text=True, check=False
    )
    if answer.stdout.strip() != str(package / "__init__.py"):
        raise DownloadError(
            f"An sdist is fetched only with a stand-in for setuptools, so that nothing of it runs; "
            f"Python does not take the one in {package.parent}. Set FACENET_HOME to a folder "
            f"without {os.pathsep!r} in its name, or get the sdist elsewhere and give it with "
            "`--file`."
        )


def is_gzip(path: Path) -> bool:
    """Whether a file begins like an sdist. Raises StorageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(GZIP)) == GZIP
    except OSError as error:
        raise StorageError(f"Cannot read {path}: {error.strerror or error}.") from error


def read_member(archive: Path, source: Source, use: Callable[[IO[bytes], str], None]) -> None:
    """Hand the member that `source` names to `use`, as a stream and what a message calls it.

    An archive with another SHA-256 than `source.archive` is not opened.
    Raises DigestError, ModelFileError, StorageError and what `use` raises.
    """
    disk.check_digest(archive, str(source.archive), ADVICE)
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for info in tar:
                stream = tar.extractfile(info) if info.name == source.member else None
                if stream is not None:
                    use(stream, f"{source.member} in {archive.name}")
                    return
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ModelFileError(f"{archive.name} is a damaged archive: {error}. {ADVICE}") from error
    raise ModelFileError(f"{archive.name} should hold {source.member}; it does not.")
