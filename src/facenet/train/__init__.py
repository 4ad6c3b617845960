"""The training room: backbones, losses, data, the loop, fine-tuning, export. Needs torch."""

from __future__ import annotations

from importlib.util import find_spec

from facenet.errors import MissingExtraError

PARTS = ("torch", "safetensors", "yaml")

if missing := [part for part in PARTS if find_spec(part) is None]:
    raise MissingExtraError(
        f"Training needs {', '.join(missing)}, which are not installed: "
        "pip install 'facenet[train]'."
    )
