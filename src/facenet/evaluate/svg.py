"""A drawing made for a file becomes an element of an HTML page.

In a page, style sheets of a drawing reach the whole page and identifiers of two drawings clash;
the page chooses colours for light and dark. Nothing here comes from the evaluated data.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

XLINK = "http://www.w3.org/1999/xlink"
INK, MUTED, GRID = "#1c2128", "#5d6773", "#dde2e7"
SERIES = ("#0067a5", "#c2410c", "#00795a", "#9d3f77", "#806600", "#4f52b2")
"""Colours of models, told apart with any kind of colour vision."""


def inline(drawing: bytes, name: str, title: str) -> str:
    """An element of a page: no style sheet, no metadata, and no identifier of another's.

    drawing: a file that matplotlib wrote. name: unique on the page. title: what a reader hears.
    """
    root = ElementTree.fromstring(drawing)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)
    links = [_link(element) for element in root.iter()]
    for element in root.iter():
        _clean(element, name, {link for link in links if link})
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "role": "img"}
    root.set("aria-labelledby", f"{name}-title")
    label = ElementTree.Element("title", {"id": f"{name}-title"})
    label.text = title
    root.insert(0, label)
    return re.sub(r">\s+<", "><", ElementTree.tostring(root, encoding="unicode"))


def _link(element: ElementTree.Element) -> str:
    """The identifier that an element uses: of a marker or of a clip."""
    clip = re.fullmatch(r"url\(#(.+)\)", element.get("clip-path", ""))
    return clip[1] if clip else element.get(f"{{{XLINK}}}href", "").removeprefix("#")


def _clean(element: ElementTree.Element, name: str, linked: set[str]) -> None:
    """Names without namespaces, identifiers of this figure, short numbers, colours of the page."""
    element.tag = element.tag.rpartition("}")[2]
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        if key == "id" and value not in linked:
            continue
        if key == "id":
            value = f"{name}-{value}"
        elif key in ("clip-path", f"{{{XLINK}}}href"):
            value = value.replace("#", f"#{name}-")
        elif key == "style":
            value = re.sub(r"font: (\S+) [^;]*", r"font-size: \1", value)
            value = re.sub(r"font-family: [^;]*;? ?", "", value)
            value = re.sub(r"#[0-9a-f]{6}", lambda found: variable(found[0]), value)
        elif key == "d":
            value = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}", value)
            value = " ".join(value.split())
        element.set(key.rpartition("}")[2], value)


def variable(colour: str) -> str:
    """A colour as a CSS variable of the page, with itself for pages that have none."""
    variables = {INK: "ink", MUTED: "muted", GRID: "grid"}
    variables |= {shade: f"s{number}" for number, shade in enumerate(SERIES)}
    return f"var(--{variables[colour]}, {colour})" if colour in variables else colour
