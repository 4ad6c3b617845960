"""Help, flags and printing."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest
import typer
from shell import run

from facenet.apps.cli.faces import Cropping, align_settings
from facenet.apps.cli.flags import Deciding, Detection, Identifying, Recognition, parse_size
from facenet.apps.cli.outlet import bar, fetch_bar, print_csv, print_json, print_rows, tidy
from facenet.apps.cli.program import app
from facenet.apps.jobs.align_one import AlignSettings
from facenet.apps.jobs.importroom import OwnModel
from facenet.errors import SettingsError
from facenet.faces.mtcnn import MtcnnSettings
from facenet.recognizer import Recognizer


def verbs(command=None, path=()):
    """Every command with its path of words."""
    command = command or typer.main.get_command(app)
    inner = getattr(command, "commands", {})
    for name, part in inner.items():
        yield from verbs(part, (*path, name))
    if not inner:
        yield path, command


VERBS = dict(verbs())


@pytest.mark.parametrize("path", [(), ("models",), *VERBS], ids=" ".join)
def test_help_is_readable(path):
    ran = run(*path, "--help")
    assert ran.code == 0
    assert run(*path, "-h").out == ran.out
    lines = ran.out.splitlines()
    assert lines[0].startswith(f"Usage: {' '.join(['facenet', *path])} ")
    assert max(map(len, lines)) <= 80
    assert not [line for line in lines if line.endswith("...") and line != lines[0]]


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_every_command_has_json_and_help_for_each_option(path):
    options = {name for p in VERBS[path].params for name in p.opts}
    assert "--json" in options
    assert "--no-json" not in {name for p in VERBS[path].params for name in p.secondary_opts}
    for parameter in VERBS[path].params:
        assert getattr(parameter, "help", None), (path, parameter.name)


def test_defaults_that_are_not_values_are_shown():
    text = " ".join(run("identify", "--help").out.split())
    assert "[default: 1e-4]" in text
    assert "[default: FACENET_DEVICE, else cpu]" in text
    assert "[default: an error]" in " ".join(run("verify", "--help").out.split())


def test_flags_default_to_the_defaults_of_the_library():
    assert Detection().settings() == MtcnnSettings()
    taken = inspect.signature(Recognizer).parameters
    given = Recognition().options()
    assert set(given) | {"calibration"} == set(taken)
    given.pop("detection")
    assert given == {name: taken[name].default for name in given}
    assert set(given) == {f.name for f in fields(Recognition)} & set(given)
    assert align_settings(Cropping(), Detection()) == AlignSettings()
    decided = inspect.signature(Recognizer.identify).parameters
    assert Identifying().rates() == {name: decided[name].default for name in Identifying().rates()}
    assert set(Identifying().rates()) == {"fmr", "threshold", "fpir"}
    assert Deciding().calibration == taken["calibration"].default
    assert {"name", "crop", "standardise", "margin", "color"} < {f.name for f in fields(OwnModel)}


def test_flags_reach_the_library():
    chosen = Recognition(
        detector="mtcnn",
        min_face_size=33,
        thresholds="0.1,0.2,0.3",
        factor=0.5,
        exactness="facenet",
        engine="onnxruntime",
        device="cpu",
        model="mobilefacenet",
        flip=True,
    )
    assert chosen.options() == {
        "detector": "mtcnn",
        "engine": "onnxruntime",
        "device": "cpu",
        "model": "mobilefacenet",
        "precision": "fp32",
        "flip": True,
        "detection": MtcnnSettings(33, (0.1, 0.2, 0.3), 0.5, "facenet"),
    }
    recognizer = chosen.recognizer()
    assert recognizer.embedder.flip
    assert recognizer.detector.settings == chosen.settings()


def test_sizes():
    assert parse_size("112") == (112, 112)
    assert parse_size("96x112") == (96, 112)
    assert parse_size("96X112") == (96, 112)
    for text in ("", "x", "96x", "-3", "1.5", "1x2x3", "١٢x٣a", "²"):
        with pytest.raises(SettingsError, match="WIDTHxHEIGHT"):
            parse_size(text)


def test_numbers_are_tidied_everywhere():
    assert tidy({"a": [0.1 + 0.2, (1 / 3,)], "b": None, "c": 7, "d": "x"}) == {
        "a": [0.3, [0.333333]],
        "b": None,
        "c": 7,
        "d": "x",
    }


def test_printing(capsys):
    print_json([{"a": 1}, {"a": None}])
    print_json({"a": 1})
    print_json([])
    assert capsys.readouterr().out == '[{"a": 1},\n {"a": null}]\n{\n "a": 1\n}\n[]\n'
    print_rows([{"x": "a,b", "y": [[1.5, 2], [3, None]], "z": 0}], ["x", "y", "w"])
    print_csv(["p"], [['say "x"']])
    assert capsys.readouterr().out == 'x,y,w\n"a,b",1.5 2 3 ,\np\n"say ""x"""\n'


def test_no_bar_where_nobody_watches(capsys):
    with bar("photos") as done, fetch_bar() as fetched:
        done(1, 2)
        fetched("file", 1, 2)
    assert capsys.readouterr() == ("", "")
