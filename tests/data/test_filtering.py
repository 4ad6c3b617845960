"""Filtering by distance to the centre: against loops, facenet's own code, and lists on disk."""

from __future__ import annotations

import numpy as np
import pytest

from facenet.data.filtering import (
    Filtered,
    centre_distances,
    filter_by_distance,
    histogram_threshold,
    read_filtered,
    write_filtered,
)
from facenet.errors import DataError, InputError, SettingsError


def made(seed: int = 0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, 40)
    labels[:4] = [0, 1, 2, 6]
    return random.normal(size=(40, 8)).astype(np.float32), labels


def test_distances_are_those_of_the_definition():
    embeddings, labels = made()
    for row, (vector, label) in enumerate(zip(embeddings, labels, strict=True)):
        theirs = [e / np.linalg.norm(e) for e in embeddings[labels == label].astype(float)]
        wanted = np.linalg.norm(vector / np.linalg.norm(vector) - np.mean(theirs, axis=0))
        assert centre_distances(embeddings, labels)[row] == pytest.approx(wanted, abs=1e-6)


def find_threshold(var, percentile):
    """facenet's own function (``train_softmax.py``), as it was written."""
    hist, bin_edges = np.histogram(var, 100)
    cdf = np.float32(np.cumsum(hist)) / np.sum(hist)
    bin_centers = (bin_edges[:-1] + bin_edges[1:]) / 2
    return np.interp(percentile * 0.01, cdf, bin_centers)


@pytest.mark.parametrize("percentile", [1, 50, 90, 100])
@pytest.mark.parametrize("exact", [True, False])
def test_what_is_kept_is_what_a_loop_keeps(percentile, exact):
    embeddings, labels = made(1)
    distances = centre_distances(embeddings, labels)
    names = [f"p{row}" for row in range(40)]
    filtered = filter_by_distance(
        names, labels, distances, percentile=percentile, min_images=1, exact=exact
    )
    if exact:
        limit = sorted(distances)[int(np.ceil(percentile * 40 / 100)) - 1]
        near = [distance <= limit for distance in distances]
        assert sum(near) == np.ceil(percentile * 40 / 100)
    else:
        limit = find_threshold(distances, percentile)
        assert histogram_threshold(distances, percentile) == limit
        near = [distance < limit for distance in distances]
    assert filtered.keep.tolist() == near
    assert [reason == "" for reason in filtered.reasons] == near
    assert filtered.rows(names).tolist() == [row for row in range(40) if near[row]]
    assert filtered.rows(names[::-1]).tolist() == [row for row in range(40) if near[39 - row]]


def test_people_with_too_few_left_go_also_those_who_had_few():
    labels = np.array([0, 0, 0, 1, 1, 2])
    distances = np.array([0.1, 0.2, 0.9, 0.1, 0.8, 0.3])
    filtered = filter_by_distance("abcdef", labels, distances, percentile=66, min_images=2)
    assert filtered.keep.tolist() == [True, True, False, False, False, False]
    assert list(filtered.reasons) == [
        "",
        "",
        "0.9000 from the centre of its person, more than 0.3000",
        "1 kept of its person, fewer than 2",
        "0.8000 from the centre of its person, more than 0.3000",
        "1 kept of its person, fewer than 2",
    ]


def test_a_list_comes_back_from_disk(tmp_path):
    names = ["a,b/1.jpg", 'q"uote.png', "ß\n2.jpg", b"\xff.png".decode("utf-8", "surrogateescape")]
    filtered = Filtered(names, np.array([True, False, True, False]), ["", "x, y", "", "z"])
    write_filtered(filtered, tmp_path / "deep" / "kept.csv")
    back = read_filtered(tmp_path / "deep" / "kept.csv")
    assert list(back.pictures) == names
    assert back.keep.tolist() == filtered.keep.tolist()
    assert list(back.reasons) == list(filtered.reasons)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected the columns picture,keep,reason"),
        ("picture,keep\n", "line 1: expected the columns"),
        (
            "picture,keep,reason\na,1\n",
            "line 2: expected a picture, 1 or 0, and a reason; got 'a,1'",
        ),
        ("picture,keep,reason\na,yes,\n", "line 2: .*got 'a,yes,'"),
        ("picture,keep,reason\na,1,\na,0,\n", "line 3: expected each picture once; got 'a again'"),
        ('picture,keep,reason\n"a"b,1,\n', "line 2: no CSV"),
        ("picture,keep,reason\na,0,\n", "nothing is kept"),
    ],
)
def test_a_list_that_is_none_is_told(tmp_path, text, message):
    path = tmp_path / "kept.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_filtered(path)


def test_what_does_not_fit_is_told():
    embeddings, labels = made()
    with pytest.raises(InputError, match="one vector and one label per picture"):
        centre_distances(embeddings[:3], labels)
    embeddings[0, 0] = np.nan
    with pytest.raises(InputError, match="finite vectors"):
        centre_distances(embeddings, labels)
    for percentile, least in ((0, 1), (101, 1), (50, 0)):
        with pytest.raises(SettingsError, match=f"got {percentile} and {least}"):
            filter_by_distance("a", [0], [0.0], percentile=percentile, min_images=least)
    with pytest.raises(InputError, match="got 2, 1 and 1"):
        filter_by_distance("ab", [0], [0.0], percentile=50)
    with pytest.raises(DataError, match="keep one or more; nothing is kept"):
        filter_by_distance("a", np.array([0]), np.array([0.1]), percentile=50, min_images=2)
    with pytest.raises(DataError, match="a name, a decision and a reason"):
        Filtered(["a"], np.array([True]), [])
    kept = Filtered(["a", "b"], np.array([True, False]), ["", "far"])
    with pytest.raises(DataError, match="1 are not on it, c for one"):
        kept.rows(["a", "c"])
    with pytest.raises(DataError, match="keeps none of this set"):
        kept.rows(["b"])
