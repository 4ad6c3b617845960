"""`facenet bench train`: pictures per second of training, beside a plain loop and a peer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from facenet.apps.jobs.benching.link import PLAIN
from facenet.apps.jobs.benching.rows import Row
from facenet.apps.jobs.benching.runs import Plan, memory_rows
from facenet.apps.jobs.benching.session import INCEPTION, Session
from facenet.apps.jobs.training import training_room
from facenet.models.home import cpu_threads

NETWORKS = {INCEPTION: 32, "iresnet50": 16, "mobilefacenet": 32}
"""Backbones with the pictures of a step."""
PEERS = {INCEPTION: ("facenet-pytorch",)}


def train(session: Session) -> Iterator[Row]:
    """Rows of every network in bfloat16 by autocast, beside the same in a plain fp32 loop.

    Raises MissingExtraError without what training needs.
    """
    training_room("rehearsal")
    for network, batch in NETWORKS.items():
        outcomes = []
        for outcome in session.runs(cpu_threads()).measure([_plan(session, network, batch)]):
            outcomes.append(outcome)
            yield from outcome.rows()
        yield from memory_rows(f"train/{network}", outcomes)


def _plan(session: Session, network: str, batch: int) -> Plan:
    task: dict[str, Any] = {"job": "train", "network": network, "batch": batch, "precision": "bf16"}
    others = session.peers(dict.fromkeys(PEERS.get(network, ()), task))
    peers = {PLAIN: {**task, "precision": "plain"}, **others}
    return Plan(
        f"train/{network}/bf16/batch{batch}",
        "images/s",
        task,
        peers,
        (None,) * session.settings.runs,
    )
