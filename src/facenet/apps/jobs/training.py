"""Training from the command line: a recipe, a run, and a person who may press Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facenet.apps.jobs.interrupt import on_interrupt
from facenet.errors import SettingsError

if TYPE_CHECKING:
    from facenet.train.loop import Summary

PLACES = (Path(__file__).parents[2] / "recipes", Path(__file__).parents[4] / "recipes")
RECIPES = next((place for place in PLACES if place.is_dir()), PLACES[0])
"""The recipes inside an installed facenet, or those of its checkout."""


def train(
    recipe: Path | None,
    changes: Sequence[str],
    out: Path | None,
    resume: Path | None,
    *,
    note: Callable[[str], None],
    done: Callable[[int, int, str], None],
) -> tuple[Summary, Path]:
    """Begin a run, or go on with one; gives how it ended and its folder.

    Ctrl-C ends it after the step, with a checkpoint; a second one at once. Raises SettingsError for
    arguments that do not go together, and what `train_embedder` and `resume_training` raise.
    """
    runs = training_room("runs")
    watch_kind = training_room("loop").Watch
    with stop_after_step() as stopped:
        watch = watch_kind(note, done, stopped)
        if resume is not None:
            if recipe is not None or changes or out is not None:
                raise SettingsError(
                    "--resume goes on with a run as it was begun; leave out the recipe, its "
                    "changes and --out."
                )
            return runs.resume_training(resume, watch=watch), resume
        if recipe is None or out is None:
            raise SettingsError(
                "facenet train needs a recipe and --out RUN, or --resume RUN. Recipes lie in "
                "recipes/; see docs/training.md."
            )
        config = training_room("configfile").read_config(found_recipe(recipe), changes)
        return runs.train_embedder(config, out, watch=watch), out


def training_room(module: str) -> Any:
    """A module of `facenet.train`. Raises MissingExtraError without what training needs."""
    return import_module(f"facenet.train.{module}")


def found_recipe(recipe: Path) -> Path:
    """The file itself, or the shipped recipe of that name."""
    shipped = RECIPES / recipe.with_suffix(".yaml").name
    return shipped if not recipe.exists() and shipped.is_file() else recipe


@contextmanager
def stop_after_step() -> Iterator[Callable[[], bool]]:
    """Ctrl-C sets a flag instead of ending the process; a second one ends it as ever."""
    asked = threading.Event()
    with on_interrupt(asked.set):
        yield asked.is_set
