"""Stages that overlap: order, groups and batches by rule, memory, errors in their place, ends."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest

from facenet.errors import SettingsError
from facenet.faces.flow import Flow, FlowLimits

SHARE = FlowLimits(memory=4000).share


@dataclass(frozen=True)
class Item:
    """A number with `crops` crops, and so many bytes of file and of pixels."""

    number: int
    crops: int = 1
    file: int = 0
    pixels: int = 0
    state: str = "drawn"


class Toy:
    """Stages that write down what they were given, and in which threads.

    fails: stage name -> number at which it raises. Each crop holds its item's number and its own,
    and a row is the crop.
    """

    def __init__(self, batch=4, fails=None):
        self.batch, self.fails = batch, fails or {}
        self.groups, self.batches, self.drawn = [], [], 0
        self.threads = set()
        self.lock, self.held, self.most = threading.Lock(), 0, 0

    def sources(self, items):
        for item in items:
            self.drawn += 1
            yield item

    def at(self, stage, number):
        self.threads.add((stage, threading.current_thread().name.split("_")[0]))
        if self.fails.get(stage) == number:
            raise RuntimeError(f"{stage} {number}")

    def hold(self, bytes_more):
        with self.lock:
            self.held += bytes_more
            self.most = max(self.most, self.held)

    def weigh(self, item):
        return item.file

    def open(self, item):
        self.at("open", item.number)
        return replace(item, state="opened")

    def cost(self, item):
        return 0 if item.state == "cropped" else item.file + item.pixels

    def decode(self, item):
        assert item.state == "opened"
        self.at("decode", item.number)
        self.hold(item.pixels)
        return replace(item, state="decoded")

    def look(self, items):
        for item in items:
            self.at("look", item.number)
        self.groups.append([item.number for item in items])
        return [replace(item, state="looked") for item in items]

    def crop(self, item):
        assert item.state == "looked"
        self.at("crop", item.number)
        self.hold(-item.pixels)
        crops = np.zeros((item.crops, 1, 2, 3), np.uint8)
        crops[:, 0, 0, 0], crops[:, 0, 1, 0] = item.number % 256, np.arange(item.crops)
        return replace(item, state="cropped"), crops

    def embed(self, crops):
        for crop in crops:
            self.at("embed", int(crop[0, 0, 0]))
        self.batches.append(len(crops))
        return crops[:, 0, :, 0].astype(np.float32)

    def finish(self, item, rows):
        self.at("finish", item.number)
        if rows is None:
            self.hold(-item.pixels)
        return item.number, None if rows is None else rows.tolist()


def expected(items):
    return [(item.number, [[item.number, crop] for crop in range(item.crops)]) for item in items]


def ours():
    return [t for t in threading.enumerate() if t.name.startswith("facenet-")]


def numbers(count, crops=1, **bytes_of):
    return [Item(number, crops, **bytes_of) for number in range(count)]


@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_answers_come_in_order_with_their_own_rows(batch):
    generator = np.random.default_rng(batch)
    items = [Item(n, int(generator.integers(0, 9))) for n in range(200)]
    toy = Toy(batch)
    assert list(Flow(toy, FlowLimits(group=7, waiting=300)).run(toy.sources(items))) == expected(
        items
    )
    assert [number for group in toy.groups for number in group] == list(range(200))
    assert [len(group) for group in toy.groups] == [7] * 28 + [4]
    total = sum(item.crops for item in items)
    assert toy.batches == [batch] * (total // batch) + [total % batch] * (total % batch > 0)
    assert ours() == []


def test_without_a_batch_nothing_is_cropped_or_embedded():
    toy = Toy(batch=0)
    assert list(Flow(toy, FlowLimits()).run(numbers(40))) == [(n, None) for n in range(40)]
    assert {stage for stage, _ in toy.threads} == {"open", "decode", "look", "finish"}
    assert list(Flow(Toy(), FlowLimits()).run([])) == []


def test_every_stage_has_its_threads():
    toy = Toy()
    list(Flow(toy, FlowLimits()).run(numbers(40)))
    caller = threading.current_thread().name
    assert toy.threads == {
        *((stage, "facenet-read") for stage in ("open", "decode", "crop")),
        ("look", "facenet-look"),
        ("embed", "facenet-embed"),
        ("finish", caller),
    }


def test_groups_are_cut_by_bytes_and_not_by_time():
    """The same as filling groups one after the other, in one thread; twice the same."""
    generator = np.random.default_rng(0)
    items = [Item(n, pixels=int(generator.integers(0, SHARE // 2))) for n in range(60)]
    items[20] = replace(items[20], pixels=10 * SHARE)
    wanted, held = [[]], 0
    for item in items:
        if wanted[-1] and (len(wanted[-1]) == 5 or held + item.pixels > SHARE):
            wanted.append([])
            held = 0
        wanted[-1].append(item.number)
        held += item.pixels
    for _ in range(2):
        toy = Toy()
        assert list(Flow(toy, FlowLimits(group=5, memory=4000)).run(items)) == expected(items)
        assert toy.groups == wanted
    assert [20] in wanted and any(1 < len(group) < 5 for group in wanted)


@pytest.mark.parametrize("batch", [0, 4])
def test_memory_is_bounded_and_one_large_item_is_alone(batch):
    items = numbers(120, pixels=SHARE // 3)
    toy = Toy(batch)
    for _ in Flow(toy, FlowLimits(memory=4000)).run(items):
        pass
    assert SHARE // 3 < toy.most <= 4000
    items[50] = replace(items[50], pixels=50_000)
    toy = Toy(batch)
    assert len(list(Flow(toy, FlowLimits(memory=4000)).run(items))) == 120
    assert toy.most == 50_000


@pytest.mark.parametrize(("file", "most"), [(1, 16 + 4 * 16), (SHARE, 1 + 4)])
def test_files_are_read_ahead_within_bounds(file, most):
    """A group at most is open, four are cut; the bytes of files are bounded too."""
    toy = Toy(batch=0)
    stream = Flow(toy, FlowLimits(memory=4000)).run(toy.sources(numbers(1000, file=file)))
    next(stream)
    stream.close()
    assert 3 < toy.drawn <= most + 1


def test_items_without_crops_do_not_wait_for_ever():
    toy = Toy(batch=4)
    stream = Flow(toy, FlowLimits(waiting=10)).run(toy.sources(numbers(500, crops=0)))
    assert next(stream) == (0, [])
    assert toy.drawn < 200
    assert [number for number, _ in stream] == list(range(1, 500))
    assert set(toy.batches) == {0}


def test_an_item_with_more_crops_than_a_batch():
    items = [Item(0, 1), Item(1, 50), Item(2, 0), Item(3, 2)]
    toy = Toy(batch=8)
    assert list(Flow(toy, FlowLimits()).run(items)) == expected(items)
    assert toy.batches == [8] * 6 + [5]


@pytest.mark.parametrize("stage", ["open", "decode", "crop", "finish"])
def test_an_error_is_raised_in_the_place_of_its_item(stage):
    toy, came = Toy(fails={stage: 37}), []
    with pytest.raises(RuntimeError, match=f"{stage} 37"):
        for answer in Flow(toy, FlowLimits()).run(numbers(90)):
            came.append(answer)
    assert came == expected(numbers(37))
    assert ours() == []


def test_an_error_of_a_group_or_batch_is_raised_before_its_answers():
    for stage, first in (("look", 32), ("embed", 36)):
        toy, came = Toy(fails={stage: 37}), []
        with pytest.raises(RuntimeError, match=f"{stage} 37"):
            for answer in Flow(toy, FlowLimits()).run(numbers(90)):
                came.append(answer)
        assert came == expected(numbers(first))


def test_an_error_of_the_sources_is_raised():
    def broken():
        yield from numbers(5)
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        list(Flow(Toy(), FlowLimits()).run(broken()))


def test_a_stream_that_is_closed_early_leaves_no_thread():
    toy = Toy()
    stream = Flow(toy, FlowLimits()).run(toy.sources(numbers(10_000)))
    assert list(itertools.islice(stream, 3)) == expected(numbers(3))
    assert ours() != []
    stream.close()
    assert ours() == []
    assert toy.drawn < 500


def test_a_with_block_that_is_left_by_an_error_leaves_no_thread():
    """What Ctrl-C does: an exception in the caller's thread, inside the stream or outside."""
    with pytest.raises(KeyboardInterrupt), Flow(Toy(), FlowLimits()).run(numbers(9999)) as stream:
        for _ in stream:
            raise KeyboardInterrupt
    assert ours() == []
    toy = Toy(fails={"finish": 5})
    with pytest.raises(RuntimeError):
        for _ in Flow(toy, FlowLimits()).run(numbers(10_000)):
            pass
    assert ours() == []
    stream.close()
    assert list(stream) == []


def test_a_stream_that_is_let_go_of_in_one_of_its_own_threads():
    """As the garbage collector may do: nobody waits for anybody, and all threads end."""
    holder, left = [], threading.Event()

    class Dropping(Toy):
        def decode(self, item):
            if item.number == 50:
                left.wait(10)
                holder.clear()
            return super().decode(item)

    holder.append(Flow(Dropping(), FlowLimits()).run(numbers(10_000)))
    next(holder[0])
    while not left.is_set():
        if next(holder[0])[0] == 20:
            left.set()
    for thread in ours():
        thread.join(10)
    assert ours() == [] and holder == []


@pytest.mark.parametrize("field", ["group", "waiting", "memory", "readers"])
@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_limits_are_whole_numbers_above_zero(field, value):
    with pytest.raises(SettingsError, match=f"FlowLimits.{field} should be a whole number above 0"):
        FlowLimits(**{field: value})
