"""Small videos with sound for tests: `from soundclips import write_talkie, samples_of`."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np

RATE = 48_000


def tone(seconds, *, beeps=(), length=0.1):
    """float32 (1, n): 600 Hz during each beep, which begins at a time in seconds; else silence."""
    time = np.arange(round(seconds * RATE)) / RATE
    heard = np.zeros(len(time), bool)
    for beep in beeps:
        heard |= (time >= beep) & (time < beep + length)
    return (0.7 * heard * np.sin(2 * np.pi * 600 * time)).astype(np.float32)[None]


def write_talkie(
    path,
    pictures,
    sound,
    *,
    times=None,
    base=Fraction(1, 90_000),
    codec="aac",
    video="libx264",
    begins=0.0,
):
    """Write RGB pictures and float32 (channels, n) sound as a video and give its path.

    times: of each picture in units of `base`; else 25 a second. begins: seconds at which the
    sound begins. An empty sound is announced, but never comes.
    """
    step = int(Fraction(1, 25) / base)
    with av.open(str(path), "w") as container:
        moving = container.add_stream(video, rate=25)
        moving.height, moving.width = pictures[0].shape[:2]
        moving.pix_fmt = "yuv420p"
        moving.codec_context.time_base = moving.time_base = base
        heard = container.add_stream(codec, rate=RATE)
        layout = "mono" if len(sound) == 1 else "stereo"
        heard.codec_context.layout = layout
        packets = []
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base, frame.pts = base, number * step if times is None else times[number]
            packets += moving.encode(frame)
        packets += moving.encode(None)
        for start in range(0, sound.shape[1], 960):
            piece = np.ascontiguousarray(sound[:, start : start + 960])
            frame = av.AudioFrame.from_ndarray(piece, "fltp", layout)
            frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
            frame.pts = start + round(begins * RATE)
            packets += heard.encode(frame)
        packets += heard.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def zero(container):
    """When the first picture is shown, in seconds of the container's clock."""
    pictures = container.demux(video=0)
    packet = next(packet for packet in pictures if not packet.is_discard)
    return packet.pts * packet.time_base


def packets_of(path):
    """Time in seconds after the first picture, and bytes, of each packet of sound."""
    with av.open(str(path)) as container:
        first = zero(container)
    with av.open(str(path)) as container:
        return [
            (float(packet.pts * packet.time_base - first), bytes(packet))
            for packet in container.demux(audio=0)
            if packet.size
        ]


def samples_of(path):
    """The first channel as heard, float32, from the first picture on; gaps are silent."""
    line = np.zeros(RATE * 60, np.float32)
    end = 0
    with av.open(str(path)) as container:
        first = zero(container)
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        for frame in container.decode(audio=0):
            for part in resampler.resample(frame):
                at = round(float(part.pts * part.time_base - first) * RATE)
                values = part.to_ndarray()[0][max(0, -at) :]
                line[max(0, at) : max(0, at) + len(values)] = values
                end = max(end, max(0, at) + len(values))
    return line[:end]


def onsets(samples, *, level=0.2):
    """The seconds at which beeps begin: loud after 50 ms of quiet."""
    found, quiet = [], -1.0
    for place in np.flatnonzero(np.abs(samples) > level):
        if place / RATE > quiet:
            found.append(float(place / RATE))
        quiet = place / RATE + 0.05
    return found


def audio_codec(path):
    """The codec of the sound of a file, or None."""
    with av.open(str(path)) as container:
        streams = container.streams.audio
        return streams[0].codec_context.name if streams else None


def picture_times(path, base=Fraction(1, 90_000)):
    """The times of the pictures after the first, in units of `base`, as the file has them."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        found = [frame.pts * frame.time_base for frame in container.decode(stream)]
    return [float((time - found[0]) / base) for time in found]


def decoded(path):
    """(seconds after the first picture, uint8 (H, W, 3) RGB) of each picture, by PyAV alone."""
    with av.open(str(path)) as container:
        found = [
            (frame.pts * frame.time_base, frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]
    return [(float(time - found[0][0]), image) for time, image in found]


def still(count, size=(48, 32)):
    """Pictures that compress well: one grey each, (width, height)."""
    levels = np.linspace(30, 220, count).astype(np.uint8)
    return [np.full((size[1], size[0], 3), level, np.uint8) for level in levels]
