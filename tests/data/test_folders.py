"""Folders of people: who is found, in which order, and what is told when nobody is."""

from __future__ import annotations

from pathlib import Path

import pytest

from facenet.data.folders import Sample, read_class_folders, read_people
from facenet.errors import DataError


def grow(root: Path, *names: str) -> Path:
    """Empty files below root, with their folders; a name that ends with / is a folder."""
    for name in names:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    return root


def relative(root: Path, people: dict[str, list[Path]]) -> dict[str, list[str]]:
    return {
        name: [path.relative_to(root).as_posix() for path in paths]
        for name, paths in people.items()
    }


def test_people_are_folders_and_loose_files(tmp_path):
    grow(tmp_path, "Zoë/2.jpg", "Zoë/1.PNG", "Zoë/deep/er/3.webp", "Ann.jpeg", "Bob Lee.tif")
    assert relative(tmp_path, read_people(tmp_path)) == {
        "Ann": ["Ann.jpeg"],
        "Bob Lee": ["Bob Lee.tif"],
        "Zoë": ["Zoë/1.PNG", "Zoë/2.jpg", "Zoë/deep/er/3.webp"],
    }
    assert read_people(str(tmp_path)) == read_people(tmp_path)


def test_people_come_in_sorted_order(tmp_path):
    grow(tmp_path, *(f"{name}/1.jpg" for name in "qazwsx"), "b.jpg")
    assert list(read_people(tmp_path)) == sorted("qazwsxb")


def test_a_folder_and_files_of_one_name_are_one_person(tmp_path):
    grow(tmp_path, "Ann/1.jpg", "Ann.jpg", "Ann.png", "J. R. Doe.bmp")
    assert relative(tmp_path, read_people(tmp_path)) == {
        "Ann": ["Ann/1.jpg", "Ann.jpg", "Ann.png"],
        "J. R. Doe": ["J. R. Doe.bmp"],
    }


def test_what_is_hidden_or_no_picture_is_passed_over(tmp_path):
    grow(
        tmp_path,
        "Ann/1.jpg",
        "Ann/.2.jpg",
        "Ann/.cache/3.jpg",
        "Ann/notes.txt",
        ".git/a.jpg",
        ".Bob.jpg",
        "readme.md",
        "Empty/",
        "Texts/a.txt",
        "pictures.jpg/1.png",
    )
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    people = {"Ann": ["Ann/1.jpg"], "pictures.jpg": ["pictures.jpg/1.png"]}
    assert relative(tmp_path, read_people(tmp_path)) == people
    samples = [Sample(name, tmp_path / path) for name, paths in people.items() for path in paths]
    assert read_class_folders(tmp_path) == samples


def test_a_linked_folder_is_a_person(tmp_path):
    grow(tmp_path, "store/x/1.jpg", "people/")
    (tmp_path / "people/Ann").symlink_to(tmp_path / "store/x", target_is_directory=True)
    assert [s.person for s in read_class_folders(tmp_path / "people")] == ["Ann"]
    assert list(read_people(tmp_path / "people")) == ["Ann"]


def test_class_folders_are_the_people_without_loose_files(tmp_path):
    grow(tmp_path, "b/2.jpg", "b/1.jpg", "a/x/3.png", "loose.jpg", "a/text.txt")
    assert read_class_folders(tmp_path) == [
        Sample("a", tmp_path / "a/x/3.png"),
        Sample("b", tmp_path / "b/1.jpg"),
        Sample("b", tmp_path / "b/2.jpg"),
    ]
    people = read_people(tmp_path)
    del people["loose"]
    samples = [Sample(name, path) for name, paths in people.items() for path in paths]
    assert read_class_folders(str(tmp_path)) == samples


@pytest.mark.parametrize("read", [read_people, read_class_folders])
def test_a_folder_without_a_picture_is_refused(tmp_path, read):
    grow(tmp_path, "Ann/notes.txt", ".hidden.jpg", ".git/a.jpg")
    with pytest.raises(DataError) as refused:
        read(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path} should hold ")
    assert ".jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff" in message
    assert message.endswith((" Put one there for each person.", " a folder of their name."))


def test_loose_files_are_no_class_folders(tmp_path):
    grow(tmp_path, "Ann.jpg")
    with pytest.raises(DataError, match="should hold sub-folders with pictures.*it holds none"):
        read_class_folders(tmp_path)


@pytest.mark.parametrize("read", [read_people, read_class_folders])
def test_a_place_that_is_no_folder_is_refused(tmp_path, read):
    grow(tmp_path, "a.jpg")
    for place, came in ((tmp_path / "x", "there is no such folder"), (tmp_path / "a.jpg", "it is")):
        with pytest.raises(DataError, match=f"{place} should be a folder of people; {came}.*Check"):
            read(place)
    with pytest.raises(DataError, match="Cannot read the folder of people x+: File name too long"):
        read("x" * 5000)
