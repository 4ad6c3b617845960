"""Drawing: where the colour is, where it is not, and files that are whole or not there."""

import os

import cv2
import numpy as np
import pytest
from fakes import toy_faces

from facenet.errors import InputError, StorageError
from facenet.faces.draw import (
    KNOWN_COLOR,
    UNKNOWN_COLOR,
    draw_faces,
    draw_tracks,
    save_image,
    track_color,
)
from facenet.types import Faces

GREY = 90


def canvas(height=300, width=400):
    return np.full((height, width, 3), GREY, np.uint8)


def painted(image):
    """Where a picture is no longer grey."""
    return np.any(image != GREY, axis=2)


def test_the_photo_itself_is_left_alone():
    photo = canvas()
    photo.setflags(write=False)
    drawn = draw_faces(photo, toy_faces((100, 100, 180, 200)), ["Ada"])
    assert np.all(photo == GREY) and painted(drawn).any()
    view = np.zeros((300, 400, 3), np.uint8)[:, ::-1, ::-1]
    assert painted(draw_faces(view, toy_faces((100, 100, 180, 200)), ["Ada"])).any()
    assert np.all(view == 0)


def test_without_faces_the_copy_equals_the_photo():
    drawn = draw_faces(canvas(), Faces.empty(), [])
    assert np.array_equal(drawn, canvas())


@pytest.mark.parametrize(("label", "color"), [("Ada", KNOWN_COLOR), (None, UNKNOWN_COLOR)])
def test_the_box_has_its_colour_on_the_edge_and_nothing_inside(label, color):
    x1, y1, x2, y2 = 100, 100, 180, 200
    drawn = draw_faces(canvas(), toy_faces((x1, y1, x2, y2)), [label])
    middle_x, middle_y = (x1 + x2) // 2, (y1 + y2) // 2
    for x, y in ((x1, middle_y), (x2, middle_y), (middle_x, y2), (x1, y1), (x2, y2)):
        assert tuple(drawn[y, x]) == color
    assert not painted(drawn)[y1 + 4 : y2 - 3, x1 + 4 : x2 - 3].any()
    # Nothing left of the box, right of it or below it.
    outside = painted(drawn)
    assert not outside[:, : x1 - 4].any() and not outside[y2 + 4 :].any()


def test_every_face_has_its_own_label_and_colour():
    faces = toy_faces((20, 60, 80, 130), (200, 60, 260, 130))
    drawn = draw_faces(canvas(), faces, ["Ada", None])
    assert tuple(drawn[95, 20]) == KNOWN_COLOR and tuple(drawn[95, 200]) == UNKNOWN_COLOR
    swapped = draw_faces(canvas(), faces, [None, "Ada"])
    assert tuple(swapped[95, 20]) == UNKNOWN_COLOR and tuple(swapped[95, 200]) == KNOWN_COLOR


def test_the_word_for_unknown_can_be_chosen():
    faces = toy_faces((100, 100, 180, 200))
    named = draw_faces(canvas(), faces, [None], unknown="inconnu")
    assert not np.array_equal(named, draw_faces(canvas(), faces, [None]))
    assert not np.array_equal(named, draw_faces(canvas(), faces, ["inconnu"]))  # the colour


def test_an_empty_label_is_only_a_box():
    drawn = draw_faces(canvas(), toy_faces((100, 100, 180, 200)), [""])
    assert not painted(drawn)[:95].any()


def written(image):
    """How many pixels are letters: nearer to white than to any of the colours."""
    return int(np.all(image > 170, axis=2).sum())


@pytest.mark.parametrize(
    "box",
    [
        (100, 100, 180, 200),
        (-30, -20, 60, 80),  # over the top left corner
        (350, 2, 440, 90),  # over the right border, no room above
        (340, 230, 430, 330),  # over the bottom right corner
        (0, 0, 400, 300),  # the whole photo
        (-50, -50, 450, 350),  # more than that
        (10, 298, 60, 360),  # almost below
        (150, -90, 220, 3),  # almost above
    ],
)
def test_the_label_lies_in_the_photo(box):
    drawn = draw_faces(canvas(), toy_faces(box), ["Ada Lovelace"])
    bare = draw_faces(canvas(), toy_faces(box), [""])
    rows, columns = np.nonzero(np.any(drawn != bare, axis=2))
    # The same label drawn in the open: its patch is whole here too.
    free = draw_faces(canvas(), toy_faces((100, 100, 180, 200)), ["Ada Lovelace"])
    free_rows, free_columns = np.nonzero(
        np.any(free != draw_faces(canvas(), toy_faces((100, 100, 180, 200)), [""]), axis=2)
    )
    tall, wide = np.ptp(free_rows), np.ptp(free_columns)
    assert np.ptp(columns) >= wide - 4 and np.ptp(rows) >= tall - 4
    assert written(free) > 100 and written(drawn) == written(free)


def test_a_label_wider_than_the_photo_starts_inside():
    drawn = draw_faces(canvas(), toy_faces((350, 100, 390, 140)), ["a very long name " * 5])
    assert written(drawn[:, :40]) > 20 and written(drawn[:, -40:]) > 20


@pytest.mark.parametrize("name", ["Zoë", "Иван", "李娜", "محمد", "한국"])
def test_names_of_all_scripts_are_written(name):
    faces = toy_faces((100, 100, 180, 200))
    drawn = draw_faces(canvas(), faces, [name])
    assert written(drawn) > 40
    for stand_in in ("?" * len(name), "\ufffd" * len(name), "", name[:-1]):
        assert not np.array_equal(drawn, draw_faces(canvas(), faces, [stand_in]))


def test_lines_follow_the_size_of_the_photo():
    def line(side):
        photo = canvas(side, side)
        box = toy_faces((0.25 * side, 0.25 * side, 0.75 * side, 0.75 * side))
        return int(painted(draw_faces(photo, box, [""]))[side // 2, : side // 2].sum())

    assert line(200) <= 5 < line(2000)


def test_another_number_of_labels_is_refused():
    with pytest.raises(InputError, match="got 2 for 1 faces"):
        draw_faces(canvas(), toy_faces((100, 100, 180, 200)), ["Ada", "Bob"])


# ---- files


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a", "a.bmp", "Zoë 李.png"])
def test_a_lossless_file_holds_the_picture(tmp_path, name):
    image = np.random.RandomState(0).randint(0, 256, (20, 30, 3)).astype(np.uint8)
    path = tmp_path / "made/for it" / name
    save_image(image, path)
    stored = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.array_equal(stored, image)
    assert os.listdir(path.parent) == [name]


def test_a_jpeg_is_close_to_the_picture(tmp_path):
    image = np.full((32, 32, 3), (200, 40, 90), np.uint8)
    save_image(image, tmp_path / "a.jpg")
    data = (tmp_path / "a.jpg").read_bytes()
    assert data[:3] == b"\xff\xd8\xff"
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert np.abs(stored.astype(int) - image).max() <= 4


def test_an_older_file_is_replaced(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"older")
    save_image(canvas(8, 8), path)
    assert cv2.imread(str(path)).shape == (8, 8, 3)
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("name", ["a.xyz", "a.txt", "a.d/b.pngg"])
def test_a_format_that_cannot_be_written_is_refused(tmp_path, name):
    with pytest.raises(StorageError, match=r"use \.png or \.jpg"):
        save_image(canvas(8, 8), tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_picture_too_large_for_its_format_is_refused(tmp_path, capfd):
    with pytest.raises(StorageError, match=r"too large for \.jpg\. Use \.png"):
        save_image(canvas(1, 70_000), tmp_path / "a.jpg")
    assert os.listdir(tmp_path) == []


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "taken").write_bytes(b"mine")
    for path in (tmp_path / "taken/a.png", tmp_path / "taken/deeper/a.png"):
        with pytest.raises(StorageError, match="Cannot write .*a.png"):
            save_image(canvas(8, 8), path)
    assert (tmp_path / "taken").read_bytes() == b"mine"
    assert os.listdir(tmp_path) == ["taken"]


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "a.png").mkdir()
    (tmp_path / "a.png/kept").write_bytes(b"mine")
    with pytest.raises(StorageError, match="Cannot write"):
        save_image(canvas(8, 8), tmp_path / "a.png")
    assert os.listdir(tmp_path) == ["a.png"] and os.listdir(tmp_path / "a.png") == ["kept"]


def test_a_name_too_long_for_the_disk(tmp_path):
    with pytest.raises(StorageError, match="Cannot write"):
        save_image(canvas(8, 8), tmp_path / ("a" * 300 + ".png"))
    assert os.listdir(tmp_path) == []


# ---- tracks


def tracked(*pairs):
    """Faces of (track, box)."""
    return toy_faces(*(box for _, box in pairs)).with_(track_id=[track for track, _ in pairs])


BOX = (100, 100, 180, 200)


def test_a_track_keeps_its_colour_wherever_and_whoever_it_is():
    for labels in ({}, {7: None}, {7: "Ada"}):
        for box in (BOX, (30, 120, 90, 190)):
            drawn = draw_tracks(canvas(), tracked((7, box)), labels)
            assert tuple(drawn[(box[1] + box[3]) // 2, box[0]]) == track_color(7)
    pair = draw_tracks(canvas(), tracked((2, (20, 60, 80, 130)), (3, (200, 60, 260, 130))), {})
    assert tuple(pair[95, 20]) == track_color(2) and tuple(pair[95, 200]) == track_color(3)


def test_colours_of_tracks_are_apart_and_white_letters_can_be_read_on_them():
    colours = np.array([track_color(track) for track in range(1, 1000)], float)
    for first in range(990):
        near = np.linalg.norm(colours[first + 1 : first + 5] - colours[first], axis=1)
        assert near.min() > 45
    linear = np.where(
        colours <= 10, colours / 255 / 12.92, ((colours / 255 + 0.055) / 1.055) ** 2.4
    )
    contrast = 1.05 / (linear @ [0.2126, 0.7152, 0.0722] + 0.05)  # WCAG 2: 3 for large letters
    assert contrast.min() >= 3
    assert track_color(2**62) == track_color(2**62)


def test_labels_say_the_name_and_the_track():
    def labelled(labels, **options):
        return draw_tracks(canvas(), tracked((7, BOX)), labels, **options)

    def expected(text):
        """The same words by `draw_faces`, in the colour of the track."""
        drawn = draw_faces(canvas(), toy_faces(BOX), [text])
        drawn[np.all(drawn == KNOWN_COLOR, axis=2)] = track_color(7)
        return drawn

    for drawn, text in (
        (labelled({7: "Ada"}), "Ada #7"),
        (labelled({7: None}), "unknown #7"),
        (labelled({}), "unknown #7"),
        (labelled({}, unknown=""), "#7"),
        (labelled({7: "Zoë 李"}, unknown="x"), "Zoë 李 #7"),
    ):
        # Letters have soft edges, which mix with another colour.
        assert np.abs(drawn.astype(int) - expected(text)).mean() < 0.5
        assert written(drawn) == pytest.approx(written(expected(text)), rel=0.2)
    assert not np.array_equal(labelled({7: "Ada"}), labelled({7: "Eda"}))
    assert not np.array_equal(labelled({}), draw_tracks(canvas(), tracked((8, BOX)), {}))


def test_a_face_of_no_track_has_a_thin_grey_box_and_no_label():
    for faces in (toy_faces(BOX), tracked((0, BOX))):
        drawn = draw_tracks(canvas(), faces, {0: "Ada"})
        inked = drawn[painted(drawn)]
        assert len(inked) and np.ptp(inked, axis=1).max() == 0  # grey throughout
        assert not painted(drawn)[:97].any()
    thick = painted(draw_tracks(canvas(), tracked((1, BOX)), {}, unknown=""))
    assert painted(drawn)[150, 90:110].sum() < thick[150, 90:110].sum()


def test_trails_are_lines_under_the_boxes_in_the_colour_of_the_track():
    trails = {4: [(20, 250), (60.4, 250), (60.4, 280)], 5: [(5, 5)], 6: []}
    drawn = draw_tracks(canvas(), Faces.empty(), {}, trails=trails)
    assert tuple(drawn[250, 40]) == track_color(4) and tuple(drawn[270, 60]) == track_color(4)
    rows, columns = np.nonzero(painted(drawn))
    assert rows.min() >= 248 and columns.max() <= 63
    far = {4: [(-900, 150), (2000, 150)]}
    over = draw_tracks(canvas(), tracked((9, BOX)), {}, trails=far)
    assert tuple(over[150, 100]) == track_color(9) and tuple(over[150, 300]) == track_color(4)


def test_a_frame_itself_is_left_alone():
    frame = canvas()
    frame.setflags(write=False)
    assert painted(draw_tracks(frame, tracked((1, BOX)), {}, trails={1: [(0, 0), (9, 9)]})).any()
    assert np.all(frame == GREY)
    assert np.array_equal(draw_tracks(frame, Faces.empty(), {}), frame)
