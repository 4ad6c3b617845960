"""Products of 8-bit integers: exact on every value, and never by arithmetic that is not."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facenet.errors import InputError
from facenet.products import NumpyProducts, OrtProducts, best_products, choose, exact

EVERY = [NumpyProducts(), OrtProducts(127), OrtProducts(64)]


def pairs(n, d, m, limit, rng):
    """Random rows and queries, and among them the largest there are."""
    rows = rng.integers(0, 256, (n, d), dtype=np.uint8)
    queries = rng.integers(-limit, limit + 1, (d, m)).astype(np.int8)
    rows[0], queries[:, 0] = 255, limit
    queries[:, -1] = -limit
    rows[-1, ::2] = 0
    return rows, queries


@pytest.mark.parametrize("products", EVERY, ids=["numpy", "ort127", "ort64"])
@pytest.mark.parametrize("d", [1, 3, 128, 192, 512, 513, 1025, 4099])
def test_products_are_those_of_integers(products, d):
    rng = np.random.default_rng(d)
    for n, m in ((1, 1), (2, 5), (1030, 3), (67, 64)):
        rows, queries = pairs(n, d, m, products.limit, rng)
        out = np.full((n, m), -7, np.int32)
        products.multiply(rows, queries, out)
        for i, j in {(0, 0), (n - 1, m - 1), (n // 2, m // 2)}:
            terms = zip(rows[i].tolist(), queries[:, j].tolist(), strict=True)
            assert out[i, j] == sum(a * b for a, b in terms)
        assert np.array_equal(out, rows.astype(np.int64) @ queries.astype(np.int64))


def test_the_widest_rows_stay_within_32_bits():
    rows = np.full((1, 65_536), 255, np.uint8)
    queries = np.full((65_536, 1), -127, np.int8)
    out = np.empty((1, 1), np.int32)
    for products in EVERY[:2]:
        products.multiply(rows, queries, out)
        assert out[0, 0] == -127 * 255 * 65_536


def test_several_threads_may_multiply_at_once():
    rng = np.random.default_rng(1)
    work = [pairs(500, 512, 8, 127, rng) for _ in range(12)]
    outs = [np.empty((500, 8), np.int32) for _ in work]
    with ThreadPoolExecutor(4) as pool:
        products = best_products()
        list(
            pool.map(
                lambda part: products.multiply(*part[0], part[1]), zip(work, outs, strict=True)
            )
        )
    for (rows, queries), out in zip(work, outs, strict=True):
        assert np.array_equal(out, rows.astype(np.int64) @ queries.astype(np.int64))


class Saturating:
    """AVX2 without VNNI: `vpmaddubsw` adds two products in 16 bits, which may not hold them."""

    def __init__(self, limit):
        self.limit = limit

    def multiply(self, rows, queries, out):
        wide = np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).astype(np.int64)
        tall = np.pad(queries, ((0, queries.shape[0] % 2), (0, 0))).astype(np.int64)
        first = wide[:, ::2, None] * tall[None, ::2]
        second = wide[:, 1::2, None] * tall[None, 1::2]
        out[:] = np.clip(first + second, -(2**15), 2**15 - 1).sum(axis=1)


class Broken:
    limit = 127

    def multiply(self, rows, queries, out):
        raise RuntimeError("Illegal instruction")


def test_saturating_products_are_found_out():
    assert all(map(exact, EVERY))
    assert not exact(Saturating(127))
    assert exact(Saturating(64))
    assert choose(lambda limit=limit: Saturating(limit) for limit in (127, 64)).limit == 64


def test_numpy_takes_over_where_nothing_else_is_exact():
    for maker in (Broken, lambda: Saturating(100)):
        assert isinstance(choose([maker]), NumpyProducts)
    assert isinstance(choose([]), NumpyProducts)


@pytest.mark.parametrize("products", EVERY[:2], ids=["numpy", "ort"])
def test_what_does_not_fit_is_refused(products):
    rows, queries = np.zeros((4, 6), np.uint8), np.zeros((6, 2), np.int8)
    out = np.zeros((4, 2), np.int32)
    for bad in (
        (rows.astype(np.int8), queries, out),
        (rows[:, ::2], queries[:3], out),
        (rows, queries[:5], out),
        (rows, queries, np.zeros((4, 3), np.int32)),
        (rows, queries, np.zeros((4, 2), np.int64)),
        (rows[0], queries, out),
    ):
        with pytest.raises(InputError, match="should be contiguous uint8"):
            products.multiply(*bad)


def test_nothing_is_loaded_before_it_is_used():
    code = (
        "import facenet.products, facenet.gallery.index, sys; print('onnxruntime' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
