"""A table of what the wrong standardisation costs, from answers of `facenet evaluate`.

    facenet evaluate lfw --images IMAGES --pairs PAIRS --model NAME --json \\
        --standardise fixed,per_image,insightface,none > NAME.json
    python scripts/standardisations.py NAME.json ...
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HEAD = ("model", "crop", "standardise", "accuracy", "lost", "TAR at FAR 1e-3", "published")


def rows(answer: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The models of an answer, each as on its card first, then the experiments."""
    models = sorted(answer["models"], key=lambda model: model["overridden"] is not None)
    own = models[0]["model"]
    for model in models:
        crop = model["preprocess"]
        margin = f" {crop['margin']}" if crop["margin"] else ""
        as_told = "" if model["overridden"] else " (card)"
        yield (
            f"`{own}`",
            f"{crop['crop']}{margin} {crop['width']}x{crop['height']}",
            crop["standardise"] + as_told,
            f"{model['accuracy']:.4f} {interval(model['accuracy_ci'])}",
            lost(answer["paired"], own, model["model"]),
            f"{model['tar_at_far']['1e-3']['tar']:.4f}",
            str(model["published"] or "") if as_told else "",
        )


def lost(paired: Sequence[dict[str, Any]], own: str, other: str) -> str:
    """Accuracy as on the card less that of an experiment, with its interval."""
    for row in paired:
        if row["metric"] == "accuracy" and {row["a"], row["b"]} == {own, other}:
            sign = 1 if row["a"] == own else -1
            ends = sorted(sign * end for end in row["ci"])
            return f"{sign * row['difference']:.4f} {interval(ends)}"
    return ""


def interval(ends: Sequence[float]) -> str:
    return f"[{ends[0]:.4f}, {ends[1]:.4f}]"


def main(files: Sequence[str]) -> int:
    table = [HEAD, ("---",) * len(HEAD)]
    for file in files:
        table += rows(json.loads(Path(file).read_text("utf-8")))
    print("\n".join(f"| {' | '.join(row)} |" for row in table))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
