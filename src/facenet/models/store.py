"""The model store: files on this machine, written once, checked every time.

Built-in models lie in the package. Others lie in FACENET_HOME/models/NAME, beside `digests.json`
with the SHA-256 of the source and of each file. Writing is temp -> hash -> replace under a lock;
the way of UniFace's and nanochat's downloaders.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from facenet.errors import ModelError, StorageError
from facenet.models import disk, sources
from facenet.models.card import ModelCard
from facenet.models.catalog import models_folder, package_folder
from facenet.models.disk import write_text as write_text
from facenet.models.download import Progress, quiet
from facenet.models.home import environment

RECORD = "digests.json"

Converter = Callable[[bytes], bytes]
"""From a published file to an ONNX file."""


class ModelStore:
    """The models of one FACENET_HOME (by default the environment's)."""

    def __init__(self, home: Path | None = None) -> None:
        self.home = Path(home) if home else environment().home

    def folder(self, card: ModelCard) -> Path:
        """Where the files of a model lie."""
        if card.source.type == "builtin":
            return package_folder() / "weights"
        return models_folder(self.home) / card.name

    def installed(self, card: ModelCard) -> bool:
        """Whether all files of a model are here (their contents are checked by `files`)."""
        folder, digests = self.folder(card), self.digests(card)
        return bool(digests) and all(os.path.isfile(folder / name) for name in digests)

    def digests(self, card: ModelCard) -> dict[str, str]:
        """SHA-256 per file, from the card or, for files made on this machine, from the record.

        Empty when the model was not fetched, or was made from another source file than the
        card's, or its record is damaged.
        """
        if card.source.type == "builtin":
            return {file.path: file.sha256 for file in card.files}
        record = self.folder(card) / RECORD
        try:
            data = json.loads(record.read_text("utf-8"))
            if data["source"] != card.source.sha256:
                return {}
            return {file.path: file.sha256 or str(data["files"][file.path]) for file in card.files}
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as error:
            raise StorageError(f"Cannot read {record}: {error.strerror or error}.") from error
        except (ValueError, TypeError, KeyError):
            return {}

    def files(self, card: ModelCard) -> dict[str, Path]:
        """Checked paths of a model's files, by file name without its ending.

        Raises ModelError when it was not fetched yet, DigestError when a byte has changed.
        """
        if not self.installed(card):
            raise ModelError(
                f"The model {card.name} is not on this machine yet, or not whole. {_advice(card)}"
            )
        folder, digests = self.folder(card), self.digests(card)
        for name, digest in digests.items():
            disk.check_digest(folder / name, digest, _advice(card))
        return {Path(name).stem: folder / name for name in digests}

    def pull(
        self, card: ModelCard, progress: Progress = quiet, *, given: Path | None = None
    ) -> bool:
        """Fetch a model unless it is here and whole; True when it was fetched.

        given: the source file or its archive, when the user has it already.
        Raises DownloadError, DigestError, ModelFileError, StorageError, MissingExtraError when
        its file cannot be converted here, and EngineError when the model does not give the answer
        on its card.
        """
        if card.source.type == "builtin":
            self.files(card)
            return False
        if self._whole(card):
            return False
        with self.locked(card.name):
            if self._whole(card):
                return False
            convert = _converter(card)  # before anything is fetched in vain
            source = self.folder(card) / "source.bin"
            if given is not None:
                sources.take(card, given, source)
            elif not (source.is_file() and disk.sha256_of(source) == card.source.sha256):
                sources.fetch(card, source, progress)
            self._install(card, source, convert, progress)
        return True

    def put(self, card: ModelCard, made: Mapping[str, Path]) -> None:
        """Move finished files to their places, and record their SHA-256; to be called `locked`.

        made: file name on the card -> where the file is now.
        """
        digests = {name: disk.sha256_of(path) for name, path in made.items()}
        for name, path in made.items():
            disk.replace(path, self.folder(card) / name)
        record = {"source": card.source.sha256, "files": digests}
        write_text(self.folder(card) / RECORD, json.dumps(record, indent=1))

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Hold the lock of a model: a second process waits, then finds the work done."""
        path = models_folder(self.home) / f"{name}.lock"
        disk.make_folder(path.parent)
        lock = FileLock(path)
        with disk.storage_errors(path):
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _whole(self, card: ModelCard) -> bool:
        folder = self.folder(card)
        return self.installed(card) and all(
            disk.sha256_of(folder / name) == digest for name, digest in self.digests(card).items()
        )

    def _install(
        self, card: ModelCard, source: Path, convert: Converter | None, progress: Progress
    ) -> None:
        """From the source file to the model's file, which must give the answer on the card."""
        from facenet.models.selfcheck import check_answer

        name = card.files[0].path
        made = source.with_name(f"{name}.new")
        try:
            if convert is None:
                disk.replace(source, made)
            else:
                label = f"convert {card.name} to ONNX"
                progress(label, 0, card.source.bytes)
                disk.write_new(made, convert(source.read_bytes()))
                progress(label, card.source.bytes, card.source.bytes)
            check_answer(card, {Path(name).stem: made})
            self.put(card, {name: made})
        finally:
            disk.remove(made)
            disk.remove(source)


def _converter(card: ModelCard) -> Converter | None:
    """What makes ONNX of a card's source file; None where it is ONNX already.

    Raises MissingExtraError when a package is missing that the conversion needs.
    """
    if card.source.convert == "tensorflow":
        from facenet.models.convert.tensorflow import convert_frozen_graph

        return convert_frozen_graph
    if card.source.convert == "keras":
        from facenet.models.convert.keras import convert_keras, load_h5py

        load_h5py()
        return convert_keras
    return None


def _advice(card: ModelCard) -> str:
    """How to get a model that is not here or not whole."""
    if card.source.type == "builtin":
        return "It comes with facenet: install facenet again."
    if card.source.type == "file":
        return f"Import it again with `facenet models import` ({card.source.origin})."
    megabytes = (card.source.bytes or card.bytes) / 1e6
    size = f"{max(megabytes, 0.1):.1f} MB" if megabytes < 1 else f"{megabytes:.0f} MB"
    return f"Fetch it with `facenet models pull {card.name}` ({size})."
