"""Small videos for tests, written with PyAV: `from clips import write_clip, noise`."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

LOSSLESS = {"codec": "ffv1", "pixels": "bgr0"}
"""For .mkv and .avi: what is read is what was written, to the last bit, also at odd sizes."""


def noise(count, size=(48, 32), *, seed=0):
    """Pictures of random pixels, (width, height), each another one."""
    generator = np.random.default_rng(seed)
    shape = (count, size[1], size[0], 3)
    return list(generator.integers(0, 256, shape, dtype=np.uint8))


def write_clip(
    path, pictures, *, codec="libx264", pixels="yuv420p", times=None, base=Fraction(1, 1000), **more
):
    """Write RGB pictures as a video and give its path.

    times: of each picture, in units of `base`; else 25 pictures a second. more: options of the
    container.
    """
    step = int(Fraction(1, 25) / base)
    with av.open(str(path), "w", options=more) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = base
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = base
            frame.pts = number * step if times is None else times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_sound(path, *, cover=None):
    """Write a second of silence, perhaps with the picture of a record's cover; give its path."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        if cover is not None:
            picture = container.add_stream("mjpeg", rate=1)
            picture.height, picture.width = cover.shape[:2]
            picture.pix_fmt, picture.disposition = "yuvj420p", Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
            container.mux(picture.encode(None))
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path
