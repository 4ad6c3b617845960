"""What tells one picture from another, by its bytes or its pixels."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from facenet.errors import ImageError
from facenet.images import load_image, load_with_digest


def test_files_are_known_by_their_bytes(examples):
    path = examples / "photos/hopper-rendition.jpg"
    expected = hashlib.sha256(path.read_bytes()).hexdigest()
    for source in (path, str(path), path.read_bytes(), io.BytesIO(path.read_bytes())):
        pixels, digest = load_with_digest(source)
        assert digest == expected
        assert np.array_equal(pixels, load_image(path))


def test_arrays_are_known_by_their_shape_and_pixels():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    pixels, digest = load_with_digest(image)
    assert digest == hashlib.sha256(b"(6, 8, 3)" + image.tobytes()).hexdigest()
    assert np.array_equal(pixels, image)
    assert load_with_digest(image[..., ::-1], color="bgr")[1] == digest
    assert load_with_digest(Image.fromarray(image))[1] == digest
    assert load_with_digest(image.reshape(8, 6, 3))[1] != digest
    assert load_with_digest(255 - image)[1] != digest


def test_what_is_no_picture_has_no_digest(tmp_path):
    with pytest.raises(ImageError):
        load_with_digest(tmp_path / "none.jpg")
    with pytest.raises(ImageError):
        load_with_digest(b"")
