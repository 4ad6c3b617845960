"""Lists of people to be enrolled."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.data.roster import Listed, read_roster
from facenet.errors import DataError


def written(folder: Path, text: str) -> Path:
    path = folder / "people.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_photos_are_gathered_by_person_in_the_order_of_the_file(tmp_path: Path) -> None:
    people = read_roster(
        written(
            tmp_path,
            "person,photo,external_id,team\n"
            "Grace,g/1.jpg,E-1,navy\n"
            '"Ångström, Zoë",z.jpg,,\n'
            "Grace,/abs/2.jpg,E-1,\n"
            "Grace,g/3.jpg,E-2,\n"
            '"Ångström, Zoë",z2.jpg,,maths\n',
        )
    )
    assert people == [
        Listed("Grace", [tmp_path / "g/1.jpg", Path("/abs/2.jpg")], "E-1", {"team": "navy"}),
        Listed("Ångström, Zoë", [tmp_path / "z.jpg", tmp_path / "z2.jpg"], None, {"team": "maths"}),
        Listed("Grace", [tmp_path / "g/3.jpg"], "E-2", {}),
    ]


def test_only_person_and_photo_are_needed(tmp_path: Path) -> None:
    assert read_roster(written(tmp_path, "photo,person\na.jpg,Ann\n")) == [
        Listed("Ann", [tmp_path / "a.jpg"])
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,photo\nAnn,a.jpg\n", "a header with person, photo"),
        ("person,photo,photo\nAnn,a.jpg,b.jpg\n", "a header with person, photo"),
        ("person,photo\nAnn\n", "2 cells with a person and a photo"),
        ("person,photo\n,a.jpg\n", "2 cells with a person and a photo"),
        ("person,photo\nAnn,\n", "2 cells with a person and a photo"),
        ("person,photo,external_id\nAnn,a.jpg,1\nBob,b.jpg,1\n", "the name Ann for 1"),
        ("person,photo,team\nAnn,a.jpg,x\nAnn,b.jpg,y\n", "team x, as before"),
        ('person,photo\n"Ann,a.jpg\n', "cells with commas"),
        ("person,photo\n", "holds no photo"),
        ("", "holds no photo"),
    ],
)
def test_lines_that_say_nothing_sensible_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read_roster(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is none"):
        read_roster(tmp_path / "no.csv")
