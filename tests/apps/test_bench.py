"""`facenet bench`: rows that make sense, and what is said of them; never how long a thing takes."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from clips import noise, write_clip
from shell import blank, copy, refused, run
from yunet_graphs import looking

from facenet.apps.jobs.benching.rows import COLUMNS, quantity, table, timed
from facenet.apps.jobs.benching.settings import BenchSettings
from facenet.apps.jobs.benching.whole import measure, measure_search_alone
from facenet.apps.jobs.stopwatch import measure_startup
from facenet.errors import InputError, SettingsError


class Stopped:
    """A system that takes as long as it is told and finds what is expected; for any name."""

    def __init__(self, name, seconds, seen):
        self.name, self.seconds, self.seen, self.task = name, seconds, seen, {}

    def ask(self, request):
        if "prepare" in request:
            self.task = request["prepare"]
            self.seen.append((self.name, self.task))
            lossy = self.task["job"] == "strided" or "arithmetic" in self.task
            facts = {"recall": 0.75, "expected": 8} if lossy else {}
            return {"ready": {**facts, "versions": {self.name: "1.0"}, "python": "3.9"}}
        part = request["run"]
        items = len(part) if isinstance(part, list) else 4
        return {"seconds": self.seconds * items, "items": items, "peak": 100.0, "held": 50.0}

    def close(self):
        self.seen.append((self.name, "closed"))


def fakes(seen, **seconds):
    """Opens a `Stopped` for each name, of so many seconds an item."""
    return lambda name, threads: Stopped(name, seconds[name.replace("-", "_")], seen)


@pytest.fixture
def clip(tmp_path):
    return write_clip(tmp_path / "Clip One.mkv", noise(20, (64, 36)), codec="ffv1", pixels="bgr0")


def rows_of(found):
    assert all(tuple(row) == COLUMNS for row in found["results"])
    return {row["name"]: row for row in found["results"]}


# ---- rows


def test_a_row_is_made_of_seconds_and_items():
    seconds = [0.4, 0.2, 0.6, 0.8, 1.0]
    ours = [{"seconds": s, "items": 2} for s in seconds]
    theirs = [{"seconds": 3.0, "items": 2}, {"seconds": 1.0, "items": 2}]
    row = timed("x", "frames/s", ours, "peer", theirs)
    each = sorted(s / 2 for s in seconds)
    slow = each[3] + 0.8 * (each[4] - each[3])  # 0.95 of the way through five
    assert row["median"] == pytest.approx(1 / 0.3)
    assert row["p95"] == pytest.approx(1 / slow)
    assert (row["runs"], row["peer"], row["peer_median"]) == (5, "peer", pytest.approx(1.0))
    assert row["ratio"] == pytest.approx(1.0 / 0.3)
    in_ms = timed("x", "ms", ours, "peer", theirs)
    assert (in_ms["median"], in_ms["p95"]) == (pytest.approx(300), pytest.approx(1000 * slow))
    assert (in_ms["peer_median"], in_ms["ratio"]) == (pytest.approx(1000), row["ratio"])
    alone = timed("x", "s", ours)
    assert (alone["peer"], alone["peer_median"], alone["ratio"]) == (None, None, None)
    assert quantity("m", "MB", 200.0, "peer", 500.0)["ratio"] == 2.5


def test_a_table_has_columns_side_by_side():
    rows = [quantity("a", "MB", 1234.5678), quantity("longer", "MB", 2.0, "peer", 34567.8)]
    head, first, second = table(rows).splitlines()
    assert head.split() == list(COLUMNS)
    assert first.split() == ["a", "MB", "1235", "1235", "1", "-", "-", "-"]
    assert second.split() == ["longer", "MB", "2", "2", "1", "peer", "34568", "17284"]
    assert head.index("unit") == first.index("MB") == second.index("MB")


# ---- what is measured


def test_detect_measures_three_sizes_the_floor_and_every_fourth_frame(clip):
    seen = []
    settings = BenchSettings(quick=True, video=clip, against=("facenet-pytorch",))
    opening = fakes(seen, facenet=0.01, facenet_pytorch=0.05)
    found = measure(["detect"], settings, opening=opening)
    rows = rows_of(found)
    for size in ("1920x1080", "1280x720", "960x540"):
        row = rows[f"mtcnn/{size}"]
        assert (row["unit"], row["runs"], row["peer"]) == ("frames/s", 5, "facenet-pytorch")
        assert (row["median"], row["peer_median"]) == (pytest.approx(100), pytest.approx(20))
        assert row["ratio"] == pytest.approx(5)
        assert rows[f"mtcnn/{size}/batch8"]["peer"] == "facenet-pytorch"
        assert rows[f"mtcnn/{size}/batch8/mixed"]["peer"] is None
        assert rows[f"fastmtcnn/stride4/{size}/recall"]["median"] == 0.75
        floor = rows[f"mtcnn/{size}/floor"]
        assert floor["ratio"] == pytest.approx(10 / floor["median"])  # 10 ms a frame
        assert floor["runs"] == rows[f"mtcnn/{size}/floor/bf16"]["runs"] == 5
    # 5.32 GFLOP at 1080p, where a GFLOP takes 0.01 s
    assert rows["mtcnn/1920x1080/floor"]["median"] == pytest.approx(53.2, abs=0.1)
    assert rows["arithmetic/bf16"]["median"] == pytest.approx(100)
    assert rows["mtcnn/memory"]["median"] == 100
    assert found["machine"]["peers"]["facenet-pytorch"]["facenet-pytorch"] == "1.0"
    assert "Detectors saw 8 frames of Clip One.mkv." in found["notes"]
    assert any(note.startswith("yunet was not measured: it is not on") for note in found["notes"])
    opened = [name for name, what in seen if what == "closed"]
    assert sorted(set(opened)) == ["facenet", "facenet-pytorch"]


def test_a_yunet_is_measured_in_bfloat16_too_with_what_that_loses(home, tmp_path):
    (tmp_path / "mine.onnx").write_bytes(looking())
    assert run("models", "import", tmp_path / "mine.onnx").code == 0
    seen = []
    found = measure(["detect"], BenchSettings(quick=True), opening=fakes(seen, facenet=0.01))
    rows = rows_of(found)
    for size in ("1920x1080", "1280x720", "960x540"):
        kinds = itertools.product(("", "bf16/"), ("", "/batch8"))
        assert {rows[f"mine/{a}{size}{end}"]["unit"] for a, end in kinds} == {"frames/s"}
        assert rows[f"mine/{size}/batch8/mixed"]["unit"] == "frames/s"
        row = rows[f"mine/bf16/{size}/recall"]
        assert (row["unit"], row["median"]) == ("share of 8 faces", 0.75)
    asked = [what for _, what in seen if what != "closed" and what.get("detector") == "mine"]
    assert [task.get("arithmetic") for task in asked] == [None] * 9 + ["bf16"] * 6


def test_without_a_video_the_examples_are_looked_at_and_nothing_is_skipped_over(home):
    found = measure(["detect"], BenchSettings(quick=True), opening=fakes([], facenet=0.01))
    assert any("group.jpg, 8 times at other heights" in note for note in found["notes"])
    assert any(note.startswith("fastmtcnn was not measured") for note in found["notes"])
    assert not [name for name in rows_of(found) if name.startswith("fastmtcnn")]


@pytest.mark.parametrize("stage", ["detect", "embed", "pipeline", "latency", "video"])
def test_older_instructions_are_in_every_task_and_said(stage, clip, examples, home, tmp_path):
    """ONNX Runtime looks for the faces here: OpenVINO is held once in a process."""
    photo = copy(examples / "photos/hopper-rendition.jpg", tmp_path / "some" / "one.jpg")
    held = {"engine": "onnxruntime", "instructions": "avx2"}
    settings = BenchSettings(quick=True, images=photo.parent, frames=0, **held)
    seen = []
    found = measure([stage], settings, opening=fakes(seen, facenet=0.01))
    tasks = [what for _, what in seen if what != "closed"]
    assert tasks
    assert {(task["engine"], task["instructions"]) for task in tasks} == {("onnxruntime", "avx2")}
    assert {key: found["machine"][key] for key in held} == held
    (note,) = [note for note in found["notes"] if note.startswith("Instructions were held to avx2")]
    if stage == "embed":
        usual = measure(
            [stage], replace(settings, instructions="auto"), opening=fakes([], facenet=1)
        )
        assert usual["machine"]["instructions"] == "auto"
        assert note not in usual["notes"]


@pytest.mark.parametrize("stage", ["detect", "embed", "latency"])
def test_a_broken_picture_is_passed_over_and_told(stage, examples, home, tmp_path):
    good = copy(examples / "photos/hopper-rendition.jpg", tmp_path / "some" / "b.jpg")
    good.with_name("a.jpg").write_bytes(b"no picture")
    settings = BenchSettings(quick=True, images=good.parent, engine="onnxruntime")
    found = measure([stage], settings, opening=fakes([], facenet=0.01))
    (told,) = [note for note in found["notes"] if "was passed over" in note]
    assert told.startswith("a.jpg was passed over: ")
    if stage == "detect":
        assert f"Detectors saw 1 pictures of {good.parent}." in found["notes"]
    good.write_bytes(b"none either")
    with pytest.raises(InputError, match="Pictures to measure with|Photos to measure with"):
        measure([stage], settings, opening=fakes([], facenet=0.01))


def test_embed_measures_every_arithmetic_and_batch(home):
    seen = []
    found = measure(["embed"], BenchSettings(), opening=fakes(seen, facenet=0.002))
    rows = rows_of(found)
    for precision, batch in itertools.product(("fp32", "bf16"), (1, 16, 32)):
        row = rows[f"mobilefacenet/{precision}/batch{batch}"]
        assert (row["median"], row["unit"], row["runs"]) == (pytest.approx(500), "faces/s", 9)
    asked = [what for _, what in seen if what != "closed"]
    assert {task["batch"] for task in asked} == {1, 16, 32}
    assert any("facenet models pull facenet-casia-webface" in note for note in found["notes"])


def test_a_pipeline_is_cut_into_parts_and_its_growth_is_told(tmp_path, home):
    folder = tmp_path / "Faces Of Mine" / "images"
    first = blank(folder / "0000.png", (8, 8))
    for number in range(1, 2100):
        (folder / f"{number:04d}.png").hardlink_to(first)

    class Growing(Stopped):
        done = 0

        def ask(self, request):
            answer = super().ask(request)
            if "items" in answer:
                self.done += answer["items"]
                early = 40 * (self.done < 1500)
                answer["held"] = 80 + 0.02 * self.done - early  # 200 MB for 10,000 in the end
            return answer

    found = measure(
        ["pipeline"],
        BenchSettings(images=folder, against=("facenet-pytorch",), photos=4000),
        opening=lambda name, threads: Growing(name, 0.01, []),
    )
    rows = rows_of(found)
    label = "pipeline/faces-of-mine"
    assert (rows[label]["unit"], rows[label]["runs"]) == ("photos/s", 9)
    assert (rows[label]["peer"], rows[label]["ratio"]) == ("facenet-pytorch", pytest.approx(1))
    assert (rows[f"{label}/long"]["unit"], rows[f"{label}/long"]["runs"]) == ("photos/s", 20)
    assert rows[f"{label}/memory_slope"]["unit"] == "MB/10,000 photos"
    assert rows[f"{label}/memory_slope"]["median"] == pytest.approx(200, rel=1e-6)
    assert rows[f"{label}/memory_held"]["median"] == pytest.approx(80 + 0.02 * 4200)  # one warms up
    assert rows[f"{label}/memory"]["peer"] == "facenet-pytorch"
    assert {rows[f"{label}/{stage}"]["unit"] for stage in ("read", "detect")} == {"photos/s"}


def test_a_few_photos_are_taken_whole_in_each_run(clip, home):
    parts = []

    class Noting(Stopped):
        def ask(self, request):
            parts.append(request.get("run"))
            return super().ask(request)

    found = measure(
        ["pipeline"], BenchSettings(quick=True, video=clip), opening=lambda n, t: Noting(n, 0.1, [])
    )
    assert not [name for name in rows_of(found) if "long" in name or "slope" in name]
    rows = rows_of(found)
    assert "pipeline/clip-one" in rows
    wholes = [part for part in parts if part]
    assert {len(part) for part in wholes} == {20}
    assert len(wholes) == 6  # one to warm up


def test_latency_is_of_one_photo_with_so_many_faces(home):
    seen, threads = [], []

    def opening(name, count):
        threads.append(count)
        return Stopped(name, 0.002, seen)

    found = measure(["latency"], BenchSettings(quick=True), opening=opening)
    rows = rows_of(found)
    assert {(name.split("/")[1], row["unit"]) for name, row in rows.items()} == {
        ("1face", "ms"), ("5faces", "ms"), ("20faces", "ms"),
    }  # fmt: skip
    assert rows["latency/5faces/1thread"]["median"] == pytest.approx(2)
    assert threads[0] == 1
    assert set(threads) <= {1, 2}
    assert any("was measured with None faces" in note for note in found["notes"])


def test_a_stage_that_cannot_be_measured_is_a_note_among_others_and_an_error_alone(tmp_path):
    sky = blank(tmp_path / "sky" / "a.png").parent
    settings = BenchSettings(quick=True, images=sky)
    opening = fakes([], facenet=0.01)
    with pytest.raises(InputError, match="should show a face; none was found"):
        measure(["latency"], settings, opening=opening)
    with pytest.raises(InputError, match="should show a face; none was found"):
        measure(["embed"], settings, opening=opening)
    found = measure(["pipeline", "latency"], settings, opening=opening)
    assert any(note.startswith("latency was not measured: Photos") for note in found["notes"])
    assert "pipeline/sky" in rows_of(found)


def test_when_nothing_can_be_measured_that_is_an_error(home):
    class Broken(Stopped):
        def ask(self, request):
            return {"missing": "No engine is here."}

    with pytest.raises(InputError, match="was not measured"):
        measure(["embed"], BenchSettings(), opening=lambda n, t: Broken(n, 1, []))


def test_peers_that_nothing_was_compared_with_are_named():
    class Absent(Stopped):
        def ask(self, request):
            if self.name == "insightface":
                return {"missing": "insightface is not installed."}
            return super().ask(request)

    settings = BenchSettings(quick=True, against=("opencv", "insightface", "faiss"))
    found = measure(["embed"], settings, opening=lambda n, t: Absent(n, 0.01, []))
    end = "nothing that was measured has a counterpart in it."
    assert f"opencv was not measured: {end}" in found["notes"]
    assert f"faiss was not measured: {end}" in found["notes"]
    assert "insightface was not measured: insightface is not installed." in found["notes"]


def test_a_search_names_the_peers_that_have_none():
    settings = BenchSettings(quick=True, against=("facenet-pytorch", "none"))
    options = {"rows": 300, "dimension": 16, "queries": 4, "rounds": 2, "check": 0, "seed": 0}
    found = measure_search_alone(settings, {**options, "approximate": False, "force": False})
    assert found["results"][0]["name"] == "search/300x16/1query"
    assert {row["peer"] for row in found["results"]} == {None}
    assert "facenet-pytorch was not measured: it has no search to compare with." in found["notes"]
    assert not [note for note in found["notes"] if "was not looked at" in note]


def test_what_a_command_does_not_look_at_is_said_or_refused(tmp_path):
    nowhere = tmp_path / "nowhere"
    options = ("--quick", "--rows", 300, "--dimension", 16, "--queries", 4, "--check", 0)
    given = ("--against", "none", "--video", nowhere, "--images", nowhere)
    ran = run("bench", "search", *options, *given)
    assert ran.code == 0
    start = "A search looks at no pictures and needs no peer's Python: "
    for option in ("--video", "--images"):
        assert f"{start}{option} was not looked at." in ran.err
    for option in ("--video", "--images", "--engine"):
        assert "No such option" in run("bench", "train", option, nowhere).err


# ---- settings


def test_settings_are_refused_before_anything_is_measured(tmp_path):
    with pytest.raises(SettingsError, match=r"against should be some of .*; got dlib"):
        BenchSettings(against=("dlib",))
    with pytest.raises(SettingsError, match="each once; got opencv,opencv"):
        BenchSettings(against=("opencv", "opencv"))
    with pytest.raises(SettingsError, match=r"run elsewhere \(insightface\); got 2"):
        BenchSettings(against=("opencv", "insightface"), peer_python=("a", "b"))
    with pytest.raises(SettingsError, match="no-such-python cannot be run"):
        BenchSettings(peer_python=("no-such-python",))
    with pytest.raises(SettingsError, match="engine should be one of"):
        BenchSettings(engine="tensorrt")
    with pytest.raises(SettingsError, match="instructions should be one of auto, avx2; got sse"):
        BenchSettings(instructions="sse")
    told = ("--engine", "openvino", "--instructions", "sse")
    for stage in ("all", "detect", "embed", "pipeline", "latency", "video"):
        assert "instructions should be one of auto, avx2" in refused("bench", stage, *told)
    assert "A chart should be a file .svg or .png; got x.pdf" in refused(
        "bench", "detect", "--chart", tmp_path / "x.pdf"
    )


def test_each_peer_runs_in_its_python(tmp_path):
    pythons = [tmp_path / name for name in ("a", "b")]
    for python in pythons:
        python.write_text("#!/bin/sh\n")
        python.chmod(0o755)
    names = tuple(map(str, pythons))
    settings = BenchSettings(
        against=("insightface", "opencv", "facenet-pytorch"), peer_python=names
    )
    assert settings.python_of("insightface") == names[0]
    assert settings.python_of("facenet-pytorch") == names[1]
    assert settings.python_of("opencv") not in names
    one = BenchSettings(against=("insightface", "facenet-pytorch"), peer_python=names[:1])
    assert one.python_of("facenet-pytorch") == names[0]


# ---- the commands


def test_bad_videos_and_empty_folders(tmp_path):
    assert "nowhere.mp4" in refused("bench", "detect", "--video", tmp_path / "nowhere.mp4")
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    assert "text.mp4" in refused("bench", "pipeline", "--video", text)
    (tmp_path / "empty").mkdir()
    for stage in ("detect", "embed", "pipeline", "latency"):
        said = refused("bench", stage, "--images", tmp_path / "empty")
        assert said.startswith("No photo was found in ")


def test_without_the_name_of_a_benchmark_options_are_those_of_all(tmp_path):
    assert "against should be some of" in refused("bench", "--quick", "--against", "dlib")
    assert "against should be some of" in refused("bench", "all", "--against", "dlib")
    assert run("bench", "--help").out.startswith("Usage: facenet bench [OPTIONS] COMMAND")


def test_the_networks_really_run(home, tmp_path):
    """Our own process, one of the peer's that has no such package, a chart."""
    chart = tmp_path / "speed.svg"
    options = ("--quick", "--engine", "onnxruntime", "--chart", chart)
    ran = run("bench", "embed", *options, "--json")
    assert ran.code == 0, ran.err
    rows = {row["name"]: row for row in ran.json["results"]}
    assert rows["mobilefacenet/fp32/batch16"]["median"] > 1
    assert rows["mobilefacenet/fp32/batch16"]["runs"] == 5
    assert rows["mobilefacenet/memory"]["median"] > 10
    assert ran.err.count("mobilefacenet/bf16 was not measured: ONNX Runtime has no bf16") == 1
    assert ran.json["machine"]["threads"] >= 1
    assert "mobilefacenet/fp32/batch1" in chart.read_text()


def test_a_pipeline_really_runs_beside_a_peer_that_is_not_here(examples, home, tmp_path):
    photo = copy(examples / "photos/hopper-rendition.jpg", tmp_path / "few" / "one.jpg")
    blank(photo.with_name("two.png"))
    photo.with_name("three.jpg").write_bytes(b"no picture")
    options = ("--quick", "--engine", "onnxruntime", "--against", "insightface")
    ran = run("bench", "pipeline", "--images", photo.parent, *options)
    assert ran.code == 0, ran.err
    head, *lines = ran.out.splitlines()
    assert head.split() == list(COLUMNS)
    assert lines[0].startswith("pipeline/few ")
    assert lines[0].split()[4:] == ["5", "-", "-", "-"]
    assert "insightface cannot be imported by" in ran.err


def test_startup(examples):
    photo = examples / "photos/hopper-rendition.jpg"
    rows = run("bench", "startup", photo, photo, "--rounds", 1, "--json").json
    assert [row["what"] for row in rows] == [
        "python",
        "import facenet",
        "facenet --help",
        "facenet verify",
    ]
    assert rows[0]["seconds"] > 0
    assert rows[3]["seconds"] > rows[0]["seconds"]


def test_startup_measures_no_failure(examples, tmp_path):
    photo = examples / "photos/hopper-rendition.jpg"
    with pytest.raises(InputError, match=r"failed: facenet: No face was found in .*sky.png"):
        measure_startup(photo, blank(tmp_path / "sky.png"), rounds=1)
    with pytest.raises(SettingsError, match="rounds should be 1 or more"):
        measure_startup(photo, photo, rounds=0)
