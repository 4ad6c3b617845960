"""Pictures: the only place that opens an image."""

from facenet.images.decode import (
    LIMITS,
    REDUCTIONS,
    ImageLimits,
    ImageSource,
    OpenedImage,
    decode,
    find_images,
    is_image_name,
    is_many,
    load_image,
    load_images,
    load_with_digest,
    open_image,
)
from facenet.images.footage import VideoFacts
from facenet.images.header import SUFFIXES, Header, read_header
from facenet.images.reading import SourceFacts, SourceSettings
from facenet.images.source import Source, open_source
from facenet.images.video import VIDEO_SUFFIXES, Frame, is_video_name, read_video, video_facts

__all__ = [
    "LIMITS",
    "REDUCTIONS",
    "SUFFIXES",
    "VIDEO_SUFFIXES",
    "Frame",
    "Header",
    "ImageLimits",
    "ImageSource",
    "OpenedImage",
    "Source",
    "SourceFacts",
    "SourceSettings",
    "VideoFacts",
    "decode",
    "find_images",
    "is_image_name",
    "is_many",
    "is_video_name",
    "load_image",
    "load_images",
    "load_with_digest",
    "open_image",
    "open_source",
    "read_header",
    "read_video",
    "video_facts",
]
