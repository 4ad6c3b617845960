"""The record of a calibration: back and forth through JSON, its two functions, damaged files."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from fakes import toy_fmr

from facenet.errors import ModelFileError, SettingsError, StorageError
from facenet.models.calibration import (
    MAX_BYTES,
    Calibration,
    HeldOutRate,
    Logistic,
    calibration_from_dict,
    calibration_path,
    load_calibration,
    logit,
    save_calibration,
    sigmoid,
)

TABLE = toy_fmr()
RATES = [count / TABLE.pairs for count in TABLE.false_matches]
KNOWN = Calibration(
    contract="toy:0123456789abcdef",
    model="toy",
    dataset="Gesichter für alle",
    created="2025-06-30",
    detector="mtcnn",
    images=TABLE.images,
    people=TABLE.people,
    fmr=TABLE,
    fmr_low=tuple(rate * 0.9 for rate in RATES),
    fmr_high=tuple(min(1.0, rate * 1.1) for rate in RATES),
    logistic=Logistic(30.0, -7.5, 0.01, 4),
    held_out={
        "1e-2": HeldOutRate(1e-2, 0.2, 0.011, 1.1, (0.009, 0.013), 250_000, True),
        "1e-6": HeldOutRate(1e-6, None, None, None, (), 250_000, None, "needs more pairs"),
    },
    digest="0f" * 32,
)


def test_a_calibration_survives_its_file(tmp_path):
    path = tmp_path / "deep" / "calibration.json"
    save_calibration(path, KNOWN)
    assert load_calibration(path) == KNOWN
    assert calibration_from_dict(json.loads(path.read_text("utf-8"))) == KNOWN
    assert "Gesichter für alle" in path.read_text("utf-8")
    save_calibration(path, replace(KNOWN, created="2025-07-01T12:00:00+02:00"))
    assert load_calibration(path).created.startswith("2025-07-01T")
    with pytest.raises(StorageError):
        save_calibration(tmp_path, KNOWN)


def test_evidence_is_a_line_and_its_probability_bayes_rule():
    line = Logistic(30.0, -7.5, 0.01)
    assert line.llr(0.25) == 0 and line.llr(0.35) == pytest.approx(3)
    scores = np.array([[-1.0, 0.2], [0.3, 1.0]], np.float32)
    got = line.probability(scores, 0.2)
    assert got.shape == (2, 2) and got.dtype == np.float64
    for score, value in zip(scores.ravel().tolist(), got.ravel(), strict=True):
        odds = math.exp(30 * score - 7.5) * 0.2 / 0.8
        assert value == pytest.approx(odds / (1 + odds), rel=1e-12)
    assert line.probability(0.25) == pytest.approx(0.01)
    assert line.llr(np.array([-np.inf]))[0] == -np.inf
    assert Logistic(-1.0, 0.0, 0.5).llr(-np.inf) == -np.inf, "no face is no evidence for a match"


def test_the_curve_between_odds_and_shares_does_not_overflow():
    values = np.array([-np.inf, -1e4, -800, -1, 0, 1, 800, np.inf])
    got = sigmoid(values)
    assert got[[0, 4, 7]].tolist() == [0, 0.5, 1] and np.all(np.diff(got) >= 0)
    assert sigmoid(np.array([-700.0]))[0] == pytest.approx(math.exp(-700))
    for share in (1e-12, 0.3, 0.5, 1 - 1e-9):
        assert sigmoid(np.array(logit(share))) == pytest.approx(share, rel=1e-9)


def plain(**changes):
    return {**KNOWN.to_dict(), **changes}


def inside(name, **changes):
    return plain(**{name: {**KNOWN.to_dict()[name], **changes}})


def rate(**changes):
    return plain(held_out={"1e-2": {**KNOWN.to_dict()["held_out"]["1e-2"], **changes}})


DAMAGED = {
    "an unknown key": (plain(colour="red"), "Calibration has no field colour"),
    "an unknown key inside": (inside("logistic", bend=1.0), "Logistic has no field bend"),
    "an unknown key in the table": (inside("fmr", bend=1.0), "FmrTable has no field bend"),
    "an unknown key of a rate": (rate(bend=1.0), "HeldOutRate has no field bend"),
    "a text for a number": (plain(images="many"), "Calibration.images should be int; got 'many'"),
    "no contract": (plain(contract=""), "contract should be 1 to 1000 characters; got 0"),
    "a long name": (plain(model="x" * 1001), "model should be 1 to 1000 characters; got 1001"),
    "no date": (plain(created="yesterday"), "created should be a date; got 'yesterday'"),
    "no digest": (plain(digest="0F" * 32), "digest should be 64 lower-case hex digits"),
    "one person": (plain(people=1), "of two people or more"),
    "fewer pictures than people": (plain(images=9), "got 1000 people and 9 pictures"),
    "a huge number": (plain(images=10**400), "a number beyond 2**53 pictures"),
    "falling similarities": (inside("fmr", similarity=[0.5] * 7), "rising similarities"),
    "words in the table": (
        inside("fmr", similarity=list("abcdefg")),
        "fmr.similarity should be finite numbers; got 'a'",
    ),
    "half a match": (inside("fmr", false_matches=[9.5] * 7), "should be whole numbers"),
    "no pairs": (inside("fmr", pairs=0, false_matches=[0] * 7), "of one pair or more"),
    "a short interval": (plain(fmr_low=[0.1]), "each of the 7 rows of fmr; they have 1 and 7"),
    "an interval upside down": (plain(fmr_low=[1.0] * 7), "the low one first"),
    "truth as a number": (
        plain(fmr_high=[True] * 7),
        "fmr_high should be finite numbers; got True",
    ),
    "not a number": (plain(fmr_high=[math.nan] * 7), "finite numbers; got nan"),
    "an endless slope": (inside("logistic", slope=math.inf), "should be finite; got inf and -7.5"),
    "a slope beyond floats": (inside("logistic", slope=10**400), "too large"),
    "a prior of 1": (inside("logistic", prior=1.0), "prior should be the share of mated pairs"),
    "three ends": (rate(ci=[0.1, 0.2, 0.3]), "ci should be two numbers or none; got 3"),
    "an endless ratio": (rate(ratio=math.inf), "ratio should be finite numbers; got inf"),
    "a word for a verdict": (rate(within_factor_two="yes"), "should be bool | None; got 'yes'"),
    "a list of rates": (plain(held_out=[1]), "no attribute 'items'"),
    "a table of nothing": (plain(fmr=None), "is no calibration"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_one_sentence(what):
    data, told = DAMAGED[what]
    with pytest.raises(ModelFileError, match=re.escape(told)) as failure:
        calibration_from_dict(data, origin="it.json")
    text = str(failure.value)
    assert text.startswith("it.json is no calibration: ") and len(text) < 600
    assert text.endswith("Make it again with `facenet calibrate`.")


@pytest.mark.parametrize("key", sorted(KNOWN.to_dict()))
def test_a_missing_key_is_named(key):
    data = plain()
    del data[key]
    with pytest.raises(ModelFileError, match=f"^the calibration is no calibration: .*'{key}'"):
        calibration_from_dict(data)


@pytest.mark.parametrize("key", ["slope", "offset", "prior"])
def test_a_missing_key_of_the_line_is_named(key):
    data = plain()
    del data["logistic"][key]
    with pytest.raises(ModelFileError, match=f"Logistic is incomplete.*'{key}'"):
        calibration_from_dict(data)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b'"x"', b"[" * 100_000, b"\xff", b'{"images": NaN}',
     b'{"images": ' + b"9" * 5000 + b"}", b" " * (MAX_BYTES + 1)],
    ids=["empty", "open", "list", "null", "text", "deep", "latin", "nan", "digits", "large"],
)  # fmt: skip
def test_what_is_no_calibration_is_refused(tmp_path, text):
    path = tmp_path / "calibration.json"
    path.write_bytes(text)
    with pytest.raises(ModelFileError, match=r"calibration\.json .*`facenet calibrate`") as failure:
        load_calibration(path)
    assert len(str(failure.value)) < len(str(path)) + 500


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(ModelFileError, match="should be a calibration in JSON; "):
            load_calibration(path)


def test_a_line_made_by_hand_is_checked_too():
    with pytest.raises(SettingsError, match="prior should be"):
        Logistic(1.0, 0.0, 0.0)
    with pytest.raises(ModelFileError, match="should be finite; got nan and 0"):
        Logistic(math.nan, 0.0, 0.5)


def test_a_calibration_lies_beside_the_card_of_its_model(tmp_path):
    one, two = (calibration_path(f"toy:0123{end}", tmp_path) for end in ("", "+flip"))
    assert one.parent == two.parent and one.parent.name == "toy" and tmp_path in one.parents
    assert (one.name, two.name) == ("calibration.json", "calibration+flip.json")
