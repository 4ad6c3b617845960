"""Vectors, each answer derived again: in float64, by loops, or from the geometry."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from facenet.errors import InputError
from facenet.vectors import SMALL, similarity, similarity_matrix, template, top_k, unit

RNG = np.random.default_rng(11)
A, B = RNG.normal(size=(5, 16)), RNG.normal(size=(7, 16))
VALUES = st.floats(-100, 100, width=32).filter(lambda v: v == 0 or abs(v) > 1e-3)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """By the definition, in Python's own floats."""
    dot = math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / (math.hypot(*map(float, a)) * math.hypot(*map(float, b)))


@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 9)), elements=VALUES))
@settings(max_examples=80, deadline=None)
def test_unit_keeps_the_direction_and_zero_stays_zero(vectors):
    scaled = unit(vectors)
    assert scaled.dtype == np.float32 and scaled.shape == vectors.shape
    for row, one in zip(vectors, scaled, strict=True):
        length = math.hypot(*map(float, row))
        if length == 0:
            assert not one.any()
        else:
            assert math.hypot(*map(float, one)) == pytest.approx(1, abs=1e-6)
            assert np.allclose(one * length, row, rtol=1e-5, atol=1e-5)


def test_unit_works_along_the_last_axis_and_leaves_its_input():
    stack = RNG.normal(size=(2, 3, 4))
    before = stack.copy()
    want = stack / np.sqrt((stack**2).sum(-1))[..., None]
    assert np.allclose(unit(stack), want, atol=1e-6)
    assert np.allclose(unit(stack[0, 0]), want[0, 0], atol=1e-6)
    assert np.array_equal(stack, before)
    assert unit([3, 4]).tolist() == pytest.approx([0.6, 0.8])
    assert unit(np.zeros((0, 4))).shape == (0, 4)


def test_unit_is_what_facenet_normalises_to():
    """TensorFlow's l2_normalize(x, 1, 1e-10): x * rsqrt(max(sum(x**2), 1e-10))."""
    want = A / np.sqrt(np.maximum((A**2).sum(1, keepdims=True), 1e-10))
    assert np.allclose(unit(A), want, atol=1e-7)


def test_similarity_is_the_cosine_row_by_row():
    got = similarity(A, B[:5])
    assert got.dtype == np.float32
    assert got.tolist() == pytest.approx(
        [cosine(a, b) for a, b in zip(A, B, strict=False)], abs=1e-6
    )
    assert similarity(A[0], B[0]).shape == ()
    assert float(similarity(A[0], B[0])) == pytest.approx(cosine(A[0], B[0]), abs=1e-6)


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 135, 180])
def test_similarity_of_an_angle(degrees):
    turn = math.radians(degrees)
    a, b = np.array([2.0, 0.0]), 5 * np.array([math.cos(turn), math.sin(turn)])
    assert float(similarity(a, b)) == pytest.approx(math.cos(turn), abs=1e-6)


def test_similarity_broadcasts_one_against_many():
    want = [cosine(A[0], b) for b in B]
    for one in (A[0], A[:1]):
        assert similarity(one, B).tolist() == pytest.approx(want, abs=1e-6)
        assert similarity(B, one).tolist() == pytest.approx(want, abs=1e-6)


def test_similarity_matrix_is_every_pair():
    got = similarity_matrix(A, B)
    assert got.dtype == np.float32 and got.shape == (5, 7)
    want = [[cosine(a, b) for b in B] for a in A]
    assert np.allclose(got, want, atol=1e-6)
    assert np.allclose(got.T, similarity_matrix(B, A), atol=1e-6)
    assert similarity_matrix(A[:0], B).shape == (0, 7)


@given(arrays.arrays(np.float32, (4, 5), elements=VALUES))
@settings(max_examples=60, deadline=None)
def test_similarity_never_leaves_its_range(vectors):
    for scores in (similarity_matrix(vectors, vectors), similarity(vectors, -vectors)):
        assert np.all((scores >= -1) & (scores <= 1))
    lengths = np.hypot.reduce(vectors.astype(float), axis=1)
    own = np.diag(similarity_matrix(vectors, vectors))
    assert np.allclose(own, lengths > 0, atol=1e-6)


def test_vectors_of_different_models_are_refused():
    for compare in (similarity, similarity_matrix):
        with pytest.raises(InputError) as refused:
            compare(A, np.zeros((7, 128)))
        assert str(refused.value) == (
            "Vectors to compare should have the same number of values; got (5, 16) and (7, 128). "
            "They come from different models: embed both with one model."
        )


def test_rows_that_do_not_pair_up_are_refused():
    with pytest.raises(InputError, match=r"equal numbers.*got \(5, 16\) and \(7, 16\). Use simil"):
        similarity(A, B)


def test_template_is_the_direction_of_the_mean_direction():
    rows = [a / math.hypot(*a) for a in A]
    mean = np.mean(rows, axis=0)
    got = template(A * np.array([[1], [9], [0.1], [3], [100]]))
    assert got.dtype == np.float32 and got.shape == (16,)
    assert np.allclose(got, mean / math.hypot(*mean), atol=1e-6)


def test_template_of_one_vector_is_its_unit_vector():
    for one in (A[0], A[:1], A[:1] * 7):
        assert np.allclose(template(one), A[0] / math.hypot(*A[0]), atol=1e-6)


def test_template_weights_are_like_repeated_vectors():
    repeated = np.concatenate([A[:1]] * 3 + [A[1:2]] * 2 + [A[3:4]])
    for scale in (1, 0.01):
        weights = [3 * scale, 2 * scale, 0, scale, 0]
        assert np.allclose(template(A, weights), template(repeated), atol=1e-6)
    assert np.allclose(template(A, [2] * 5), template(A), atol=1e-6)


@pytest.mark.parametrize("nothing", [[], np.zeros((0, 8)), np.zeros(0)])
def test_template_of_nothing_is_refused(nothing):
    with pytest.raises(InputError, match="should be made of at least one vector; got none"):
        template(nothing)


@pytest.mark.parametrize(
    "weights", [[1], [1, 2, 3], [1, -1, 1, 1, 1], [0] * 5, [[1] * 5], [1, 1, 1, 1, math.nan], []]
)
def test_template_weights_that_do_not_fit_are_refused(weights):
    told = "The weights of 5 vectors should be 5 numbers, 0 or more and not all 0; got "
    with pytest.raises(InputError, match=told):
        template(A, weights)


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 12)),
        elements=st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.25, 1.0]),
    ),
    st.integers(-1, 14),
)
@settings(max_examples=100, deadline=None)
def test_top_k_is_the_sorted_table(scores, k):
    got = top_k(scores, k)
    assert got.dtype == np.int64
    for row, columns in zip(scores, got, strict=True):
        ranked = sorted(range(len(row)), key=lambda column: (-row[column], column))
        assert columns.tolist() == ranked[: max(k, 0)]


def test_top_k_of_one_row_and_of_nan():
    assert top_k(np.array([0.1, 0.9, 0.5]), 2).tolist() == [[1, 2]]
    assert top_k(np.array([np.nan, 0.1, np.nan, 0.9]), 3).tolist() == [[3, 1, 0]]
    assert top_k(np.zeros((0, 4)), 2).shape == (0, 2)


@pytest.mark.parametrize("rows", [1, 7, 40])
def test_small_and_large_tables_are_the_same_products(rows):
    """On both sides of the size from which threads are woken, against sums written out."""
    random = np.random.default_rng(rows)
    width = 256
    many = SMALL // (rows * width) + 1
    a = random.normal(size=(rows, width)).astype(np.float32)
    b = random.normal(size=(many, width)).astype(np.float32)
    large, small = similarity_matrix(a, b), similarity_matrix(a, b[:-1])
    assert large.shape == (rows, many) and small.shape == (rows, many - 1)
    np.testing.assert_allclose(large[:, :-1], small, atol=2e-6)
    x, y = a[0].astype(np.float64), b[3].astype(np.float64)
    exact = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    assert small[0, 3] == pytest.approx(exact, abs=1e-6)
