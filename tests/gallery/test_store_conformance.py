"""Every store keeps the promises of gallery/store.py."""

import pytest

from facenet.gallery.memory import MemoryStore
from facenet.gallery.sqlite import SqliteStore

pytest.register_assert_rewrite("conformance")

from conformance import *  # noqa: E402, F403

FACTORIES = {
    "memory": lambda folder: MemoryStore(),
    "sqlite": lambda folder: SqliteStore(folder / "G.db", create=True),
}


@pytest.fixture(params=sorted(FACTORIES))
def store(request, tmp_path):
    opened = FACTORIES[request.param](tmp_path)
    yield opened
    opened.close()
