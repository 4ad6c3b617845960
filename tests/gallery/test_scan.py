"""Coded rows and their scan: bounds that hold, and nothing of the answer passed over."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facenet.gallery import scan
from facenet.gallery.codes import CHUNK_BYTES, ZERO, Table, encode, groups, scale_of
from facenet.gallery.numbering import Numbers
from facenet.products import NumpyProducts, best_products
from facenet.vectors import unit

DIMENSIONS = (1, 3, 128, 192, 512)


def hard_rows(n, d, seed):
    """Unit rows with copies, near-copies, axes (whose codes are cut off) and sparse rows."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d))
    rows[n // 10 : n // 5] = rows[0]
    rows[n // 5 : n // 4] = rows[1] + 1e-7 * rng.standard_normal((n // 4 - n // 5, d))
    axes = np.arange(n // 4, n // 3)
    rows[axes] = 0
    rows[axes, axes % d] = np.where(axes % 2, 1, -1)
    rows[n // 3 : n // 2] *= rng.random((n // 2 - n // 3, d)) < 3 / d + 0.02
    return unit(np.where(np.abs(rows).sum(axis=1, keepdims=True) > 0, rows, 1))


def filled(rows, owners, **options):
    table = Table(rows.shape[1], **options)
    table.put(np.arange(1, len(rows) + 1), owners, rows)
    return table


def best_by_loops(rows, owners, query, k, allowed=None):
    """Owner and similarity of the k best, computed one by one; ties keep the lower owner."""
    best = {}
    for row, owner in zip(rows, owners.tolist(), strict=True):
        if allowed is None or allowed[owner]:
            value = np.float32(np.sum(query.astype(np.float64) * row.astype(np.float64)))
            best[owner] = max(best.get(owner, value), value)
    return sorted(best.items(), key=lambda item: (-item[1], item[0]))[:k]


@pytest.mark.parametrize("d", DIMENSIONS)
def test_the_spread_bounds_what_a_code_leaves_out(d):
    rows = hard_rows(400, d, d)
    codes, spreads, longest = encode(rows, scale_of(d))
    assert codes.min() >= 1
    kept = (codes.astype(np.longdouble) - ZERO) / np.longdouble(scale_of(d))
    lost = np.sqrt(((rows.astype(np.longdouble) - kept) ** 2).sum(axis=1))
    assert np.all(lost <= spreads.astype(np.longdouble))
    assert np.all(spreads <= lost * (1 + 1e-5) + 1e-8)
    assert np.all(np.sqrt((rows.astype(np.longdouble) ** 2).sum(axis=1)) <= longest)


def test_a_scale_is_fixed_by_the_dimension():
    assert [round(scale_of(d), 2) for d in DIMENSIONS] == [127.0, 127.0, 334.15, 409.25, 668.3]


@pytest.mark.parametrize("d", DIMENSIONS)
@pytest.mark.parametrize("threads", [1, 2])
def test_what_remains_holds_the_answer_within_its_bounds(d, threads):
    rows, rng = hard_rows(900, d, 7 * d), np.random.default_rng(d)
    owners = rng.integers(0, 300, len(rows)).astype(np.int32)
    table = filled(rows, owners, chunk=256)
    near = rows[rng.integers(0, len(rows), 10)] + 0.1 * unit(rng.standard_normal((10, d)))
    queries = np.concatenate([rows[:3], rows[225:227], unit(near)])
    for products in (NumpyProducts(), best_products()):
        found = scan.search(table, queries, 5, products=products, threads=threads)
        for number, query in enumerate(queries):
            mine = found.query == number
            exact = np.sum(rows[found.key[mine] - 1].astype(np.longdouble) * query, axis=-1)
            assert np.all(found.low[mine] <= exact)
            assert np.all(exact <= found.high[mine])
            assert np.array_equal(found.owner[mine], owners[found.key[mine] - 1])
            for owner, value in best_by_loops(rows, owners, query, 5):
                best = np.flatnonzero(mine & (found.owner == owner))
                values = np.sum(rows[found.key[best] - 1].astype(np.float64) * query, axis=-1)
                assert values.astype(np.float32).max() == value


def test_little_remains_of_random_rows():
    rng = np.random.default_rng(3)
    rows = unit(rng.standard_normal((20_000, 512)))
    table = filled(rows, np.arange(20_000, dtype=np.int32))
    found = scan.search(table, unit(rng.standard_normal((20, 512))), 5, threads=2)
    assert 5 * 20 <= len(found) < 30 * 20
    assert table.bytes_held < CHUNK_BYTES + 32 * 20_000
    assert 0 < np.count_nonzero(table.spreads > table.cut) <= 200


def test_a_row_that_is_cut_off_is_not_passed_over():
    """An axis keeps 0.19 of its length in 8 bits: only its own spread says that it may be best."""
    rng = np.random.default_rng(4)
    rows = unit(rng.standard_normal((3000, 512)))
    rows[[1000, 2900]] = np.eye(2, 512)
    query = unit(0.03 * rng.standard_normal((1, 512)) + 0.3 * np.eye(1, 512))
    table = filled(rows, np.arange(3000, dtype=np.int32))
    assert table.spreads[1000] > 0.8 > 0.05 > table.cut
    found = scan.search(table, np.repeat(query, 64, axis=0), 1)
    assert np.array_equal(found.query[found.key == 1001], np.arange(64))


def test_only_allowed_owners_are_searched():
    rows, owners = hard_rows(600, 128, 5), np.arange(600, dtype=np.int32) % 50
    allowed = np.zeros(50, np.bool_)
    allowed[[3, 17, 44]] = True
    found = scan.search(filled(rows, owners, chunk=128), rows[:4], 5, allowed=allowed)
    assert set(found.owner.tolist()) == {3, 17, 44}
    for number in range(4):
        wanted = {owner for owner, _ in best_by_loops(rows, owners, rows[number], 5, allowed)}
        assert wanted == set(found.owner[found.query == number].tolist())
    assert len(scan.search(filled(rows, owners), rows[:4], 5, allowed=np.zeros(50, np.bool_))) == 0


def test_a_flood_of_equal_rows_is_met_with_fewer_queries_at_once():
    """40,000 equal rows of 40,000 owners: every row is in the answer of every query."""
    rows = np.ones((40_000, 1), np.float32)
    table = filled(rows, np.arange(40_000, dtype=np.int32))
    queries = np.ones((60, 1), np.float32)
    assert len(rows) * len(queries) > scan.FLOOD
    found = scan.search(table, queries, 2)
    assert np.array_equal(np.bincount(found.query), np.full(60, 40_000))


def test_removed_rows_leave_no_bytes_and_their_slots_are_used_again():
    rows = hard_rows(700, 64, 1)
    table = filled(rows, np.arange(700, dtype=np.int32), chunk=256)
    held = table.bytes_held
    table.drop(np.array([5, 300, 699, 4_000]))
    assert len(table) == 697
    for slot in (4, 299, 698):
        chunk, place = divmod(slot, 256)
        assert set(table.chunks[chunk][place]) == {ZERO}
        assert (table.keys[slot], table.owners[slot], table.spreads[slot]) == (0, -1, 0)
    found = scan.search(table, rows[[4, 299]], 3)
    assert not {5, 300, 699} & set(found.key.tolist())
    table.put(np.array([900, 800, 1]), np.array([0, 1, 2]), rows[[10, 11, 12]])
    assert table.bytes_held == held
    assert np.array_equal(table.find(np.array([900, 800, 5, 1, 0])), [4, 299, -1, 0, -1])
    assert np.array_equal(table.codes(np.array([299, 0])), encode(rows[[11, 12]], table.scale)[0])
    assert table.distinct == len(set(table.owners[table.owners >= 0].tolist()))


@pytest.mark.parametrize("seed", range(20))
def test_settling_keeps_what_loops_keep(seed):
    rng = np.random.default_rng(seed)
    n, m, k = int(rng.integers(0, 60)), 4, int(rng.integers(1, 5))
    query, owner = rng.integers(0, m, n), rng.integers(0, 6, n)
    low = rng.integers(0, 12, n) / 10
    high = low + rng.integers(0, 4, n) / 10
    known = np.full(m, rng.choice([-np.inf, 0.5]))
    keep, best = scan.settle(query, owner, low, high, k=k, best=known)
    for number in range(m):
        mine = [i for i in range(n) if query[i] == number]
        own = {o: max(low[i] for i in mine if owner[i] == o) for o in {owner[i] for i in mine}}
        reached = sorted(own.values(), reverse=True)
        wanted = max(known[number], reached[k - 1]) if len(reached) >= k else known[number]
        assert best[number] == wanted
        kept = {i for i in mine if high[i] >= max(wanted, own[owner[i]])}
        assert kept == {i for i in keep.tolist() if query[i] == number}


def test_runs_of_equal_values():
    assert groups([1, 1, 4, 4, 4, 9]).tolist() == [0, 2, 5, 6]


def test_people_have_numbers():
    numbers, rng = Numbers(), np.random.default_rng(0)
    known: dict[str, int] = {}
    for _ in range(30):
        people = [
            f"p{number}" * (number % 3) + "é\0"[: number % 2] for number in rng.integers(0, 90, 12)
        ]
        for person in sorted(set(people) - known.keys(), key=lambda text: (text + "\x01").encode()):
            known[person] = len(known)
        assert numbers.add(people).tolist() == [known[person] for person in people]
    assert [numbers.name(number) for number in known.values()] == list(known)
    assert numbers.find(["nobody", *known]).tolist() == [-1, *known.values()]
    used = rng.random(len(known)) < 0.5
    fewer, fresh = numbers.only(used)
    left = [person for person, number in known.items() if used[number]]
    assert fewer.find(left).tolist() == list(range(len(left)))
    assert fresh[used].tolist() == list(range(len(left)))
    assert set(fresh[~used]) == {-1}
    assert numbers.find([]).tolist() == numbers.add([]).tolist() == []


def test_searches_from_several_threads_agree():
    rows = hard_rows(2000, 96, 9)
    table = filled(rows, np.arange(2000, dtype=np.int32) // 3)
    once = scan.search(table, rows[:30], 4, threads=3, products=best_products())
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(lambda _: scan.search(table, rows[:30], 4, threads=2), range(8)):
            pairs = set(zip(found.query.tolist(), found.key.tolist(), strict=True))
            assert pairs == set(zip(once.query.tolist(), once.key.tolist(), strict=True))
