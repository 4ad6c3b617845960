"""Bounds of the numbers in loss settings."""

from __future__ import annotations

import math

from facenet.errors import SettingsError


def in_range(where: str, value: float, low: float, high: float = math.inf) -> None:
    """Nothing, when low <= value <= high and the value is finite. Raises SettingsError else."""
    if math.isfinite(value) and low <= value <= high:
        return
    wanted = f"{low:g} or more" if high == math.inf else f"from {low:g} to {high:g}"
    raise SettingsError(
        f"{where} should be a number, {wanted}; got {value!r:.40}. Correct it in the loss settings."
    )


def scale_and_ramp(loss: str, scale: float, ramp_steps: int) -> None:
    """Check the two settings that most margin losses share. Raises SettingsError."""
    in_range(f"{loss}.scale", scale, 1e-3, 1e4)
    in_range(f"{loss}.ramp_steps", ramp_steps, 0)
