"""The protocols of IJB-B and IJB-C on pooled templates, as one plain record.

1:1 over the listed pairs of templates; 1:N of the mixed probes against each of the two galleries
on its own, the numbers averaged, the galleries never merged (merged ones would leave no search
without a mate). Whitelam et al. (2017), Maze et al. (2018). Intervals draw people; the galleries
are kept as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facenet.data.ijb import IjbSearches, IjbSet, TemplatePairs, TemplateSubjects
from facenet.errors import DataError
from facenet.evaluate import curves
from facenet.evaluate.intervals import REPLICATES, Interval, share_interval, subject_weights
from facenet.evaluate.persontally import tally_intervals, tally_pairs
from facenet.evaluate.searches import Searches, identify
from facenet.evaluate.sweep import Labelled
from facenet.evaluate.templates import Pooling, Templates, pair_similarity, pool_templates
from facenet.types import FloatArray, IntArray

NO_FACE = 0.1
"""Detector scores up to this are of crops in which insightface's detector found no face."""
RANKS = (1, 5, 10)
FPIRS = (1e-1, 1e-2)
CELLS = 16_000_000
"""Comparisons, or pairs of people, that are counted at a time."""
POOL_LEAST = 200_000
"""Non-mated comparisons that a bootstrap always looks at."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
People = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """Comparisons with the people behind them: similarity float64 (n,), same bool (n,), a and b
    int32 (n,), numbers of people from 0 up, equal where one person is behind a comparison."""

    similarity: Floats
    same: Bools
    a: People
    b: People

    @property
    def mated(self) -> Floats:
        """Similarities of comparisons of one person: (k,)."""
        return self.similarity[self.same]

    @property
    def non_mated(self) -> Floats:
        """Similarities of comparisons of two people, or of searches without a mate: (m,)."""
        return self.similarity[~self.same]


def ijb_report(
    data: IjbSet,
    features: FloatArray,
    how: Pooling,
    *,
    quality: NDArray[np.floating] | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> dict[str, Any]:
    """Pool the features of all faces and run the protocols that the lists describe.

    features: float32 (n, d), a row per face as `pool_templates` takes them. quality: (n,), for
    the aggregation "quality". replicates, seed: of the bootstrap over people. Returns a plain
    record; every rate comes with counts and a 95 % interval, and rates that too few comparisons
    support are refused with a sentence. Raises InputError and DataError.
    """
    templates = pool_templates(features, data.faces, how, quality=quality)
    people, source = template_people(templates, data)
    weights = subject_weights(int(people.max()) + 1, replicates, seed)
    values: dict[str, Any] = {
        "dataset": data.dataset,
        "flags": how.flags,
        "aggregation": how.aggregation,
        "faces": len(data.faces),
        "without_face": int(np.sum(data.faces.detection_score <= NO_FACE + 1e-6)),
        "templates": len(templates.numbers),
        "templates_lost": int(templates.lost.sum()),
        "people": int(people.max()) + 1,
        "people_from": source,
        "verification": verification_values(templates, data.pairs, people, weights),
    }
    if data.searches is not None:
        values["identification"] = identification_values(templates, data.searches, people, weights)
    values["bootstrap"] = {"replicates": replicates, "seed": seed}
    values["digests"] = dict(data.digests)
    return values


def template_people(templates: Templates, data: IjbSet) -> tuple[IntArray, str]:
    """Who each template shows, int64 (t,) from 0 up, and where that is known from.

    From the 1:N lists where they name every template; else templates that a pair of the same
    person links, over any number of steps, are of one person.
    """
    root = np.arange(len(templates.numbers))
    if data.searches is not None:
        lists = [*data.searches.galleries.values(), data.searches.probes]
        template = np.concatenate([part.template for part in lists])
        if len(np.unique(template)) == len(root):
            root[templates.rows(template)] = np.concatenate([part.subject for part in lists])
            return _numbered(root), "the 1:N lists"
    mated = data.pairs.same
    first = templates.rows(data.pairs.a[mated]).tolist()
    second = templates.rows(data.pairs.b[mated]).tolist()
    parent = root.tolist()

    def find(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for i, j in zip(first, second, strict=True):
        parent[find(i)] = find(j)
    return _numbered(np.array([find(row) for row in range(len(parent))])), "the mated pairs"


def _numbered(labels: IntArray) -> IntArray:
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def verification_values(
    templates: Templates, pairs: TemplatePairs, people: IntArray, weights: IntArray
) -> dict[str, Any]:
    """1:1 over listed pairs: AUC, EER and TAR at FAR 1e-6 to 1e-1.

    people: int64 (n,), a number per template. weights: int64 (draws, people). Each TAR is at
    the largest FAR that is not above the rate. The intervals of AUC and EER are those of
    `persontally`.
    """
    similarity = pair_similarity(templates, pairs.a, pairs.b)
    a, b = (_people_of(templates, numbers, people) for numbers in (pairs.a, pairs.b))
    scored = Scored(similarity, pairs.same, a, b)
    lost = similarity == -np.inf
    values: dict[str, float | None] = {
        "auc": curves.area_under_roc(scored.mated, scored.non_mated),
        "eer": curves.equal_error_rate(scored.mated, scored.non_mated),
    }
    tallies = [
        tally_pairs(similarity, a, b, people=weights.shape[1], which=which)
        for which in (scored.same, ~scored.same)
    ]
    found = tally_intervals((tallies[0], tallies[1]), weights, values, trials=_mated_people(scored))
    return {
        "pairs": len(pairs),
        "mated": int(pairs.same.sum()),
        "non_mated": int((~pairs.same).sum()),
        "not_found": int(lost.sum()),
        "not_found_mated": int((lost & pairs.same).sum()),
        "contradictions": int(np.sum(pairs.same != (a == b))),
        **values,
        **{f"{name}_ci": _listed(interval) for name, interval in found.items()},
        **_rates(scored, curves.RATES, weights)[0],
    }


def _people_of(templates: Templates, numbers: IntArray, people: IntArray) -> People:
    """Who is shown by templates, by their number: (n,) -> (n,)."""
    shown = np.empty(len(numbers), np.int32)
    for start in range(0, len(numbers), CELLS // 16):
        part = slice(start, start + CELLS // 16)
        shown[part] = people[templates.rows(numbers[part])]
    return shown


def _mated_people(scored: Scored) -> int:
    return len(np.unique(scored.a[scored.same]))


def _rates(
    scored: Scored, rates: tuple[float, ...], weights: IntArray
) -> tuple[dict[str, Any], dict[float, Floats]]:
    """TAR at the rates that the pairs support, why not at the others, and the TAR of each draw."""
    mated, others = scored.mated, scored.non_mated
    good = tuple(rate for rate in rates if curves.pairs_needed(rate) <= len(others))
    drawn = tar_replicates(scored, good, weights)
    people, printed = _mated_people(scored), {}
    for rate in good:
        point = curves.tar_at_far(mated, others, rate)
        printed[curves.rate_name(rate)] = {
            "tar": point.tar,
            "ci": _listed(share_interval(drawn[rate], point.tar, people)),
            "far": point.far,
            "threshold": point.threshold,
            "false_matches": point.false_matches,
        }
    refused = {
        curves.rate_name(rate): curves.refusal(rate, len(others))
        for rate in rates
        if rate not in good
    }
    return {"tar_at_far": printed, "refused": refused}, drawn


def tar_replicates(
    scored: Scored, rates: tuple[float, ...], weights: IntArray
) -> dict[float, Floats]:
    """TAR at each rate, once per draw of people, the threshold chosen anew: rate -> (n,).

    weights: int64 (n, people), how often each draw has each of them. As `intervals.replicate` has
    it, but only the highest non-mated scores are looked at: three times as many as the largest
    rate lets through, or 5 % of all beyond it. A draw that would need more has no value (NaN).
    """
    found = {rate: np.full(len(weights), np.nan) for rate in rates}
    if not rates or scored.same.all() or not scored.same.any():
        return found
    whole = _total_weights(scored, weights)
    mated, floor = _highest(scored, scored.same, -np.inf), _pool_floor(scored, max(rates))
    others = _highest(scored, ~scored.same, floor)
    scores = others.similarity
    ends = np.append(np.flatnonzero(scores[1:] != scores[:-1]), len(scores) - 1)
    levels, falling = scores[ends], -mated.similarity
    for row, weight in enumerate(weights):
        accepted = np.cumsum(_weights(mated, weight))
        matches = np.cumsum(_weights(others, weight))[ends]
        for rate in rates:
            last = int(np.searchsorted(matches, (rate + 1e-12) * whole[row], side="right"))
            if whole[row] and accepted[-1] and (last < len(levels) or floor == -np.inf):
                refused = levels[last] if last < len(levels) else -np.inf
                count = int(np.searchsorted(falling, -refused, side="left"))
                found[rate][row] = (accepted[count - 1] if count else 0) / accepted[-1]
    return found


def _pool_floor(scored: Scored, rate: float) -> float:
    """The lowest non-mated score that a bootstrap at a rate looks at; minus infinity for all."""
    others = scored.non_mated
    wanted = max(POOL_LEAST, int(min(3 * rate, rate + 0.05) * len(others)) + 1)
    if wanted >= len(others):
        return -np.inf
    return float(np.partition(others, len(others) - wanted)[len(others) - wanted])


def _highest(scored: Scored, which: Bools, floor: float) -> Scored:
    """Some comparisons, those at or above a score, the highest first."""
    rows = np.flatnonzero(which & (scored.similarity >= floor))
    rows = rows[np.argsort(-scored.similarity[rows], kind="stable")]
    return Scored(scored.similarity[rows], which[rows], scored.a[rows], scored.b[rows])


def _weights(scored: Scored, weight: IntArray) -> IntArray:
    """How often each comparison is drawn: (n,); once per person where one person is behind it."""
    drawn = weight[scored.a]
    drawn *= np.where(scored.a == scored.b, 1, weight[scored.b])
    return drawn


def _total_weights(scored: Scored, weights: IntArray) -> Floats:
    """How often non-mated comparisons are drawn in all, each replicate: float64 (replicates,).

    Comparisons are counted by their two people first, so that millions of them are few products.
    """
    people, drawn = weights.shape[1], weights.astype(np.float64)
    alone = ~scored.same & (scored.a == scored.b)
    total = drawn @ np.bincount(scored.a[alone], minlength=people)
    step = max(1, CELLS // people)
    for low in range(0, people, step):
        width = min(step, people - low)
        table = np.zeros(width * people, np.int64)
        for start in range(0, len(scored.a), CELLS // 4):
            part = slice(start, start + CELLS // 4)
            a, b = scored.a[part].astype(np.int64) - low, scored.b[part]
            here = ~scored.same[part] & ~alone[part] & (a >= 0) & (a < width)
            table += np.bincount(a[here] * people + b[here], minlength=len(table))
        counts = drawn @ table.reshape(width, people).T
        total += np.einsum("rp,rp->r", drawn[:, low : low + width], counts)
    return total


def identification_values(
    templates: Templates, searches: IjbSearches, people: IntArray, weights: IntArray
) -> dict[str, Any]:
    """1:N: the mixed probes against each gallery, and the mean over both.

    people: int64 (n,), a number per template. weights: int64 (draws, people). TPIR counts a
    search whose mate is first and reaches the threshold; FPIR one without a mate where anybody
    reaches it. Raises DataError where nobody, or everybody, among the probes is in a gallery.
    """
    galleries, drawn = {}, []
    for name, gallery in searches.galleries.items():
        found = search_gallery(templates, gallery, searches.probes)
        shown = people[templates.rows(searches.probes.template)]
        galleries[name], replicates = _gallery_values(found, shown, weights)
        drawn.append(replicates)
    mean: dict[str, Any] = {"cmc": {}, "tpir_at_fpir": {}}
    searched = sum(values["people_mated"] for values in galleries.values())
    for part, key in (("cmc", "share"), ("tpir_at_fpir", "tpir")):
        for name in list(galleries.values())[0][part]:
            rows = [values[part].get(name) for values in galleries.values()]
            if all(rows):
                estimate = float(np.mean([row[key] for row in rows]))
                spread = np.mean([draws[f"{part} {name}"] for draws in drawn], axis=0)
                ci = share_interval(spread, estimate, searched)
                mean[part][name] = {key: estimate, "ci": _listed(ci)}
    return {"probes": len(searches.probes), "galleries": galleries, "mean": mean}


def search_gallery(
    templates: Templates, gallery: TemplateSubjects, probes: TemplateSubjects
) -> Searches:
    """Search every probe in a gallery. Raises DataError as `identification_values`."""
    found = identify(
        _labelled(templates, gallery),
        _labelled(templates, probes),
        sizes=(len(np.unique(gallery.subject)),),
    ).searches[-1]
    if found.mated.all() or not found.mated.any():
        raise DataError(
            f"Some of the {len(probes):,} probes should be of people in the gallery and some not; "
            f"{'all' if found.mated.all() else 'none'} are. Fetch the 1:N lists again."
        )
    return found


def _labelled(templates: Templates, shown: TemplateSubjects) -> Labelled:
    rows = templates.rows(shown.template)
    return Labelled(templates.vectors[rows], shown.subject, ~templates.lost[rows])


def _gallery_values(
    found: Searches, people: IntArray, weights: IntArray
) -> tuple[dict[str, Any], dict[str, Floats]]:
    """The numbers of one gallery, and those of each draw: people int64 (p,), of the probes."""
    mated, drawn = found.mated, dict[str, Floats]()
    cmc: dict[str, Any] = {}
    trials = weights @ np.bincount(people[mated], minlength=weights.shape[1])
    searched = len(np.unique(people[mated]))
    for rank in RANKS:
        hit = np.isfinite(found.within(rank))
        share = float(hit.mean())
        hits = weights @ np.bincount(people[mated][hit], minlength=weights.shape[1])
        drawn[f"cmc {rank}"] = hits / np.where(trials > 0, trials, np.nan)
        ci = share_interval(drawn[f"cmc {rank}"], share, searched)
        cmc[str(rank)] = {"share": share, "ci": _listed(ci), "hits": int(hit.sum())}
    scores = found.other.copy()
    scores[mated] = found.within(1)
    shown = people.astype(np.int32)
    rates, draws = _rates(Scored(scores, mated, shown, shown), FPIRS, weights)
    drawn |= {f"tpir_at_fpir {curves.rate_name(rate)}": row for rate, row in draws.items()}
    tpirs = {
        name: {
            "tpir": point["tar"],
            "ci": point["ci"],
            "fpir": point["far"],
            "threshold": point["threshold"],
            "false_positives": point["false_matches"],
        }
        for name, point in rates["tar_at_far"].items()
    }
    refused = {
        name: text.replace("FAR", "FPIR").replace("pairs", "searches")
        for name, text in rates["refused"].items()
    }
    values = {
        "gallery": found.gallery,
        "people_mated": searched,
        "searches_mated": int(mated.sum()),
        "searches_non_mated": int((~mated).sum()),
    }
    return {**values, "cmc": cmc, "tpir_at_fpir": tpirs, "refused": refused}, drawn


def _listed(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
