"""Events sent to a web address: in order, each at least once, never in the way, no secret told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import socket
import stat
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from receiver import Receiver
from visitors import event, little_disk

from facenet.apps.jobs.filming.eventfile import event_row
from facenet.apps.jobs.filming.outbox import Outbox, Parcel
from facenet.apps.jobs.filming.webhook import (
    Webhook,
    WebhookSettings,
    outbox_beside,
    webhook_secret,
)
from facenet.errors import SettingsError, StorageError


class Pauses:
    """Stands for waiting: notes how long, and from the `limit`-th on waits for the end."""

    def __init__(self, limit=1):
        self.asked, self.limit = [], limit
        self.reached = threading.Event()

    def __call__(self, seconds, end):
        self.asked.append(seconds)
        if len(self.asked) >= self.limit:
            self.reached.set()
            assert end.wait(20)


def at_once(seconds, end):
    """Waits for nothing."""


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert [t.name for t in threading.enumerate() if t.name == "facenet-webhook"] == []


@pytest.fixture
def box(tmp_path):
    return outbox_beside(tmp_path / "events.jsonl", "http://127.0.0.1/hook")


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def down(box, *people, pauses=None, url=None):
    """A run whose webhook is down all the time; its sentence."""
    url = url or f"http://127.0.0.1:{closed_port()}/secret-path?token=hush"
    pauses = pauses or Pauses()
    with Webhook(WebhookSettings(url, patience_s=0.1), box, pause=pauses) as hook:
        for person in people:
            hook.add(event_row(event(person=person)))
        assert pauses.reached.wait(20)
    return hook


def test_events_come_in_order_as_json_with_an_id(box):
    with Receiver() as receiver:
        with Webhook(WebhookSettings(receiver.url + "/hook?for=Zoë%20x&a=1"), box) as hook:
            for number in range(20):
                hook.add(event_row(event(person=f"Zoë {number}", track=number)))
        got = receiver.got
    assert [one.json["track"] for one in got] == list(range(20))
    assert {one.line for one in got} == {"POST /hook?for=Zo%C3%AB%20x&a=1"}
    first = got[0]
    assert first.json == event(person="Zoë 0", track=0).to_dict() | {"id": first.json["id"]}
    assert len({one.json["id"] for one in got}) == 20
    assert all(one.headers["webhook-id"] == one.json["id"] for one in got)
    assert first.headers["content-type"] == "application/json"
    assert "webhook-signature" not in first.headers
    assert hook.sentence() == f"20 events were delivered to {receiver.url}."
    assert not box.exists()


def test_the_signature_is_of_the_standard_and_of_each_try(box):
    """The example of standardwebhooks.com: its libraries give this signature for it."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    clock = iter(range(1614265330, 1614265340))
    with Receiver(lambda number: 500 if number == 1 else 200) as receiver:
        settings = WebhookSettings(receiver.url, secret)
        with Webhook(settings, box, pause=at_once, clock=lambda: next(clock)) as hook:
            hook.add({"test": 2432232314})
        tries = receiver.got
    key = base64.b64decode(secret.removeprefix("whsec_"))
    for number, one in enumerate(tries):
        stamp = one.headers["webhook-timestamp"]
        assert stamp == str(1614265330 + number)
        signed = f"{one.json['id']}.{stamp}.".encode() + one.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        assert one.headers["webhook-signature"] == f"v1,{expected}"
    assert tries[0].headers["webhook-id"] == tries[1].headers["webhook-id"]
    assert (len(tries), hook.delivered) == (2, 1)


def test_a_user_and_a_password_and_a_plain_secret(box):
    with Receiver() as receiver:
        url = f"http://ann:p%40ss@127.0.0.1:{receiver.port}/x"
        with Webhook(WebhookSettings(url, "plain"), box) as hook:
            hook.add({"track": 1})
        (one,) = receiver.got
    assert base64.b64decode(one.headers["authorization"].removeprefix("Basic ")) == b"ann:p@ss"
    signed = f"{one.json['id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
    mac = hmac.new(b"plain", signed, hashlib.sha256).digest()
    assert one.headers["webhook-signature"] == "v1," + base64.b64encode(mac).decode()
    assert "ss" not in hook.sentence().replace("127", "")


def test_one_that_is_down_takes_everything_in_the_next_run(box):
    hook = down(box, "Ann", "Bob", "Cid")
    assert hook.sentence().startswith("0 events were delivered to http://127.0.0.1:")
    assert f"; 3 wait in {box} for the next run (connection refused)." in hook.sentence()
    assert hook.to_dict() == {"delivered": 0, "waiting": 3, "lost": 0, "outbox": str(box)}
    assert stat.S_IMODE(box.stat().st_mode) == 0o600
    keys = [json.loads(line)["id"] for line in box.read_text().splitlines()]
    with Receiver() as receiver:
        with Webhook(WebhookSettings(receiver.url), box) as hook:
            hook.add(event_row(event(person="Dan")))
        got = [one.json for one in receiver.got]
    assert [one["person"] for one in got] == ["Ann", "Bob", "Cid", "Dan"]
    assert [one["id"] for one in got[:3]] == keys
    assert hook.to_dict() == {"delivered": 4, "waiting": 0, "lost": 0, "outbox": None}
    assert not box.exists()


def test_what_waits_for_one_address_is_sent_to_no_other(tmp_path):
    """Three runs beside the same file of events: A is down, then B is there, then A is."""
    events = tmp_path / "events.jsonl"
    at_a = f"http://127.0.0.1:{closed_port()}/for-a?token=hush"
    down(outbox_beside(events, at_a), "Ann", "Bob", url=at_a)
    with Receiver() as receiver:
        with Webhook(WebhookSettings(receiver.url), outbox_beside(events, receiver.url)) as hook:
            hook.add(event_row(event(person="Cid")))
        assert [one.json["person"] for one in receiver.got] == ["Cid"]
    (waiting,) = tmp_path.iterdir()
    assert waiting == outbox_beside(events, at_a)
    assert re.fullmatch(r"events\.jsonl\.[0-9a-f]{16}\.outbox", waiting.name)
    with Receiver(port=urlsplit(at_a).port) as receiver:
        with Webhook(WebhookSettings(at_a), outbox_beside(events, at_a)):
            pass
        assert [one.json["person"] for one in receiver.got] == ["Ann", "Bob"]
    assert list(tmp_path.iterdir()) == []


def test_what_waits_leaves_without_a_new_event(box):
    down(box, "Ann")
    with Receiver() as receiver, Webhook(WebhookSettings(receiver.url), box):
        assert receiver.wait(1)[0].json["person"] == "Ann"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (500, "it answered 500"),
        (404, "it answered 404"),
        ((301, {"Location": "http://127.0.0.1:9/stolen"}), "301, and redirects are not followed"),
        ((307, {"Location": "/elsewhere"}), "307, and redirects are not followed"),
        (None, "it closed the connection or gave no HTTP answer"),
    ],
)
def test_a_receiver_that_does_not_take_it(box, answer, words):
    with Receiver(lambda number: answer) as receiver:
        hook = down(box, "Ann", "Bob", url=receiver.url + "/a", pauses=Pauses(3))
        assert {one.line for one in receiver.got} == {"POST /a"}  # nothing else was asked for
        assert {one.json["person"] for one in receiver.got} == {"Ann"}  # Bob comes after her
        assert len({one.json["id"] for one in receiver.got}) == 1
        assert len(receiver.got) == 4
    assert words in hook.sentence()
    assert (hook.delivered, hook.waiting) == (0, 2)


def test_a_receiver_that_recovers_gets_all_in_order(box):
    bad = (2, 3, 5)
    with Receiver(lambda number: 503 if number in bad else 200) as receiver:
        hook = Webhook(WebhookSettings(receiver.url), box, pause=at_once)
        for person in "ABCD":
            hook.add(event_row(event(person=person)))
        got = [one.json["person"] for one in receiver.wait(7)]
        hook.close()
    assert got == ["A", "B", "B", "B", "C", "C", "D"]
    assert hook.problem is None
    assert hook.sentence().startswith("4 events were delivered")


def test_pauses_double_up_to_a_limit_and_begin_anew(box):
    pauses = Pauses(limit=9)
    with Receiver(lambda number: 200 if number == 9 else 500) as receiver:
        settings = WebhookSettings(receiver.url, patience_s=0.1)
        with Webhook(settings, box, pause=pauses) as hook:
            hook.add({"track": 1})
            hook.add({"track": 2})
            assert pauses.reached.wait(20)
    assert pauses.asked == [1, 2, 4, 8, 16, 32, 60, 60, 1, 2]  # the last after the end
    assert (hook.delivered, hook.waiting) == (1, 1)


@pytest.mark.parametrize(
    ("header", "pause"), [("7", 7), ("0", 1), ("999", 60), ("-5", 1), ("Mon, 1 Jan", 1), ("²", 1)]
)
def test_the_receiver_may_ask_for_a_pause(box, header, pause):
    pauses = Pauses()
    headers = {"Retry-After": header.encode("latin-1").decode("latin-1")}
    with Receiver(lambda number: (429, headers)) as receiver:
        down(box, "Ann", url=receiver.url, pauses=pauses)
    assert pauses.asked[0] == pause


def test_a_silent_receiver_is_given_up(box):
    quiet = threading.Event()
    with Receiver(lambda number: quiet.wait(20) and 200) as receiver:
        settings = WebhookSettings(receiver.url, timeout_s=0.2, patience_s=0.1)
        pauses = Pauses()
        with Webhook(settings, box, pause=pauses) as hook:
            hook.add({"track": 1})
            assert pauses.reached.wait(20)
        quiet.set()
    assert "1 waits in" in hook.sentence()
    assert "(no answer within 0.2 s)" in hook.sentence()


def test_the_end_does_not_wait_for_a_slow_receiver(box):
    """The answer never comes and the time-out is an hour: only the patience ends it."""
    quiet = threading.Event()
    with Receiver(lambda number: quiet.wait(20) and 200) as receiver:
        settings = WebhookSettings(receiver.url, timeout_s=3600, patience_s=0.2)
        with Webhook(settings, box) as hook:
            hook.add({"track": 1})
            hook.add({"track": 2})
            receiver.came.acquire(timeout=0.2)
        hook.close()  # a second time does nothing
        quiet.set()
    assert (hook.delivered, hook.waiting) == (0, 2)
    assert "(no answer before the end)" in hook.sentence()


def test_a_hiccup_at_the_end_is_waited_for(box):
    with Receiver(lambda number: 500 if number < 3 else 200) as receiver:
        hook = Webhook(WebhookSettings(receiver.url, pause_s=0.01), box)
        hook.add({"track": 1})
        hook.close()
    assert (hook.delivered, hook.waiting, len(receiver.got)) == (1, 0, 3)


def test_an_error_in_the_block_is_not_swallowed_and_nothing_is_lost(box):
    with Receiver() as receiver:
        hook = Webhook(WebhookSettings(receiver.url), box)
        with pytest.raises(KeyboardInterrupt), hook:
            hook.add({"track": 1})
            raise KeyboardInterrupt
    assert hook.delivered == 1


def test_https_needs_a_certificate(box):
    with Receiver() as receiver:
        hook = down(box, "Ann", url=receiver.url.replace("http", "https"))
        assert receiver.got == []
    assert "(its certificate or TLS was not accepted)" in hook.sentence()


def test_a_host_that_does_not_exist(box):
    hook = down(box, "Ann", url="http://no-such-host.invalid/secret-path")
    assert "(the host is not known)" in hook.sentence()


def test_messages_hold_no_secret(box):
    url = f"http://user:hush@127.0.0.1:{closed_port()}/hush/token?key=hush"
    settings = WebhookSettings(url, "hush")
    hook = down(box, "Ann", url=url)
    told = [hook.sentence(), repr(settings), str(settings), settings.place, str(hook.to_dict())]
    assert all("hush" not in text for text in told)
    assert b"hush" not in box.read_bytes()


@pytest.mark.parametrize(
    "url",
    ["ftp://hush/x", "file:///etc/hush", "hush", "", "http://", "http://a:hush/x", "//hush",
     "http://h:0/", "http://h:70000/", "http://a b/hush", "http://a/\nhush", "http://[hush/",
     "http://" + "a" * 70 + ".hush/", "http://a/" + "hush" * 999, "javascript:hush"],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(SettingsError, match="The address of a webhook should") as caught:
        WebhookSettings(url)
    assert "hush" not in str(caught.value)


def test_other_settings_that_cannot_be():
    with pytest.raises(SettingsError, match="should go on in base64") as caught:
        WebhookSettings("http://a", "whsec_hush!")
    assert "hush" not in str(caught.value)
    for name in ("timeout_s", "pause_s", "longest_s", "patience_s"):
        for value in (0, -1, float("nan"), float("inf")):
            with pytest.raises(SettingsError, match=f"{name} of a webhook should be seconds"):
                WebhookSettings("http://a", **{name: value})


def test_the_secret_comes_from_the_environment():
    assert webhook_secret({"FACENET_WEBHOOK_SECRET": "x"}) == "x"
    assert webhook_secret({"FACENET_WEBHOOK_SECRET": ""}) is None
    assert webhook_secret({}) is None


# The outbox


def persons(outbox):
    """Take everything out."""
    found = []
    while parcel := outbox.first():
        found.append(parcel.event["n"])
        outbox.done(parcel)
    return found


def parcel(number):
    return Parcel(f"k-{number}", {"n": number})


def test_a_kill_at_any_byte_loses_nothing_that_was_written(tmp_path):
    """The journal of five events, three of them delivered, is cut off after every byte."""
    path = tmp_path / "whole"
    outbox = Outbox(path)
    for number in range(5):
        outbox.put(parcel(number))
    for _ in range(3):
        outbox.done(outbox.first())
    data = path.read_bytes()
    outbox.close()
    assert path.read_bytes() == data
    for size in range(len(data) + 1):
        cut = tmp_path / f"cut{size}"
        cut.write_bytes(data[:size])
        lines = [json.loads(line) for line in data[:size].split(b"\n")[:-1]]
        done = sum("done" in line for line in lines)
        events = [line["event"]["n"] for line in lines if "event" in line]
        outbox = Outbox(cut)
        assert outbox.waiting == len(events) - done
        outbox.put(parcel(9))
        assert persons(outbox) == [*events[done:], 9]
        outbox.close()
        assert not cut.exists()


def test_what_is_no_event_is_passed_over(tmp_path):
    path = tmp_path / "box"
    lines = ['{"id": "", "event": 5}', '{"id": 3, "event": {}}', "[1]", "x" * 200_000,
             '{"id": "a"}', "[" * 5000, "", "\x00",
             '{"id": "k", "event": {"n": 1}}', '{"id": "k", "event": 5}']  # fmt: skip
    path.write_text("\n".join([*lines, '{"id": "l", "event": {"n": 2}}\n']))
    outbox = Outbox(path)
    assert outbox.waiting == 2
    assert persons(outbox) == [1, 2]
    outbox.close()


def test_the_file_does_not_grow_when_nothing_waits(tmp_path):
    path = tmp_path / "box"
    outbox, sizes = Outbox(path), set()
    for number in range(50):
        outbox.put(parcel(number))
        sizes.add(path.stat().st_size)
        assert persons(outbox) == [number]
        assert path.stat().st_size == 0
    assert max(sizes) < 100
    outbox.close()


def test_a_full_disk_keeps_what_memory_holds_and_counts_the_rest(tmp_path):
    path = tmp_path / "box"
    outbox = Outbox(path, spare=3)
    outbox.put(parcel(0))
    with little_disk(path.stat().st_size + 5):
        for number in range(1, 6):
            outbox.put(parcel(number))
        assert (outbox.waiting, outbox.lost) == (4, 2)
    outbox.put(parcel(6))  # still behind those in memory, which are full
    assert outbox.lost == 3
    first = outbox.first()
    outbox.done(first)
    outbox.close()  # the disk has room again: what was in memory is written down
    assert (first.event["n"], outbox.lost) == (0, 3)
    outbox = Outbox(path)
    assert persons(outbox) == [1, 2, 3]
    outbox.close()


def test_what_memory_alone_had_is_told_as_lost(tmp_path):
    box = tmp_path / "e.outbox"
    hook = None
    with little_disk(10):
        hook = down(box, "Ann", "Bob")
    assert hook.waiting == 0
    assert "; 2 were lost since the disk is full (connection refused)." in hook.sentence()


def test_events_leave_while_the_disk_is_full(tmp_path):
    with Receiver() as receiver, little_disk(10):
        with Webhook(WebhookSettings(receiver.url), tmp_path / "box") as hook:
            hook.add({"track": 1})
            hook.add({"track": 2})
        assert [one.json["track"] for one in receiver.got] == [1, 2]
    assert (hook.delivered, hook.to_dict()["lost"]) == (2, 0)


def test_outboxes_that_cannot_be_opened_are_refused_before_the_work(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path, tmp_path / "pipe", tmp_path / "pipe" / "below", Path("/proc/no/box")):
        with pytest.raises(StorageError):
            Webhook(WebhookSettings("http://127.0.0.1:9"), place)
    outbox = Outbox(tmp_path / "box")
    with pytest.raises(StorageError, match="Another run writes to"):
        Webhook(WebhookSettings("http://127.0.0.1:9"), tmp_path / "box")
    outbox.close()
