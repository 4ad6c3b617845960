"""Running networks beside the work on pixels."""

import threading
import weakref

import pytest

from facenet.faces.beside import AHEAD, Beside


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_answers_come_in_order_with_their_questions(threads):
    beside = Beside(threads)
    got = list(beside.ask(lambda n: n * 10, lambda q: q + 1, range(50)))
    assert got == [(n, n * 10, n * 10 + 1) for n in range(50)]
    assert list(beside.ask(lambda n: n, lambda q: q, [])) == []


def test_questions_are_prepared_by_the_caller_and_no_more_than_may_wait():
    begun, here = [], threading.get_ident()
    gate = threading.Event()

    def prepare(job):
        assert threading.get_ident() == here
        begun.append(job)
        return job

    def run(question):
        if threading.get_ident() != here:
            gate.wait(30)  # the other thread is stuck; the caller answers everything else
        return question

    answers = Beside(2).ask(prepare, run, range(100))
    gate_opener = threading.Timer(0.2, gate.set)
    gate_opener.start()
    assert next(answers)[0] == 0
    assert len(begun) <= AHEAD + 2
    assert [job for job, _, _ in answers] == list(range(1, 100))
    gate_opener.join()


@pytest.mark.parametrize("threads", [1, 2])
def test_errors_come_in_their_place(threads):
    def run(question):
        if question == 5:
            raise ValueError("five")
        return question

    answers = Beside(threads).ask(lambda n: n, run, range(9))
    assert [next(answers)[0] for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(answers)
    assert list(answers) == []


def test_an_error_of_a_later_question_waits_for_its_place():
    """The other thread has the first question; the caller runs the next, one of which fails."""
    begun, gate, here, ran = threading.Event(), threading.Event(), threading.get_ident(), []

    def prepare(job):
        assert job == 0 or begun.wait(30)
        return job

    def run(question):
        if question == 0:
            assert threading.get_ident() != here
            begun.set()
            assert gate.wait(30)
            return question
        ran.append(question)
        if question == 3:
            gate.set()
        if question == 1:
            raise ValueError("one")
        return question

    answers = Beside(2).ask(prepare, run, range(4))
    assert next(answers) == (0, 0, 0)
    assert ran == [1, 2, 3]
    with pytest.raises(ValueError, match="one"):
        next(answers)
    assert list(answers) == []


def test_the_end_of_the_program_is_no_answer():
    def run(question):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(Beside(1).ask(lambda n: n, run, range(2)))


def test_stages_follow_one_another():
    beside = Beside(2)
    first = beside.ask(lambda n: n, lambda q: q * q, range(30))
    second = beside.ask(lambda seen: seen[2], lambda q: -q, first)
    assert [answer for _, _, answer in second] == [-n * n for n in range(30)]


def test_a_caller_that_stops_early_leaves_nothing_running():
    ran = []
    beside = Beside(2)
    answers = beside.ask(lambda n: n, ran.append, range(1000))
    next(answers)
    answers.close()
    assert len(ran) <= AHEAD + 3
    gone = weakref.ref(beside)
    del beside, answers
    assert gone() is None
