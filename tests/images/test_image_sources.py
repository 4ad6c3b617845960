"""Whatever a user has becomes pixels: paths, bytes, files, PIL images, arrays, and many of them."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import picture_maker as maker
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from facenet.errors import ImageError, InputError, SettingsError
from facenet.images import (
    LIMITS,
    ImageLimits,
    find_images,
    is_image_name,
    is_many,
    load_image,
    load_images,
)

SCENE = maker.scene()
PNG = maker.encode(SCENE, "PNG")


def refusal(source: object, **options: object) -> str:
    with pytest.raises(ImageError) as refused:
        load_image(source, **options)
    return str(refused.value)


# ---- bytes and files


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
def test_bytes_of_every_kind(kind):
    source = kind(PNG)
    assert not is_many(source)
    assert np.array_equal(load_image(source), SCENE)


@pytest.mark.parametrize("name", ["a.png", "Ärger 写真 🙂.png", "no ending", ".hidden", "x" * 200])
def test_paths_of_every_kind(tmp_path, monkeypatch, name):
    folder = tmp_path / "Übung フォルダ"
    folder.mkdir()
    path = folder / name
    path.write_bytes(PNG)
    monkeypatch.chdir(folder)
    with os.scandir(folder) as entries:
        entry = next(entries)
    for source in (path, str(path), name, Path(name), entry):
        assert not is_many(source)
        assert np.array_equal(load_image(source), SCENE)


def test_a_name_that_is_no_text(tmp_path):
    folder = os.fsencode(tmp_path)
    with open(os.path.join(folder, b"caf\xe9.png"), "wb") as file:
        file.write(PNG)
    with os.scandir(folder) as entries:
        entry = next(entries)
    assert np.array_equal(load_image(entry), SCENE)
    assert np.array_equal(load_image(os.fsdecode(entry.path)), SCENE)


def test_an_open_file_is_read_from_where_it_stands(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"before" + PNG)
    for buffering in (-1, 0):
        with open(path, "rb", buffering) as file:
            file.seek(6)
            assert np.array_equal(load_image(file), SCENE)
            assert not file.closed
            assert "is empty (0 bytes)" in refusal(file)
            assert str(path) in refusal(file)


def test_a_pipe_that_gives_little_at_a_time():
    reader, writer = os.pipe()
    os.write(writer, PNG)
    os.close(writer)
    with os.fdopen(reader, "rb", 0) as file:
        assert np.array_equal(load_image(file), SCENE)


def test_a_file_open_in_text_mode_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    for encoding in ("utf-8", "latin-1"):
        with open(path, encoding=encoding) as file:
            assert refusal(file) == (
                f'{path} should be a file opened in binary mode ("rb") that gives bytes; it gives '
                "text or something else."
            )
    assert "the picture (file object) should be a file opened in binary" in refusal(
        io.StringIO("a")
    )


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    path = tmp_path / "a.png"
    with open(path, "wb") as file:
        assert re.search(r"should be a file open for reading; reading fails: .*read", refusal(file))
    path.write_bytes(PNG)
    with open(path, "rb") as file:
        pass
    assert "reading fails: read of closed file" in refusal(file)


@pytest.mark.parametrize("source", [b"", bytearray(), io.BytesIO(), io.StringIO()])
def test_nothing_is_refused(source):
    assert "is empty (0 bytes): expected a picture. Copy or download it again" in refusal(source)
    assert "rewind a file object with seek(0)" in refusal(source)


class Counting(io.BytesIO):
    """A file that counts what is asked of it."""

    asked = 0

    def read(self, size: int | None = -1, /) -> bytes:
        block = super().read(size)
        self.asked += len(block)
        return block


def test_the_limit_of_bytes_is_exact_and_no_more_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    enough, short = (ImageLimits(max_bytes=len(PNG) - less) for less in (0, 1))
    for source in (PNG, path, str(path), Counting(PNG)):
        assert np.array_equal(load_image(source, limits=enough), SCENE)
    for source, name in ((PNG, "the picture (bytes)"), (path, str(path))):
        assert refusal(source, limits=short) == (
            f"{name} should have at most {len(PNG) - 1:,} bytes; it has more. "
            "Save it smaller, or pass ImageLimits with a higher max_bytes."
        )
    endless = Counting(PNG + bytes(5_000_000))
    assert "at most 1,000,000 bytes" in refusal(endless, limits=ImageLimits(max_bytes=1_000_000))
    assert endless.asked == 1_000_001


@pytest.mark.parametrize("name", ["max_bytes", "max_pixels"])
@pytest.mark.parametrize("value", [0, -1, 1e6, "9", None])
def test_limits_are_whole_numbers(name, value):
    with pytest.raises(SettingsError, match=f"ImageLimits.{name} should be a whole number above 0"):
        ImageLimits(**{name: value})
    assert (LIMITS.max_bytes, LIMITS.max_pixels) == (256 * 1024**2, 120_000_000)


# ---- paths that lead nowhere


def test_a_missing_file(tmp_path):
    path = tmp_path / "missing.jpg"
    assert refusal(path) == (
        f"Cannot read the picture {str(path)!r}: No such file or directory. "
        "Check the spelling of the path."
    )
    assert refusal("").startswith("Cannot read the picture '': No such file")


def test_a_folder(tmp_path):
    assert "Is a directory. Name a picture file in it." in refusal(tmp_path)


def test_a_file_that_the_system_refuses(tmp_path):
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    assert "Too many levels of symbolic links. Check the path and the disk." in refusal(loop)
    below = tmp_path / "file"
    below.write_bytes(PNG)
    assert "Not a directory" in refusal(below / "a.jpg")
    assert "File name too long" in refusal(str(tmp_path / ("x" * 5000)))
    assert len(refusal("x" * 100_000)) < 400


def test_a_file_without_permission(tmp_path):
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    if os.geteuid() == 0:  # root reads everything
        assert np.array_equal(load_image(path), SCENE)
    else:
        assert "Permission denied. Check who may read the file." in refusal(path)


def test_a_path_with_nul():
    assert refusal("a\0b.jpg") == "'a\\x00b.jpg' is not a path a file can have: embedded null byte."


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/a.jpg",
        "http://a/b.png",
        "s3://b/a.png",
        "file:///a.png",
        "data:image/png;base64,AA",
    ],
)
def test_addresses_are_refused(address):
    assert refusal(address) == (
        f"{address} is an address; facenet fetches nothing. Download it first."
    )


@pytest.mark.parametrize("source", [None, 7, 1.5, object(), ["a.png"], {"a": 1}])
def test_other_things_are_refused(source):
    assert refusal(source) == (
        "A picture should be a path, bytes, a binary file, a PIL image or a NumPy array; "
        f"got {type(source).__name__}."
    )


# ---- arrays

SHAPES = st.tuples(st.integers(1, 6), st.integers(5, 9))


@given(st.data(), SHAPES, st.sampled_from([None, 1, 3, 4]), st.sampled_from(["u1", "<u2", ">u2"]))
@settings(max_examples=80, deadline=None)
def test_arrays_by_the_definition(data, shape, channels, dtype):
    full = shape if channels is None else (*shape, channels)
    array = data.draw(arrays.arrays(dtype, full))
    order = {"rgb": (0, 1, 2), "bgr": (2, 1, 0)}
    for color in ("rgb", "bgr"):
        pixels = load_image(array, color=color)
        assert pixels.shape == (*shape, 3) and pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous
        for y, x in np.ndindex(shape):
            values = np.atleast_1d(array[y, x])
            picked = [values[i if len(values) > 2 else 0] for i in order[color]]
            assert pixels[y, x].tolist() == [int(v) >> 8 * (array.itemsize - 1) for v in picked]


def test_arrays_that_are_not_contiguous():
    for view in (
        SCENE[::2, ::-1],
        np.asfortranarray(SCENE),
        SCENE.transpose(1, 0, 2),
        SCENE[:, 3:],
    ):
        pixels = load_image(view)
        assert pixels.flags.c_contiguous
        assert np.array_equal(pixels, view)
    assert np.shares_memory(load_image(SCENE), SCENE)


def test_bgr_arrays_are_turned_and_files_are_not():
    assert np.array_equal(load_image(SCENE[..., ::-1], color="bgr"), SCENE)
    assert np.array_equal(load_image(PNG, color="bgr"), SCENE)
    assert np.array_equal(load_image(Image.fromarray(SCENE), color="bgr"), SCENE)


@pytest.mark.parametrize("color", ["RGB", "gray", "", None, 3])
def test_other_colour_orders_are_refused(color):
    with pytest.raises(SettingsError, match=f'color should be "rgb" or "bgr"; got {color!r}'):
        load_image(SCENE, color=color)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int16, np.int64, bool])
def test_other_numbers_are_refused_with_advice(dtype):
    message = refusal(np.ones((4, 5, 3), dtype))
    assert f"should be uint8 (0 to 255) or uint16; got {np.dtype(dtype)}." in message
    assert "0 to 1, pass (array * 255).round().astype(numpy.uint8)" in message
    assert "0 to 255, pass array.round().astype(numpy.uint8)" in message


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((3, 20, 30), " It looks channels-first: use array.transpose(1, 2, 0)."),
        ((1, 20, 30), " It looks channels-first: use array.transpose(1, 2, 0)."),
        ((4, 20, 30), " It looks channels-first: use array.transpose(1, 2, 0)."),
        ((20, 30, 2), ""),
        ((20, 30, 5), ""),
        ((7,), ""),
        ((), ""),
        ((2, 20, 30, 3), " It looks like several pictures: pass them one by one."),
    ],
)
def test_other_shapes_are_refused_with_a_hint(shape, hint):
    assert refusal(np.zeros(shape, np.uint8)) == (
        "An image array should have the shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4); "
        f"got {shape}.{hint}"
    )


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 5, 3), (5, 0, 4), (0, 0, 1)])
def test_arrays_without_pixels_are_refused(shape):
    told = f"An image array should hold pixels; got the shape {shape}."
    assert refusal(np.zeros(shape, np.uint8)) == told


def test_arrays_and_pil_images_have_the_limit_of_pixels():
    limits = ImageLimits(max_pixels=SCENE.shape[0] * SCENE.shape[1] - 1)
    assert refusal(SCENE, limits=limits).startswith("the array is 23x17 = 391 pixels; the limit")
    assert "the PIL image is 23x17 = 391" in refusal(Image.fromarray(SCENE), limits=limits)
    huge = np.broadcast_to(np.float64(0), (30_000, 30_000))
    assert "900,000,000 pixels; the limit is 120,000,000" in refusal(huge)


# ---- PIL images


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_pil_modes_are_what_pillow_converts(mode):
    image = Image.fromarray(SCENE).convert(mode)
    assert not is_many(image)
    assert np.array_equal(load_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "PA"])
def test_pil_grey_or_palette_with_alpha(mode):
    image = Image.fromarray(SCENE).convert("L").convert("LA").convert(mode)
    assert np.array_equal(load_image(image), np.dstack([np.asarray(image.convert("L"))] * 3))


@pytest.mark.parametrize("alpha", [0, 128])
def test_pil_alpha_is_dropped(alpha):
    image = Image.fromarray(SCENE)
    image.putalpha(alpha)
    assert np.array_equal(load_image(image), SCENE)


@pytest.mark.parametrize("transparency", [2, bytes(range(0, 160, 10))])
def test_pil_palette_with_transparency_gives_no_warning(transparency):
    image = Image.fromarray(SCENE).quantize(16)
    want = np.asarray(image.convert("RGB"))
    image.info["transparency"] = transparency
    assert np.array_equal(load_image(image), want)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B"])
def test_pil_sixteen_bit_keeps_the_high_byte(mode):
    values = np.arange(0, 65536, 257 * 3 + 1, dtype=np.uint16)[:84].reshape(7, 12)
    wide = values.astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (12, 7), wide.tobytes())
    assert np.array_equal(load_image(image), np.dstack([values // 256] * 3))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pil_thirty_two_bits_are_refused_with_advice(mode):
    assert refusal(Image.new(mode, (4, 3), 1)) == (
        f"A PIL image should have 8 or 16 bits a value; got the mode {mode!r} (32 bits). "
        'Scale its values to 0-255 and convert it to "L".'
    )


def test_pil_images_that_cannot_be_read_are_refused(tmp_path):
    cut = Image.open(io.BytesIO(maker.encode(maker.photo(), "JPEG")[:-200]))
    assert "The PIL image cannot be read: image file is truncated" in refusal(cut)
    odd = Image.frombytes("La", (2, 2), bytes(8))
    assert "Load or save it again as RGB" in refusal(odd)
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    closed = Image.open(path)
    closed.close()
    assert "The PIL image cannot be read" in refusal(closed)


def test_pil_empty_image_is_refused():
    assert "should hold pixels" in refusal(Image.new("RGB", (0, 5)))


# ---- many


def test_what_stands_for_many():
    many = [[], ["a.png"], (PNG,), {PNG}, iter([PNG]), (x for x in [PNG]), np.zeros((2, 4, 5, 3))]
    assert [is_many(source) for source in many] == [True] * len(many)
    one = ["a.png", Path("a"), PNG, io.BytesIO(PNG), SCENE, SCENE[..., 0], np.zeros(3), None, 7]
    assert [is_many(source) for source in one] == [False] * len(one)


def test_load_images_takes_lists_iterators_and_four_dimensions():
    stack = np.stack([SCENE, 255 - SCENE])
    for sources in ([SCENE, 255 - SCENE], iter(stack), stack, (image for image in stack)):
        assert np.array_equal(np.stack(list(load_images(sources))), stack)
    assert np.array_equal(next(load_images([SCENE], color="bgr")), SCENE[..., ::-1])
    assert list(load_images([])) == []
    limits = ImageLimits(max_pixels=5)
    with pytest.raises(ImageError, match="the limit is 5"):
        next(load_images([SCENE], limits=limits))


def test_load_images_reads_one_at_a_time():
    images = load_images(iter([PNG, b"broken", PNG]))
    assert np.array_equal(next(images), SCENE)
    with pytest.raises(ImageError, match="first bytes are b'broken'"):
        next(images)


@pytest.mark.parametrize("source", ["a.png", Path("a.png"), PNG, SCENE, io.BytesIO(PNG), None])
def test_load_images_refuses_a_single_picture(source):
    with pytest.raises(InputError, match="should get a list or iterator.*Use load_image for one"):
        load_images(source)


# ---- finding pictures


def tree(root: Path, names: list[str]) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_find_images_walks_folders_in_order_without_the_hidden(tmp_path):
    shown = ["B.PNG", "a/z.tif", "a/é.webp", "a-b.jpg", "b/c/d.jpeg", "c.bmp", "dir.jpg/x.TIFF"]
    hidden = [
        ".h.jpg",
        ".git/a.jpg",
        "a/.thumbs/b.jpg",
        "a/.c.png",
        "b/notes.txt",
        "gif.gif",
        "jpg",
    ]
    tree(tmp_path, shown + hidden)
    assert find_images([tmp_path]) == sorted(tmp_path / name for name in shown)
    assert find_images([str(tmp_path / "b"), tmp_path / "a"]) == [
        tmp_path / "b/c/d.jpeg",
        tmp_path / "a/z.tif",
        tmp_path / "a/é.webp",
    ]


def test_find_images_takes_what_is_named(tmp_path):
    tree(tmp_path, [".git/a.jpg", "b.txt", ".c.png"])
    named = [tmp_path / "b.txt", tmp_path / ".c.png", tmp_path / "b.txt"]
    assert find_images(named) == named
    assert find_images([tmp_path / ".git"]) == [tmp_path / ".git/a.jpg"]
    assert find_images([]) == []


def test_find_images_takes_a_single_place(tmp_path):
    tree(tmp_path, ["a.jpg"])
    assert find_images(tmp_path) == find_images(str(tmp_path)) == [tmp_path / "a.jpg"]


def test_find_images_tells_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=f"No such file or folder: {tmp_path}/x. Check the spell"):
        find_images([tmp_path / "x"])
    with pytest.raises(InputError, match="No such file or folder: a\0b"):
        find_images(["a\0b"])
    with pytest.raises(InputError, match=r"Cannot look at x+\.\.\.x+: File name too long"):
        find_images(["x" * 5000])


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.jpg", True), ("A.JPEG", True), ("x/y.b.TiF", True), (".a.jpg", False), ("jpg", False),
     ("a.jpg.txt", False), ("a.gif", False), (".jpg", False), ("a.", False)],
)  # fmt: skip
def test_image_names(name, shown):
    assert is_image_name(Path(name)) is shown
