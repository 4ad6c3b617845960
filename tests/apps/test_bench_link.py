"""Measuring beside others: the turns, the process, and peers that are missing or fall over."""

from __future__ import annotations

import json
import re
import sys

import pytest

from facenet.apps.jobs.benching.link import OURS, Link, peer_command
from facenet.apps.jobs.benching.runs import Ledger, Plan, Runs, memory_rows
from facenet.apps.jobs.peers import worker

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    if "prepare" in request:
        answer = {"ready": {"versions": {"echo": "7"}, "python": "3.11", "notes": ["An echo."]}}
    else:
        answer = {"seconds": 0.5, "items": request["run"], "peak": 12.5}
    print(json.dumps(answer), flush=True)
"""


def link(code, **options):
    """A process of this Python that runs code."""
    return Link("echo", (sys.executable, "-c", code), **options)


class Scripted:
    """A system that notes what it is asked in a list that several share."""

    def __init__(self, name, seconds, asked, fails_at=None):
        self.name, self.seconds, self.asked = name, iter(seconds), asked
        self.fails_at, self.runs = fails_at, 0

    def ask(self, request):
        ((what, value),) = request.items()
        self.asked.append((self.name, what, value))
        if what == "prepare":
            return {"ready": {"notes": [f"{self.name} is here."]}}
        self.runs += 1
        if self.runs == self.fails_at:
            return {"missing": f"{self.name} fell over."}
        return {"seconds": next(self.seconds), "items": 2, "peak": 10.0 * self.runs, "faces": 3}

    def close(self):
        self.asked.append((self.name, "close", None))


def measured(systems, plans, ledger=None):
    ledger = ledger or Ledger()
    runs = Runs(lambda name, threads: systems[name], 1, ledger)
    return list(runs.measure(plans)), ledger.notes


# ---- turns


def test_ours_and_the_peers_take_turns_after_one_run_that_does_not_count():
    asked = []
    systems = {
        OURS: Scripted(OURS, [9, 1, 2, 3], asked),
        "a": Scripted("a", [9, 4, 6, 5], asked),
        "b": Scripted("b", [9, 8, 8, 8], asked),
    }
    plan = Plan("x", "s", {"t": 0}, {"a": {"t": 1}, "b": {"t": 2}}, parts=("p", "q", "r"), faces=3)
    (outcome,), notes = measured(systems, [plan])
    turns = [(name, value) for name, what, value in asked if what != "close"]
    assert turns == [
        (OURS, {"t": 0}), (OURS, "p"), ("a", {"t": 1}), ("a", "p"), ("b", {"t": 2}), ("b", "p"),
        *((name, part) for part in "pqr" for name in (OURS, "a", "b")),
    ]  # fmt: skip
    rows = outcome.rows()
    assert [(row["peer"], row["median"], row["peer_median"], row["ratio"]) for row in rows] == [
        ("a", 1.0, 2.5, 2.5), ("b", 1.0, 4.0, 4.0),
    ]  # fmt: skip
    assert outcome.seconds_an_item() == 1.0
    assert notes == [f"{name} is here." for name in (OURS, "a", "b")]
    assert [name for name, what, _ in asked if what == "close"] == ["b", "a", OURS]
    memory = memory_rows("x", [outcome])
    assert [(row["median"], row["peer_median"]) for row in memory] == [(40.0, 40.0)] * 2


def test_a_peer_that_falls_over_leaves_a_row_without_it():
    systems = {
        OURS: Scripted(OURS, [1] * 9, []),
        "a": Scripted("a", [1] * 9, [], fails_at=3),
        "b": Scripted("b", [2] * 9, [], fails_at=1),
    }
    plan = Plan("x", "s", {}, {"a": {}, "b": {}})
    (outcome,), notes = measured(systems, [plan])
    (row,) = outcome.rows()
    assert (row["peer"], row["peer_median"], row["ratio"], row["runs"]) == (None, None, None, 5)
    assert {"a fell over.", "b fell over."} <= set(notes)


def test_what_facenet_cannot_run_is_a_note_and_the_rest_goes_on():
    systems = {OURS: Scripted(OURS, [1] * 20, [], fails_at=4)}
    plans = [Plan("x", "s", {}), Plan("y", "s", {}, faces=2)]
    ledger = Ledger()
    outcomes, notes = measured(systems, plans, ledger)
    assert [outcome.plan.name for outcome in outcomes] == ["y"]
    assert "x was not measured: facenet fell over." in notes
    assert "y was measured with 3 faces, as many as were found." in notes
    assert memory_rows("none", []) == []


# ---- the process


def test_a_process_answers():
    other = link(ECHO, threads=2)
    try:
        assert other.ask({"prepare": {}})["ready"]["versions"] == {"echo": "7"}
        assert other.ask({"run": 3}) == {"seconds": 0.5, "items": 3, "peak": 12.5}
    finally:
        other.close()
    assert other.ask({"run": 3}) == {"missing": "echo was ended."}
    other.close()


RUBBISH = "import sys; sys.stdin.readline(); print({!r}, flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import sys; sys.stdin.readline(); sys.exit('out of luck\\nat the end')",
         r"echo ended with 1 while it was measured: at the end\."),
        ("import os; os.abort()", r"echo ended with -6 while it was measured\."),
        (RUBBISH.format("Hello there"), 'should answer with a line of JSON; it printed "Hello'),
        (RUBBISH.format("[1, 2]"), "should answer with a line of JSON"),
        (RUBBISH.format('{"seconds": NaN, "items": 1}'), "should answer with a line of JSON"),
        (RUBBISH.format('{"seconds": "1", "items": 1}'), "should answer with a line of JSON"),
        (RUBBISH.format('{"ready": 1}'), "should answer with a line of JSON"),
        ("import sys; sys.stdin.readline(); print('[' * 3000000)", r'it printed "\[{80}"'),
        ("import sys; sys.stdin.read()", "gave no answer within 0.3 seconds"),
    ],
)  # fmt: skip
def test_a_process_that_fails_is_one_sentence_from_then_on(code, said):
    patience = 0.3 if "no answer" in said else 60
    other = link(code, patience=patience)
    try:
        answer = other.ask({"prepare": {}})
        assert list(answer) == ["missing"]
        assert len(answer["missing"]) < 400
        assert re.search(said, answer["missing"]), answer
        assert other.ask({"run": None}) == answer
    finally:
        other.close()


def test_what_cannot_be_started_is_a_sentence(tmp_path):
    other = Link("peer", peer_command("opencv", str(tmp_path / "nothing")))
    assert "peer could not be started: No such file" in other.ask({"prepare": {}})["missing"]
    other.close()


# ---- the worker


def talked(opener, *requests, **options):
    answers = []
    clock = iter(range(100))
    worker.serve(
        opener, [json.dumps(r) for r in requests], answers.append, clock=lambda: next(clock),
        **options,
    )  # fmt: skip
    return answers


def test_the_worker_prepares_runs_and_refuses():
    def opener(task):
        if task == "bad":
            raise worker.Missing("Not today.")
        return lambda part: {"items": part, "held": 7.0}, {"task": task}

    answers = talked(opener, {"run": 1}, {"prepare": "good"}, {"run": 5}, {"prepare": "bad"},
                     {"run": 5})  # fmt: skip
    assert answers[2]["held"] == 7  # what the job itself says comes first
    assert answers[0] == {"missing": "Nothing was prepared."}
    assert answers[1] == {"ready": {"task": "good"}}
    assert (answers[2]["seconds"], answers[2]["items"]) == (1, 5)
    assert answers[2].get("peak", 1) > 0
    assert answers[3:] == [{"missing": "Not today."}, {"missing": "Nothing was prepared."}]
    with pytest.raises(ZeroDivisionError):
        talked(lambda task: (lambda part: {"items": 1 / 0}, {}), {"prepare": 1}, {"run": 1})
    (refused,) = talked(lambda task: 1 / 0, {"prepare": 1}, refusals=(ZeroDivisionError,))
    assert refused == {"missing": "division by zero"}
