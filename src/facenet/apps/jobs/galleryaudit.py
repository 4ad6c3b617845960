"""A gallery looked through for mistakes: the work behind `facenet gallery audit`.

The page shows the suspected faces beside those they are judged by, and the command that settles
each finding. Pictures come from the crops of the gallery, or from the photos where they still lie
unchanged; a face that has neither is shown by its source.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from facenet.apps.jobs.photos import Done
from facenet.apps.jobs.reporting import face_jpeg
from facenet.errors import ImageError, MissingExtraError, SettingsError
from facenet.files import require_writable, written
from facenet.galleries import Gallery
from facenet.gallery.audit import (
    KINDS,
    AuditRules,
    Decided,
    Finding,
    PersonRows,
    audit,
    fixes,
    wrong_labels,
)
from facenet.gallery.calibrate import lowest_fmr, similarity_at
from facenet.gallery.decide import active_space
from facenet.gallery.judgement import EnrolmentRules
from facenet.gallery.records import Crop, EnrolledFace, Person, VectorBlock
from facenet.gallery.store import View
from facenet.images import load_image
from facenet.models.card import FmrTable
from facenet.sightings import file_at

SAME, OTHER, DOUBLE = 1e-3, 1e-4, 1e-6
"""False-match rates of the similarities from which two faces of a person belong together, a face
looks like another person, and two people are said to be one."""
TITLES = {
    "wrong_label": "Faces that do not seem to be who they are said to be",
    "two_people": "Two people under one name",
    "duplicate_person": "One person under two names",
    "duplicate_photo": "One photo, enrolled twice",
    "poor_sample": "Poor faces",
}
SHOWN = 200
"""Findings of each kind that the page shows with pictures."""
CLOSEST = 3
"""Faces of a person that are shown beside a suspected one."""


def audit_rules(*tables: FmrTable | None, lowest: Mapping[str, float] | None = None) -> AuditRules:
    """The rules for a model with these tables of false-match rates.

    tables: the first that reaches a rate counts for it (a calibration on few people reaches only
    high ones), or else the one that reaches furthest. lowest: measures and the values below which
    a face is poor. Raises SettingsError without a table.
    """
    known = [table for table in tables if table is not None]
    if not known:
        raise SettingsError(
            "An audit needs the false-match rates of the model, and this one has none. Measure "
            "them with `facenet calibrate`."
        )
    same, other, double = (_level(known, rate) for rate in (SAME, OTHER, DOUBLE))
    return AuditRules(same, other, double, dict(lowest or {}))


def _level(tables: list[FmrTable], rate: float) -> float:
    reaching = [table for table in tables if lowest_fmr(table) <= rate]
    table = reaching[0] if reaching else min(tables, key=lowest_fmr)
    return similarity_at(table, max(rate, lowest_fmr(table)))


def audit_gallery(
    gallery: Gallery, place: str, *, page: Path | None, done: Done = lambda done, total: None
) -> dict[str, Any]:
    """Look a gallery through by the rates of its model, and write the page where one is wanted.

    done: called with faces compared and faces in all. Raises SettingsError when the rates of its
    model are not known.
    """
    if page:
        require_writable(page)
    tables = gallery.rates.table, gallery.recognizer.embedder.card.fmr
    rules = audit_rules(*tables, lowest=_lowest(gallery.rules))
    with gallery.store.read() as view:
        values = audit_values(view, active_space(view).contract, rules, place, done)
        if page:
            write_page(view, values, page)
    return values


def _lowest(rules: EnrolmentRules) -> dict[str, float]:
    """The measures that enrolment asks for, and their bounds."""
    bounds = {
        "face_size": rules.min_face_size,
        "sharpness": rules.min_sharpness,
        "detection_score": rules.min_detection_score,
    }
    return {name: bound for name, bound in bounds.items() if bound is not None}


def audit_values(
    view: View,
    contract: str,
    rules: AuditRules,
    place: str,
    done: Done = lambda done, total: None,
) -> dict[str, Any]:
    """Everything found, as plain values: counts by kind, and each finding with its fixes."""
    findings = audit(view, contract, rules, done)
    rows = [_described(view, finding, place) for finding in findings]
    return {
        "gallery": place,
        "people": view.count(Person),
        "faces": view.count(EnrolledFace),
        "rules": {"same": rules.same, "other": rules.other, "double": rules.double},
        "found": {kind: sum(f.kind == kind for f in findings) for kind in KINDS},
        "findings": rows,
    }


def audit_lines(values: Mapping[str, Any]) -> str:
    """The findings for a person at a terminal."""
    lines = [f"{values['people']:,} people, {values['faces']:,} faces"]
    for kind in KINDS:
        rows = [row for row in values["findings"] if row["kind"] == kind]
        lines.append(f"{TITLES[kind]}: {len(rows)}")
        lines += [f"  {row['text']}\n    {row['fixes'][0]}" for row in rows]
    return "\n".join(lines)


def write_page(view: View, values: Mapping[str, Any], path: Path) -> None:
    """The findings as one self-contained HTML page. It holds faces: only its owner may read it.

    Raises MissingExtraError without jinja2, StorageError.
    """
    try:
        import jinja2
    except ImportError as error:
        raise MissingExtraError(
            "The page of an audit needs jinja2, which is not installed. Install it with "
            '`pip install "facenet[evaluate]"`.'
        ) from error
    template = (Path(__file__).parent / "galleryaudit.html.j2").read_text(encoding="utf-8")
    sections = [
        {
            "title": TITLES[kind],
            "count": values["found"][kind],
            "rows": [_with_pictures(view, row) for row in _of(values, kind)[:SHOWN]],
        }
        for kind in KINDS
    ]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(template).render(values=values, sections=sections)
    with written(path) as file:
        Path(file.name).chmod(0o600)
        file.write(text.encode("utf-8", "backslashreplace"))


def score_audit(
    block: VectorBlock, rules: AuditRules, *, share: float, seed: int
) -> dict[str, Any]:
    """How well an audit finds wrong labels that are put there.

    block: embedded pictures of a data set under their people. A `share` of the faces gets the name
    of another person, drawn evenly. An error is found when a finding names the face, or names its
    person as two and lists it. A finding without any such face is a false alarm; the errors that
    the data set had before count as false alarms here.
    """
    if not 0 < share < 1:
        raise SettingsError(f"errors should be a share between 0 and 1; got {share:g}.")
    rng = np.random.default_rng(seed)
    names, labels = np.unique(np.asarray(block.people), return_inverse=True)
    chosen = rng.choice(len(labels), max(1, round(share * len(labels))), replace=False)
    steps = rng.integers(1, max(len(names), 2), len(chosen))
    labels[chosen] = (labels[chosen] + steps) % len(names)
    wrong = replace(block, people=tuple(names[labels].tolist()))
    findings = wrong_labels(PersonRows.of(wrong), rules, Decided())
    put = set(block.ids[chosen].tolist())
    return {
        "seed": seed,
        "faces": len(block),
        "errors": len(put),
        **_score(findings, put, len(block)),
    }


def _score(findings: list[Finding], put: set[int], faces: int) -> dict[str, Any]:
    named = {finding.faces[0] for finding in findings if finding.kind == "wrong_label"}
    listed = {
        face for finding in findings if finding.kind == "two_people" for face in finding.faces
    }
    alarms = [
        f for f in findings if not put & set(f.faces[:1] if f.kind == "wrong_label" else f.faces)
    ]
    return {
        "found": len(put & (named | listed)) / len(put),
        "found_by_face": len(put & named) / len(put),
        "findings": len(findings),
        "false_alarms": len(alarms),
        "false_alarm_rate": len(alarms) / faces,
    }


def _described(view: View, finding: Finding, place: str) -> dict[str, Any]:
    people = {key: view.get(Person, key) for key in finding.people}
    known = {key: person for key, person in people.items() if person}
    names = [known[key].name for key in finding.people if key in known]
    return {
        **finding.to_dict(),
        "names": names,
        "text": _sentence(finding, names),
        "fixes": fixes(finding, place),
    }


def _sentence(finding: Finding, names: list[str]) -> str:
    """A finding as a person would say it."""
    face = f"face {finding.faces[0]} of {names[0]}"
    if finding.kind == "wrong_label" and len(names) > 1:
        return (
            f"{face} looks like {names[1]} ({finding.similarity:.3f}; "
            f"{finding.own:.3f} to the rest of {names[0]})"
        )
    if finding.kind == "wrong_label":
        return f"{face} is like none of the others ({finding.own:.3f} to their template)"
    if finding.kind == "two_people":
        return f"the faces of {names[0]} fall into groups (at best {finding.similarity:.3f} alike)"
    if finding.kind == "duplicate_person":
        return (
            f"{names[0]} and {' '.join(names[1:])} look like one person ({finding.similarity:.3f})"
        )
    if finding.kind == "duplicate_photo":
        return f"{face} is the same photo as face {finding.faces[1]} ({finding.similarity:.3f})"
    name, value = finding.measure or ("", 0.0)
    return f"{face} has a {name.replace('_', ' ')} of {value:.4g}"


def _of(values: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return [row for row in values["findings"] if row["kind"] == kind]


def _with_pictures(view: View, row: Mapping[str, Any]) -> dict[str, Any]:
    """A finding with its faces, and with some of the people it speaks of, as pictures."""
    others = [
        face.id
        for person in row["people"]
        for face in view.find(EnrolledFace, person=person, limit=CLOSEST + 1)
        if face.id not in row["faces"]
    ]
    shown = [*row["faces"][: 2 * CLOSEST], *others[: 2 * CLOSEST]]
    return {**row, "pictures": [_picture(view, face, face in row["faces"]) for face in shown]}


def _picture(view: View, number: int, suspect: bool) -> dict[str, Any]:
    face = view.get(EnrolledFace, number)
    person = view.get(Person, face.person) if face else None
    data = _jpeg(view, face) if face else None
    return {
        "suspect": suspect,
        "face": number,
        "name": person.name if person else "",
        "source": face.source if face else "",
        "data": base64.b64encode(data).decode() if data else "",
    }


def _jpeg(view: View, face: EnrolledFace) -> bytes | None:
    """The face from the crop, or from its photo where that lies unchanged; else None."""
    crop = view.get(Crop, face.id)
    try:
        if crop is not None:
            image = load_image(crop.data)
            whole = (0.0, 0.0, float(image.shape[1]), float(image.shape[0]))
            return face_jpeg(image, np.array(whole, np.float32), room=0)
        photo = file_at(face.source) if face.source and face.box else None
        if photo is None or not photo.is_file():
            return None
        data = photo.read_bytes()
        if hashlib.sha256(data).hexdigest() != face.photo:
            return None
        return face_jpeg(load_image(data), np.array(face.box, np.float32))
    except (ImageError, OSError):  # it is shown by its source then
        return None
