"""Pictures: the only place that opens an image."""

from facenet.images.decode import (
    LIMITS,
    ImageLimits,
    ImageSource,
    decode,
    find_images,
    is_image_name,
    is_many,
    load_image,
    load_images,
    load_with_digest,
)
from facenet.images.header import SUFFIXES, Header, read_header

__all__ = [
    "LIMITS",
    "SUFFIXES",
    "Header",
    "ImageLimits",
    "ImageSource",
    "decode",
    "find_images",
    "is_image_name",
    "is_many",
    "load_image",
    "load_images",
    "load_with_digest",
    "read_header",
]
