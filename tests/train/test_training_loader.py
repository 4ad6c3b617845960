"""The loader: the same batches however it runs, the card's standardisation, and broken pictures."""

from __future__ import annotations

import threading
from contextlib import closing
from itertools import islice

import cv2
import numpy as np
import pytest
import torch

from facenet.data.trainingset import open_training_set
from facenet.errors import DataError, SettingsError
from facenet.faces.embed import STANDARDISE
from facenet.images import decode
from facenet.models.card import Preprocess
from facenet.train.augment import PLAIN, AugmentSettings, augmented
from facenet.train.cache import PictureCache
from facenet.train.loader import MAX_TRIES, Loader
from facenet.train.sampling import Balanced, Shuffled

SIZE = 16
CARD = Preprocess(SIZE, SIZE, "similarity", "fixed")
RICH = AugmentSettings(crop=True, rotate=10, adaface=0.5, jpeg=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four people with five pictures of 20 pixels each."""
    root = tmp_path_factory.mktemp("people")
    random = np.random.default_rng(0)
    for person in range(4):
        (root / f"p{person}").mkdir()
        for number in range(5):
            pixels = random.integers(0, 256, (20, 20, 3), np.uint8)
            cv2.imwrite(str(root / f"p{person}/{number}.png"), pixels)
    return root


@pytest.fixture
def broken(folder, tmp_path):
    """A copy of it in which pictures can be damaged."""
    for path in folder.rglob("*.png"):
        target = tmp_path / path.relative_to(folder)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


def loader(place, *, batches=None, card=CARD, **options):
    found = open_training_set(place)
    batches = batches or Shuffled(len(found), 6, 1)
    options = {"size": SIZE, "augment": RICH, "seed": 5, **options}
    return Loader(found, batches, card, **options)


def taken(made: Loader, count: int, first: int = 0):
    with closing(made.run(first)) as batches:
        return list(islice(batches, count))


def same(one, two) -> bool:
    return (
        (one.step, one.epoch) == (two.step, two.epoch)
        and np.array_equal(one.rows, two.rows)
        and torch.equal(one.images, two.images)
        and torch.equal(one.labels, two.labels)
    )


@pytest.mark.parametrize("options", [{"threads": 1}, {"threads": 5}, {"ahead": 1}, {"cache_mb": 1}])
def test_batches_are_the_same_however_they_are_made(folder, options):
    wanted = taken(loader(folder), 8)
    assert all(same(a, b) for a, b in zip(wanted, taken(loader(folder, **options), 8), strict=True))
    later = taken(loader(folder, **options), 3, first=5)
    assert all(same(a, b) for a, b in zip(wanted[5:], later, strict=True))


def test_opencvs_own_threads_change_nothing(folder):
    wanted, before = taken(loader(folder), 3), cv2.getNumThreads()
    try:
        for number in (1, 4):
            cv2.setNumThreads(number)
            assert all(map(same, wanted, taken(loader(folder), 3)))
    finally:
        cv2.setNumThreads(before)


def test_a_batch_is_what_the_parts_give_one_by_one(folder):
    """Also that a picture is a function of seed, epoch and row, whatever the batch size."""
    made = loader(folder)
    small = loader(folder, batches=Shuffled(20, 1, 9))
    singles = {int(b.rows[0]): b.images[0] for b in taken(small, 20)}
    assert sorted(singles) == list(range(20))
    found = made.training_set
    for batch in taken(made, 4):
        rows, epoch = made.batches.batch(batch.step)
        assert (batch.rows.tolist(), batch.epoch) == (rows.tolist(), epoch)
        assert batch.labels.tolist() == [int(found.names[row][1]) for row in rows]
        assert batch.images.dtype == torch.float32
        assert batch.images.shape == (6, 3, SIZE, SIZE)
        for row, image in zip(rows.tolist(), batch.images, strict=True):
            assert torch.equal(image, singles[row]) == (epoch == 0)
    first = taken(made, 1)[0]
    for row, image in zip(first.rows.tolist(), first.images, strict=True):
        random = np.random.default_rng((5, 100, 0, row, 0, 0))
        crop = augmented(decode(found.read(row)), SIZE, RICH, random).astype(np.float32)
        assert np.allclose(image.numpy(), (crop.transpose(2, 0, 1) - 127.5) / 128, atol=1e-6)


@pytest.mark.parametrize("standardise", sorted(STANDARDISE))
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_the_card_says_how_pictures_are_standardised(folder, standardise, color):
    card = Preprocess(SIZE, SIZE, "margin_output", standardise, margin=4, color=color)
    made = loader(folder, card=card, augment=PLAIN)
    batch = taken(made, 1)[0]
    for row, image in zip(batch.rows.tolist(), batch.images, strict=True):
        crop = augmented(decode(made.training_set.read(row)), SIZE, PLAIN, np.random.default_rng(0))
        crop = crop if color == "rgb" else crop[..., ::-1]
        wanted = STANDARDISE[standardise](crop[None].astype(np.float32))[0].transpose(2, 0, 1)
        assert np.allclose(image.numpy(), wanted, atol=1e-5)


def test_a_picture_that_repeats_in_an_epoch_is_changed_each_time(folder):
    labels = open_training_set(folder).labels
    for batches, times in ((Balanced(labels, 6, 1), 2), (Shuffled(20, 6, 1, epoch_size=20), 6)):
        made = loader(folder, batches=batches)
        seen: dict[int, list[torch.Tensor]] = {}
        for batch in taken(made, times * batches.steps_per_epoch):
            for row, image in zip(batch.rows.tolist(), batch.images, strict=True):
                assert not any(torch.equal(image, other) for other in seen.get(row, []))
                seen.setdefault(row, []).append(image)


def test_pictures_of_every_kind_come_in(tmp_path):
    (tmp_path / "ann").mkdir()
    pixels = np.random.default_rng(0).integers(0, 65536, (20, 20, 4), np.uint16)
    cv2.imwrite(str(tmp_path / "ann/grey.png"), pixels[..., 0].astype(np.uint8))
    cv2.imwrite(str(tmp_path / "ann/alpha.png"), pixels.astype(np.uint8))
    cv2.imwrite(str(tmp_path / "ann/deep.png"), pixels[..., :3])
    cv2.imwrite(str(tmp_path / "ann/other.jpg"), pixels[:9, :, :3].astype(np.uint8))
    made = loader(tmp_path, batches=Shuffled(4, 4, 0))
    assert taken(made, 1)[0].images.shape == (4, 3, SIZE, SIZE)
    assert made.replaced == ()


def test_a_picture_that_breaks_is_replaced_and_told(broken):
    made = loader(broken, batches=Shuffled(20, 20, 1))
    content = (broken / "p1/2.png").read_bytes()
    (broken / "p1/2.png").write_bytes(content[: len(content) // 2])
    (broken / "p1/3.png").unlink()
    for number in range(5):
        (broken / f"p3/{number}.png").write_bytes(b"no picture")
    batch = taken(made, 1)[0]
    wanted, _ = made.batches.batch(0)
    instead = {7: 9, 8: 9, 15: 0, 16: 0, 17: 0, 18: 0, 19: 0}
    assert batch.rows.tolist() == [instead.get(row, row) for row in wanted.tolist()]
    assert batch.labels.tolist() == [row // 5 for row in batch.rows.tolist()]
    at = {int(row): image for row, image in zip(wanted, batch.images, strict=True)}
    assert torch.equal(at[7], at[9])
    told = {one.name: (one.reason, one.instead) for one in made.replaced}
    assert sorted(told) == ["p1/2.png", "p1/3.png", *(f"p3/{number}.png" for number in range(5))]
    assert told["p1/2.png"][1] == told["p1/3.png"][1] == "p1/4.png"
    assert "p1/2.png ends early" in told["p1/2.png"][0]
    assert "should be there as it was" in told["p1/3.png"][0]
    assert same(batch, taken(loader_like(made), 1)[0])


def loader_like(made: Loader) -> Loader:
    """Another loader of the same set, with another number of threads."""
    return Loader(made.training_set, made.batches, CARD, size=SIZE, augment=RICH, seed=5, threads=3)


def test_a_disk_that_is_gone_ends_training_with_a_sentence(broken):
    made = loader(broken)
    for path in broken.rglob("*.png"):
        path.unlink()
    batches = made.run()
    with pytest.raises(DataError, match="cannot be used: The picture .* Check the disk"):
        next(batches)
    assert MAX_TRIES >= 100
    assert not readers()


def readers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("facenet-loader")]


def test_threads_end_with_the_iterator(folder):
    batches = loader(folder, threads=3).run()
    next(batches)
    assert len(readers()) == 3
    batches.close()
    assert readers() == []
    for batch in loader(folder).run():
        assert batch.step == 0
        break
    del batch
    assert readers() == []


def test_waiting_is_measured_from_the_second_batch_on(folder):
    made = loader(folder)
    assert made.share_waiting == 0
    with closing(made.run()) as batches:
        assert next(batches).wait_s > 0
        assert made.share_waiting == 0
        next(batches)
        first = made.share_waiting
        assert 0 < first <= 1
        assert all(next(batches).wait_s >= 0 for _ in range(5))
    assert 0 < made.share_waiting <= 1


def test_decoded_pictures_are_kept_up_to_the_bound(folder):
    """A picture has 20 * 20 * 3 = 1200 bytes."""
    made = loader(folder, cache_mb=0.006)
    taken(made, 8)
    assert (len(made.cache), made.cache.bytes) == (5, 6000)
    whole = loader(folder, cache_mb=1)
    wanted = taken(whole, 8)
    assert len(whole.cache) == 20
    with pytest.raises(ValueError, match="read-only"):
        whole.cache.get(3)[0, 0, 0] = 1
    assert all(map(same, wanted, taken(whole, 8)))
    assert len(loader(folder).cache) == 0


def test_what_cannot_be_is_told(folder):
    for options in ({"size": 0}, {"threads": 0}, {"ahead": 0}, {"seed": -1}):
        with pytest.raises(SettingsError, match="A loader should have a size, threads"):
            loader(folder, **options)
    with pytest.raises(SettingsError, match="cache_mb should be 0 .* got -1"):
        loader(folder, cache_mb=-1)
    with pytest.raises(SettingsError, match="got nan"):
        PictureCache(float("nan"))
    with pytest.raises(DataError, match="should be of the 20 pictures of .*; step 0 wants row"):
        next(loader(folder, batches=Shuffled(500, 400)).run())
