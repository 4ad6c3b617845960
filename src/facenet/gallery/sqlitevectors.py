"""Vectors of a gallery file together with their faces, as one question to SQLite gives them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from facenet.gallery.records import Space, VectorBlock
from facenet.gallery.seals import SIZE
from facenet.gallery.tallies import stamps_of

FACE_BITS = 40
"""A vector's key is the number of its space times 2**40 plus the id of its face."""
VECTORS = (
    "SELECT v.key, v.face, v.seal, v.data, f.person, f.photo, f.source, f.body, f.seal"
    " FROM vector AS v LEFT JOIN face AS f ON f.key = v.face"
)
BARE = (
    "SELECT f.key, f.seal FROM face AS f LEFT JOIN vector AS v ON v.key = ? + f.key"
    " WHERE v.key IS NULL"
)
"""Faces without a vector in the space of which the parameter is the first key."""


def is_sealed(row: Sequence[Any], number: int) -> bool:
    """Whether a row of `VECTORS` of a space bears the seals of its vector and of its face; written
    out, for it runs a million times."""
    key, face, found, data, person, photo, source, body, face_seal = row
    try:
        salt = number.to_bytes(8, "little") + face.to_bytes(8, "little")
        good = blake2b(data, digest_size=SIZE, salt=salt, person=b"vector").digest() == found
        text = b"%d;%d:%b%d:%b%d:%b%d:%b" % (
            *(face, len(person), person, len(photo), photo),
            *(len(source), source, len(body), body),
        )
        known = blake2b(text, digest_size=SIZE, person=b"face").digest() == face_seal
    except (TypeError, AttributeError, OverflowError):
        good = known = False
    return good and known and bool(key == (number << FACE_BITS) + face)


def block_of(rows: Sequence[Any], space: Space, *, stamped: bool) -> VectorBlock:
    """Rows of `VECTORS` as a block. stamped: with stamps, which need seals that were checked.

    Raises ValueError, TypeError and AttributeError for what is no vector of the space.
    """
    names: dict[bytes, str] = {}
    people = tuple(names.get(row[4]) or names.setdefault(row[4], row[4].decode()) for row in rows)
    stack = np.frombuffer(bytearray().join([row[3] for row in rows]), "<f4")
    ids = np.array([row[1] for row in rows], np.int64)
    stamps = None
    if stamped:
        stamps = stamps_of([row[2] for row in rows]) + stamps_of([row[8] for row in rows])
    return VectorBlock(ids, people, stack.reshape(len(rows), space.dimension), stamps)
