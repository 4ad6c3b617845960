"""Learning rates: each formula by hand, facenet's files, what is wrong in them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from facenet.errors import SettingsError
from facenet.train.choosing import settings_from
from facenet.train.schedulefile import MAX_BYTES, RateLine, held, parse_rates, read_rates
from facenet.train.schedules import Schedule, ScheduleSettings

SHIPPED = Path(__file__).resolve().parents[2] / "recipes" / "schedules"


def rates(steps_per_epoch: int, total: int, **options: object) -> list[float | None]:
    schedule = Schedule(ScheduleSettings(**options), steps_per_epoch, total)  # type: ignore[arg-type]
    assert schedule.rate(-1) is None
    assert schedule.rate(total) is None
    return [schedule.rate(step) for step in range(total)]


def test_constant_and_its_warm_up() -> None:
    assert rates(2, 4, rate=0.5) == [0.5] * 4
    assert rates(2, 6, rate=0.5, warmup=5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


def test_steps_at_epochs_and_at_steps() -> None:
    wanted = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert rates(2, 8, name="steps", rate=1.0, at=(1.5, 3), factor=0.5) == wanted
    assert rates(9, 8, name="steps", rate=1.0, at=(3, 6), factor=0.5, unit="step") == wanted
    warm = rates(2, 8, name="steps", rate=1.0, at=(1.5, 3), factor=0.5, warmup=4)
    assert warm == [0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25]


def test_a_mark_between_two_steps_is_at_the_nearest() -> None:
    found = rates(30, 10, name="steps", rate=1.0, at=(0.1,), factor=0.5)  # 0.1 * 30 > 3
    assert found == [1.0] * 3 + [0.5] * 7


def test_facenets_staircase() -> None:
    found = rates(3, 14, name="staircase", rate=0.1, every=2, factor=0.5)
    assert found == [0.1 * 0.5 ** math.floor(step / 6) for step in range(14)]


def test_poly_and_cosine_fall_from_the_end_of_the_warm_up_to_the_last_step() -> None:
    found = rates(5, 12, name="poly", rate=0.3, power=2.0, warmup=2, final=0.1)
    falls = [0.1 + 0.2 * (1 - done / 10) ** 2 for done in range(10)]
    assert found == pytest.approx([0.15, 0.3, *falls])
    found = rates(5, 8, name="cosine", rate=0.4)
    assert found == pytest.approx([0.2 * (1 + math.cos(math.pi * step / 8)) for step in range(8)])


def test_the_rate_of_a_step_does_not_depend_on_those_before() -> None:
    schedule = Schedule(ScheduleSettings("cosine", warmup=3), 5, 50)
    forward = [schedule.rate(step) for step in range(50)]
    assert [schedule.rate(step) for step in reversed(range(50))] == forward[::-1]


# ---- files


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("classifier_casia", [(0, 0.05), (60, 0.005), (80, 0.0005), (91, None)]),
        ("classifier_vggface2", [(0, 0.05), (100, 0.005), (200, 0.0005), (276, None)]),
        ("classifier_msceleb", [(0, 0.1), (150, 0.01), (180, 0.001), (251, 0.0001)]),
        ("retrain_tripletloss", [(0, 0.1), (300, 0.01), (400, 0.001), (1000, 0.0001)]),
    ],
)
def test_the_shipped_files_are_facenets(name: str, lines: list[tuple[int, float | None]]) -> None:
    found = read_rates(SHIPPED / f"{name}.txt")
    assert found == tuple(RateLine(epoch, rate) for epoch, rate in lines)


def test_no_other_file_is_shipped_untested() -> None:
    assert len(list(SHIPPED.iterdir())) == 4


def test_epochs_of_a_file_count_from_one_or_from_nought(tmp_path: Path) -> None:
    file = tmp_path / "rates.txt"
    file.write_bytes(b"\xef\xbb\xbf# rates\r\n\r\n 1 : 0.5 # first\r\n3:0.25\n\n5: -1\n")
    options = {"name": "file", "file": str(file)}
    assert rates(2, 12, **options) == [0.5] * 4 + [0.25] * 4 + [None] * 4
    file.write_text("0: 0.5\n3: 0.25\n")
    assert rates(1, 5, **options) == [0.5, 0.5, 0.25, 0.25, 0.25]
    assert rates(1, 5, first_epoch=0, **options) == [0.5] * 3 + [0.25] * 2
    assert rates(1, 5, warmup=2, **options) == [0.25, 0.5, 0.25, 0.25, 0.25]


def test_a_schedule_that_ends_early_is_told() -> None:
    casia = str(SHIPPED / "classifier_casia.txt")
    settings = ScheduleSettings("file", file=casia)
    schedule = Schedule(settings, 10, 1500)
    assert schedule.ends_at == 900
    assert (schedule.rate(899), schedule.rate(900)) == (0.0005, None)
    (note,) = schedule.notes()
    assert "classifier_casia.txt end training after 900 of the 1500 steps" in note
    assert Schedule(settings, 10, 900).notes() == ()


def test_marks_that_no_step_reaches_are_told() -> None:
    settings = ScheduleSettings("steps", rate=0.001, at=(5, 10))
    (note,) = Schedule(settings, 4, 32).notes()
    assert "32 steps ends before schedule.at 10 (epoch)" in note
    assert Schedule(settings, 4, 41).notes() == ()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("# nothing\n\n", "rates.txt should hold lines such as `0: 0.05`; it holds none"),
        ("0: 0.1\n\nabc\n", "Line 3 of .*should be `EPOCH: RATE`.*got 'abc'"),
        ("0: 0.1\n1.5: 0.1", "Line 2 of .*got '1.5: 0.1'"),
        ("0: nan", "Line 1 of .*a rate above 0"),
        ("0: 0", "Line 1 of .*got '0: 0'"),
        ("0: 0.1\n5: -2", "Line 2 of .*got '5: -2'"),
        ("-1: 0.1", "Line 1 of .*got '-1: 0.1'"),
        ("0: 0.1: 2", "Line 1 of"),
        ("0: 0.1\n9: 0.2\n9: 0.3", "Line 3 of .*epoch above 9; got 9"),
        ("0: 0.1\n9: -\n12: 0.3", "Line 3 of .*training ends at epoch 9"),
        ("x" * 500, "got 'x{59}\\. Correct it"),
    ],
)
def test_wrong_lines_are_named(text: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence) as raised:
        parse_rates(text, "rates.txt")
    assert len(str(raised.value)) < 300


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no\.txt: No such file.*recipes/schedules/"):
        read_rates(tmp_path / "no.txt")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="no text in UTF-8"):
        read_rates(tmp_path / "bytes")
    (tmp_path / "large").write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(SettingsError, match="at most 1 MB"):
        read_rates(tmp_path / "large")
    late, ended = tmp_path / "late", tmp_path / "ended"
    late.write_text("2: 0.1\n")
    ended.write_text("0: 0.1\n1: -\n")
    with pytest.raises(SettingsError, match="begin at epoch 1 or before; the first .* epoch 2"):
        Schedule(ScheduleSettings("file", file=str(late)), 1, 5)
    with pytest.raises(SettingsError, match="ended end before the first step"):
        Schedule(ScheduleSettings("file", file=str(ended)), 1, 5)
    assert held(parse_rates("2: 0.1", "text"), 2) == 0.1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"name": "ploy"}, "should be one of constant, .* Did you mean poly"),
        ({"rate": 0.0}, "rate should be more than 0"),
        ({"rate": float("inf")}, "rate should be more than 0"),
        ({"warmup": -1}, "warmup should be 0 or more"),
        ({"name": "poly", "final": -0.1}, "final should be 0 or more"),
        ({"name": "steps"}, r"at should be a list of ascending marks above 0, .*got \(\)"),
        ({"name": "steps", "at": (3, 2)}, "ascending marks"),
        ({"name": "steps", "at": (0, 2)}, "ascending marks"),
        ({"name": "steps", "at": (2,), "unit": "hour"}, "unit should be epoch or step; got 'hour'"),
        ({"name": "staircase"}, "every should be the length of a stair"),
        ({"name": "file"}, "file should be the path"),
        ({"name": "file", "file": "a", "rate": 0.2}, "rate is for constant, steps, .* is file"),
        ({"name": "file", "file": "a", "first_epoch": 2}, "first_epoch should be 0 or 1; got 2"),
        ({"name": "cosine", "power": 2.0}, "power is for poly; schedule.name is cosine"),
        ({"file": "a"}, "file is for file; schedule.name is constant"),
        ({"factor": 0.5}, "factor is for steps, staircase"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        ScheduleSettings(**options)  # type: ignore[arg-type]


def test_settings_come_from_plain_data() -> None:
    plain = {"name": "steps", "at": [20, 28.5], "rate": 1}
    found = settings_from(ScheduleSettings, plain, "schedule")
    assert found == ScheduleSettings("steps", rate=1.0, at=(20.0, 28.5))


def test_runs_too_short_are_refused() -> None:
    with pytest.raises(SettingsError, match="at least one step.*got 0, 3 in an epoch"):
        Schedule(ScheduleSettings(), 3, 0)
    with pytest.raises(SettingsError, match="warmup should be shorter than the run of 4 steps"):
        Schedule(ScheduleSettings(warmup=4), 3, 4)
