"""Write the golden answers of a model into its card: `python scripts/write_golden.py NAME...`.

The answers come from ONNX Runtime in fp32 on `golden_input`; tests prove those graphs equal to
their published sources, run by another runtime.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

from facenet.models.catalog import find_card, package_folder
from facenet.models.engine import Engine, EngineSettings, golden_input, open_engine
from facenet.models.store import ModelStore

FREE_SIDE = {"yunet": 64}
"""Size given to a free height or width, by family of the card (a multiple of YuNet's strides)."""
USUAL_SIDE = 24
"""That of the others."""


def golden(engine: Engine, free: int) -> dict[str, Any]:
    """Shape of the known input and the flat answers, to 7 digits. free: see `FREE_SIDE`."""
    name, shape = next(iter(engine.inputs.items()))
    size = [1, *(side or free for side in shape[1:])]
    answer = engine.run({name: golden_input(tuple(size))})
    outputs = {key: [float(f"{v:.7g}") for v in np.ravel(values)] for key, values in answer.items()}
    return {"shape": size, "outputs": outputs}


def main(names: list[str]) -> None:
    """Rewrite the `golden` entry of each named card."""
    settings = EngineSettings(engine="onnxruntime", device="cpu")
    for name in names:
        card = find_card(name)
        path = package_folder() / "cards" / f"{card.name}.json"
        data = json.loads(path.read_text("utf-8"))
        files = ModelStore().files(card)
        free = FREE_SIDE.get(card.family or "", USUAL_SIDE)
        data["golden"] = {
            stem: golden(open_engine(file, settings), free) for stem, file in files.items()
        }
        path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"{path.name}: golden answers of {', '.join(files)}")


if __name__ == "__main__":
    main(sys.argv[1:])
