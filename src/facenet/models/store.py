"""The model store: files on this machine, written once, checked every time.

Built-in models lie in the package. Others lie in FACENET_HOME/models/NAME, beside `digests.json`
with the SHA-256 of each file. Writing is temp -> hash -> replace under a lock; the way of
UniFace's and nanochat's downloaders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from facenet.errors import ModelError, ModelFileError, StorageError
from facenet.models import sources
from facenet.models.card import ModelCard
from facenet.models.catalog import models_folder, package_folder
from facenet.models.home import environment
from facenet.models.sources import Progress, quiet

RECORD = "digests.json"


class ModelStore:
    """The models of one FACENET_HOME (by default the environment's)."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = home or environment().home

    def folder(self, card: ModelCard) -> Path:
        """Where the files of a model lie."""
        if card.source.type == "builtin":
            return package_folder() / "weights"
        return models_folder(self.home) / card.name

    def installed(self, card: ModelCard) -> bool:
        """Whether all files of a model are here (their contents are checked by `files`)."""
        digests = self.digests(card)
        return bool(digests) and all((self.folder(card) / name).is_file() for name in digests)

    def digests(self, card: ModelCard) -> dict[str, str]:
        """Recorded SHA-256 per file; empty when the model was never fetched."""
        if card.source.type == "builtin":
            return {file.path: file.sha256 for file in card.files}
        record = self.folder(card) / RECORD
        if not record.is_file():
            return {}
        try:
            data = json.loads(record.read_text("utf-8"))
            return {str(name): str(digest) for name, digest in data.items()}
        except (ValueError, AttributeError) as error:
            raise ModelFileError(
                f"{record} is damaged. Remove the folder {record.parent} and fetch the model again."
            ) from error

    def files(self, card: ModelCard) -> dict[str, Path]:
        """Checked paths of a model's files, by file name without its ending.

        Raises ModelError when it was not fetched yet, DigestError when a byte has changed.
        """
        if not self.installed(card):
            raise ModelError(
                f"The model {card.name} is not on this machine yet. Fetch it with "
                f"`facenet models pull {card.name}` ({card.source.bytes / 1e6:.0f} MB)."
            )
        folder = self.folder(card)
        for name, digest in self.digests(card).items():
            sources.check_digest(folder / name, digest)
        return {Path(name).stem: folder / name for name in self.digests(card)}

    def pull(
        self, card: ModelCard, progress: Progress = quiet, *, given: Path | None = None
    ) -> bool:
        """Fetch a model unless it is here and whole; True when it was fetched.

        given: the source file or its archive, when the user has it already.
        """
        if card.source.type == "builtin":
            self.files(card)
            return False
        with self.locked(card.name):
            if self._whole(card):
                return False
            folder = self.folder(card)
            source = folder / "source.bin"
            if given is None:
                sources.fetch(card, source, progress)
            else:
                sources.take(card, given, source)
            self._install(card, source, progress)
        return True

    def record(self, card: ModelCard, names: list[str]) -> None:
        """Write the SHA-256 of files that were put in place; the last step of an installation."""
        folder = self.folder(card)
        digests = {name: sources.sha256_of(folder / name) for name in names}
        write_text(folder / RECORD, json.dumps(digests, indent=1))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a model: a second process waits, then finds the work done."""
        path = models_folder(self.home) / f"{name}.lock"
        with sources.storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        with FileLock(path):
            yield

    def _whole(self, card: ModelCard) -> bool:
        if not self.installed(card):
            return False
        folder = self.folder(card)
        return all(
            sources.sha256_of(folder / name) == digest
            for name, digest in self.digests(card).items()
        )

    def _install(self, card: ModelCard, source: Path, progress: Progress) -> None:
        from facenet.models.selfcheck import check_answer

        target = self.folder(card) / card.files[0].path
        converted = target.with_name(target.name + ".new")
        if card.source.convert == "tensorflow":
            from facenet.models.convert.tensorflow import convert_frozen_graph

            progress(f"convert {card.name} to ONNX", 0, 1)
            with sources.storage_errors(target):
                converted.write_bytes(convert_frozen_graph(source.read_bytes()))
            source.unlink()
            progress(f"convert {card.name} to ONNX", 1, 1)
        else:
            os.replace(source, converted)
        check_answer(card, {target.stem: converted})
        os.replace(converted, target)
        self.record(card, [target.name])


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all. Raises StorageError."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, "utf-8")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StorageError(f"Cannot write {path}: {error.strerror or error}.") from error
