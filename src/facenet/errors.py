"""Every error facenet raises, as one tree.

FacenetError
├── InputError             what the caller handed in cannot be used
│   ├── ImageError         bytes or an array that are no usable picture
│   ├── NoFaceError        a picture without a face where one is needed
│   ├── SeveralFacesError  a picture with more faces than expected
│   ├── UnknownPersonError  nobody of that name or id is enrolled
│   └── SettingsError      an option or a value that does not exist
├── DataError              a folder or list of a data set that cannot be read
├── ModelError             a model that cannot be had or run
│   ├── UnknownModelError  a name that is in no catalogue
│   ├── ModelFileError     a file that is no model of the expected kind
│   ├── DigestError        a file whose SHA-256 is not the recorded one
│   ├── DownloadError      a source that did not deliver
│   ├── EngineError        a runtime or device that is missing or failed
│   └── ContractError      vectors of two different models were mixed
├── TrainingError          a run that cannot begin, go on or be published
├── StorageError           a disk that is full, read-only or in the way
│   └── GalleryError       a gallery that is missing, in use, of another version or damaged
│       └── DamagedGalleryError  one whose bytes are not what was written
└── MissingExtraError      an optional part that is not installed

A message says what was expected, what came, and the next step.
"""

from __future__ import annotations


class FacenetError(Exception):
    """The root: catch this to catch everything facenet raises on purpose."""


class InputError(FacenetError):
    """What the caller handed in cannot be used."""


class ImageError(InputError):
    """Bytes, a file or an array that are no usable picture."""


class NoFaceError(InputError):
    """A picture holds no face where one is needed."""


class SeveralFacesError(InputError):
    """A picture holds more faces than the one that was expected."""


class UnknownPersonError(InputError):
    """Nobody of that name or id is enrolled, or several people bear the name."""


class SettingsError(InputError):
    """An option, a name of a choice or a value that does not exist."""


class DataError(FacenetError):
    """A folder, list or file of a data set that cannot be read."""


class ModelError(FacenetError):
    """A model that cannot be had or cannot be run."""


class UnknownModelError(ModelError):
    """A model name that is neither in the catalogue nor imported."""


class ModelFileError(ModelError):
    """A file that is not a model of the expected kind."""


class DigestError(ModelError):
    """A file whose SHA-256 is not the one on record."""


class DownloadError(ModelError):
    """A source that did not deliver the file."""


class EngineError(ModelError):
    """A runtime or a device that is missing, or that failed."""


class ContractError(ModelError):
    """Vectors of two different models or preprocessings were mixed."""


class TrainingError(FacenetError):
    """A training run that cannot begin, go on or be published."""


class StorageError(FacenetError):
    """A disk that is full, read-only or otherwise in the way."""


class GalleryError(StorageError):
    """A gallery that is missing, in use, of another version, or damaged."""


class DamagedGalleryError(GalleryError):
    """A gallery whose bytes are not what was written: restore a backup."""


class MissingExtraError(FacenetError):
    """An optional part of facenet that is not installed."""
