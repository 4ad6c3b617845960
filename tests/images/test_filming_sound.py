"""The sound of films: the source's own, in step with the pictures, cut where they are."""

from __future__ import annotations

import os

import av
import numpy as np
import pytest
from clips import write_clip
from soundclips import (
    RATE,
    audio_codec,
    onsets,
    packets_of,
    picture_times,
    samples_of,
    still,
    tone,
    write_talkie,
)

from facenet.errors import InputError
from facenet.images import read_video
from facenet.images.filming import film

BEEPS = (0.4, 1.0, 1.6)
SIZE = (16, 16)


def talkie(path, *, seconds=2.0, frames=50, beeps=BEEPS, stereo=False, **options):
    sound = np.repeat(tone(seconds, beeps=beeps), 1 + stereo, axis=0)
    return write_talkie(path, still(frames, SIZE), sound, **options)


def copy(source, target, *, stop=None, cut=False, frames=None, **where):
    """Write the frames of a source with its sound, and give the `Film`."""
    with film(target, audio=source, stop=stop) as out:
        for number, frame in enumerate(read_video(source, stop=stop, **where)):
            if number == frames:
                break
            out.add(frame.image, frame.time_s)
        if cut:
            out.cut()
    return out


@pytest.mark.parametrize(
    ("name", "codec", "target"),
    [
        ("s.mp4", "aac", "o.mp4"),
        ("s.ts", "aac", "o.mp4"),
        ("s.mp4", "aac", "o.mkv"),
        ("s.mkv", "libmp3lame", "o.mp4"),
        ("s.mkv", "libopus", "o.webm"),
        ("s.mkv", "pcm_s16le", "o.mov"),
        ("s.mkv", "flac", "o.mp4"),
    ],
)
def test_packets_that_the_container_can_hold_are_copied(name, codec, target, tmp_path):
    source = talkie(tmp_path / name, codec=codec)
    out = copy(source, tmp_path / target)
    assert (out.frames, out.notices) == (50, [])
    before, after = packets_of(source), packets_of(tmp_path / target)
    if name.endswith(".ts"):  # each packet of AAC has a header of its own, 7 bytes, there
        before = [(time, data[7:]) for time, data in before]
    if target.endswith(".mkv"):  # that cannot say that a packet is not heard
        assert before.pop(0)[0] < -0.02
    if codec.startswith("pcm"):  # without packets of its own
        assert b"".join(data for _, data in after) == b"".join(data for _, data in before)
        after = before
    assert [data for _, data in after] == [data for _, data in before]
    assert [time for time, _ in after] == pytest.approx([time for time, _ in before], abs=0.0015)
    assert onsets(samples_of(tmp_path / target)) == pytest.approx(BEEPS, abs=0.002)


@pytest.mark.parametrize(
    ("name", "codec", "target", "becomes"),
    [
        ("s.mkv", "libopus", "o.mov", "aac"),
        ("s.mkv", "pcm_s16le", "o.mp4", "aac"),
        ("s.mov", "pcm_mulaw", "o.mkv", "aac"),
        ("s.mp4", "aac", "o.webm", "opus"),
    ],
)
@pytest.mark.parametrize("stereo", [False, True])
def test_other_sound_is_encoded_anew_and_in_step(name, codec, target, becomes, stereo, tmp_path):
    source = talkie(tmp_path / name, codec=codec, stereo=stereo)
    out = copy(source, tmp_path / target)
    assert (out.notices, audio_codec(tmp_path / target)) == ([], becomes)
    with av.open(str(tmp_path / target)) as container:
        assert container.streams.audio[0].codec_context.channels == 1 + stereo
    heard = samples_of(tmp_path / target)
    assert onsets(heard) == pytest.approx(BEEPS, abs=0.002)
    assert len(heard) / RATE == pytest.approx(2.0, abs=0.03)


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "o.webm"])
def test_start_and_stop_cut_the_sound_with_the_pictures(target, tmp_path):
    source = talkie(tmp_path / "s.mp4")
    out = copy(source, tmp_path / target, start=0.5, stop=1.5)  # frames from 0.52 to 1.48
    assert (out.frames, out.duration_s) == (25, pytest.approx(1.0))
    assert picture_times(tmp_path / target)[-1] == pytest.approx(0.96 * 90_000)
    heard = samples_of(tmp_path / target)
    assert onsets(heard) == pytest.approx([1.0 - 0.52], abs=0.002)
    assert len(heard) / RATE == pytest.approx(1.5 - 0.52, abs=0.025)
    assert packets_of(tmp_path / target)[0][0] > -0.043


@pytest.mark.parametrize("target", ["o.mp4", "o.webm"])
def test_a_variable_rate_keeps_pictures_and_sound_in_step(target, tmp_path):
    """Flashes and beeps at the same times, which lie at odd places."""
    times = [0, 0.04, 0.4, 0.41, 0.5, 1.0, 1.003, 1.6, 1.9]
    pictures = [np.full((16, 16, 3), 250 if time in BEEPS else 10, np.uint8) for time in times]
    ticks = [round(time * 90_000) for time in times]
    source = write_talkie(tmp_path / "s.mp4", pictures, tone(2, beeps=BEEPS), times=ticks)
    copy(source, tmp_path / target)
    frames = list(read_video(tmp_path / target))
    assert [frame.time_s for frame in frames] == pytest.approx(times, abs=0.0006)
    flashes = [frame.time_s for frame in frames if frame.image.mean() > 128]
    assert flashes == pytest.approx(onsets(samples_of(tmp_path / target)), abs=0.0025)


@pytest.mark.parametrize("target", ["o.mp4", "o.mkv", "o.webm"])
@pytest.mark.parametrize(
    ("begins", "name", "codec"),
    [(0.3, "s.mp4", "aac"), (0.3, "s.mkv", "pcm_s16le"), (-0.25, "s.mkv", "pcm_s16le")],
)
def test_sound_that_begins_at_another_time_stays_there(begins, name, codec, target, tmp_path):
    source = talkie(tmp_path / name, begins=begins, codec=codec)
    with film(tmp_path / target, audio=source) as out:
        for number, picture in enumerate(still(50, SIZE)):
            out.add(picture, number / 25)
    wanted = [beep + begins for beep in BEEPS]
    assert onsets(samples_of(tmp_path / target)) == pytest.approx(wanted, abs=0.002)


@pytest.mark.parametrize("target", ["o.mp4", "o.webm"])
def test_sound_longer_or_shorter_than_the_pictures(target, tmp_path):
    longer = talkie(tmp_path / "long.mp4", seconds=3.0, beeps=(2.5,))
    copy(longer, tmp_path / target)
    assert onsets(samples_of(tmp_path / target)) == pytest.approx([2.5], abs=0.002)
    copy(longer, tmp_path / target, cut=True)
    assert len(samples_of(tmp_path / target)) / RATE == pytest.approx(2.0, abs=0.025)
    copy(longer, tmp_path / target, cut=True, frames=10)  # Ctrl-C
    assert len(samples_of(tmp_path / target)) / RATE == pytest.approx(0.4, abs=0.025)
    shorter = talkie(tmp_path / "short.mp4", seconds=0.7)
    out = copy(shorter, tmp_path / target)
    assert len(samples_of(tmp_path / target)) / RATE == pytest.approx(0.7, abs=0.025)
    assert len(list(read_video(tmp_path / target))) == 50
    assert out.notices == []


def test_a_gap_in_sound_that_is_encoded_becomes_silence(tmp_path):
    whole = talkie(tmp_path / "s.mkv", codec="pcm_s16le")
    with av.open(str(whole)) as source, av.open(str(tmp_path / "gap.mkv"), "w") as target:
        streams = [target.add_stream_from_template(s) for s in source.streams]
        for packet in source.demux():
            late = packet.pts is not None and 0.6 <= packet.pts * packet.time_base < 0.9
            if packet.pts is not None and not (packet.stream.type == "audio" and late):
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    copy(tmp_path / "gap.mkv", tmp_path / "o.mp4")
    assert onsets(samples_of(tmp_path / "o.mp4")) == pytest.approx(BEEPS, abs=0.002)
    times = [time for time, _ in packets_of(tmp_path / "o.mp4")]
    assert np.diff(times).max() < 0.03  # there is sound all along


def test_a_source_without_sound_makes_a_silent_film(tmp_path):
    source = write_clip(tmp_path / "s.mp4", still(5, SIZE))
    out = copy(source, tmp_path / "o.mp4")
    assert (audio_codec(tmp_path / "o.mp4"), out.notices, out.frames) == (None, [], 5)


def garbled(path, *, first, last):
    """Overwrite the packets of sound from one to another."""
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    generator = np.random.default_rng(0)
    for packet in packets[first:last]:
        at = data.index(packet)
        data[at : at + len(packet)] = generator.bytes(len(packet))
    path.write_bytes(data)
    return path


def test_damaged_sound_that_is_encoded_leaves_the_pictures_whole(tmp_path):
    source = garbled(talkie(tmp_path / "s.mkv", codec="flac"), first=6, last=9)
    out = copy(source, tmp_path / "o.webm")
    assert len(list(read_video(tmp_path / "o.webm"))) == 50
    (notice,) = out.notices
    assert notice.startswith(f"The sound of {source} is damaged: ")
    assert notice.endswith(" are kept.")
    heard = onsets(samples_of(tmp_path / "o.webm"))
    assert BEEPS[0] == pytest.approx(heard[0], abs=0.002)
    assert BEEPS[-1] == pytest.approx(heard[-1], abs=0.002)


def test_damaged_sound_that_is_copied_leaves_the_pictures_whole(tmp_path):
    """Packets of sound with the time of others, which lies behind them."""
    source = talkie(tmp_path / "s.mkv", codec="pcm_s16le", beeps=(0.4, 1.6))
    data = bytearray(source.read_bytes())
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    (beep,) = [n for n, packet in enumerate(packets) if packet.pts == 400]
    place = 0
    for packet in packets[beep : beep + 4]:  # alike: each is twelve waves
        place = data.index(bytes(packet), place + 1)
        data[place - 3 : place - 1] = (20).to_bytes(2)  # milliseconds after the cluster's
    source.write_bytes(data)
    out = copy(source, tmp_path / "o.mkv")
    assert len(list(read_video(tmp_path / "o.mkv"))) == 50
    assert out.notices == [
        f"The sound of {source} is damaged: 4 parts of it are left out of the film, 96 are kept."
    ]
    assert onsets(samples_of(tmp_path / "o.mkv"))[-1] == pytest.approx(1.6, abs=0.002)


def test_sound_that_is_announced_but_never_comes(tmp_path):
    source = write_talkie(tmp_path / "s.ts", still(10, SIZE), tone(0))
    assert audio_codec(source) == "aac"
    out = copy(source, tmp_path / "o.mp4")
    assert len(list(read_video(tmp_path / "o.mp4"))) == 10
    assert audio_codec(tmp_path / "o.mp4") is None
    assert out.notices == [f"The sound of {source} cannot be used: the film is silent."]


def test_a_source_of_sound_that_cannot_be_opened(tmp_path):
    (tmp_path / "text.mp4").write_text("no video " * 99)
    for name in ("text.mp4", "none.mp4"):
        with pytest.raises(InputError, match=r"cannot be opened as a video\. Copy it|Cannot read"):
            copy(tmp_path / name, tmp_path / "o.mp4")
    assert os.listdir(tmp_path) == ["text.mp4"]
