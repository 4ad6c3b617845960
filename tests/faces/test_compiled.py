"""Whether the compiled code may be used: what is tried, what is remembered, what is told."""

import json
import re
import shutil
from functools import partial

import numpy as np
import pytest

import hatch_build
from facenet.faces.compiled import (
    GLANCE,
    OUTDATED,
    PARTS,
    PIXELS,
    UNBUILT,
    Compiled,
    compiled,
    found,
    tried,
)
from facenet.faces.glance import glances_of
from facenet.faces.kernels import LIBRARY, Kernels, source_digest
from facenet.faces.mtcnn import Mtcnn
from facenet.faces.trial import try_glance, try_pixels
from facenet.images import load_image
from facenet.models.loader import load_model
from facenet.models.selfcheck import Verdict

WORKS = Verdict(True, "works")
NOBODY = ("no-such-program",)
TRAPS = """
int facenet_can_glance(void) { return 1; }
int facenet_glance(void) { __builtin_trap(); }
int facenet_level(void) { __builtin_trap(); }
"""
"""In the place of our functions: such as end the process."""


@pytest.fixture(scope="module")
def trapping(tmp_path_factory):
    """A library of the sources as they are, but for `TRAPS`."""
    folder = tmp_path_factory.mktemp("trapping")
    for source in LIBRARY.parent.glob("*.c"):
        shutil.copy(source, folder)
    names = re.findall(r"\w+(?=\(void)", TRAPS)
    hidden = "".join(f"#define {name} other_{name}\n" for name in names)
    shown = "".join(f"#undef {name}\n" for name in names)
    (folder / "trap.c").write_text(f'{hidden}#include "kernels.c"\n{shown}{TRAPS}')
    library = folder / "kernels.lib"
    assert hatch_build.build(folder / "trap.c", library, hatch_build.compilers())
    return library


class Attempt:
    """Stands in for the trial: notes what is tried."""

    def __init__(self, verdict=WORKS):
        self.verdict, self.parts = verdict, []

    def __call__(self, part):
        self.parts.append(part)
        return self.verdict


def test_this_installation_may_use_it():
    """Fails where there is no compiler, and after a change of the sources: install facenet then."""
    assert (compiled().reason, compiled().kernels is not None) == ("", True)
    assert compiled() is compiled()


def test_only_its_work_on_pixels_is_tried_at_once():
    attempt = Attempt()
    assert found(LIBRARY, attempt).kernels and attempt.parts == [PIXELS]
    failed = found(LIBRARY, Attempt(Verdict(False, "crashed with SIGSEGV")))
    assert failed.kernels is None
    assert failed.reason == "when it was tried, the library crashed with SIGSEGV"


def test_what_is_not_there_or_no_library_is_told_apart(tmp_path):
    attempt = Attempt()
    assert found(tmp_path / "nowhere.lib", attempt).reason == UNBUILT
    (tmp_path / "broken.lib").write_bytes(b"no library")
    assert found(tmp_path / "broken.lib", attempt).reason.startswith(
        f"the library cannot be loaded: {tmp_path}/broken.lib: "
    )
    assert attempt.parts == []


def test_a_library_of_other_sources_is_not_used(trapping, tmp_path):
    """Its functions may have the same names and take other things."""
    attempt = Attempt()
    assert Kernels(trapping).source == source_digest(trapping.parent) != source_digest()
    assert found(trapping, attempt).reason == OUTDATED
    (tmp_path / "few.c").write_text("int facenet_level(void) { return 0; }\n")
    few = tmp_path / "kernels.lib"
    assert hatch_build.build(tmp_path / "few.c", few, hatch_build.compilers())
    assert found(few, attempt).reason == OUTDATED and attempt.parts == []


@pytest.mark.parametrize("part", PARTS)
def test_a_crash_is_remembered_and_ends_nothing_but_the_child(part, home, trapping):
    first = tried(part, trapping)
    assert (first.ok, first.lasting) == (False, True)
    assert first.reason in ("crashed with SIGILL", "crashed with SIGTRAP")
    (kept,) = (home / "checks").iterdir()
    assert json.loads(kept.read_text()) == {"ok": False, "reason": first.reason}
    assert tried(part, trapping, command=NOBODY) == first
    assert tried(part) == WORKS or part == GLANCE  # of the library as it is, asked anew
    assert len(list((home / "checks").iterdir())) == 2


def test_detection_goes_on_without_a_quick_look_that_crashes(home, trapping, examples):
    engines, trap = load_model("mtcnn").engines, Compiled(Kernels(trapping))
    glances = glances_of(engines, find=lambda: trap, attempt=partial(tried, library=trapping))
    assert (glances.pnet, glances.rnet) == (None, None)
    assert glances.reason.startswith("when it was tried, it crashed with SIG")
    photo = [load_image(examples / "photos/group.jpg")]
    assert len(Mtcnn(engines, glances=lambda: glances).detect(photo)[0]) == 4


def test_what_works_is_tried_once(home):
    assert tried(PIXELS) == WORKS
    assert tried(PIXELS, command=NOBODY) == WORKS
    unknown = tried(GLANCE, command=NOBODY)  # each part is asked for by itself
    assert (unknown.ok, unknown.lasting) == (False, False)
    assert len(list((home / "checks").iterdir())) == 1


def test_a_home_that_cannot_be_written_or_named_is_no_obstacle(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FACENET_HOME", str(tmp_path / "file"))
    assert tried(PIXELS) == WORKS
    monkeypatch.setenv("FACENET_HOME", "~nobody-of-this-name/home")
    assert tried(PIXELS) == WORKS


class Wrong:
    """Kernels, one of whose functions gives something else."""

    def __init__(self, kernels, name, answer):
        self.kernels, self.name, self.answer = kernels, name, answer

    def __getattr__(self, name):
        function = getattr(self.kernels, name)
        if name != self.name:
            return function
        return lambda *args, **options: self.answer(function(*args, **options))


@pytest.mark.parametrize("name", ["level", "crops", "bilinear", "windows", "suppress"])
def test_other_pixels_than_numpy_s_are_noticed(kernels, name):
    assert try_pixels(kernels) == ""
    wrong = Wrong(kernels, name, np.zeros_like)
    assert try_pixels(wrong) == "computes other pixels than NumPy"


@pytest.mark.parametrize("name", ["glance", "judge", "glance_crops"])
def test_a_quick_look_that_gives_no_numbers_is_noticed(kernels, name):
    if not kernels.can_glance():
        assert try_glance(kernels) == "is not allowed the processor's AMX"
        return
    assert try_glance(kernels) == ""
    wrong = Wrong(kernels, name, lambda right: right * np.float32(np.nan))
    assert try_glance(wrong) == "gives no numbers"
