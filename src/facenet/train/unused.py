"""No option that does nothing: one that the chosen part does not use is an error."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from facenet.errors import SettingsError


def refuse_unused(
    where: str, settings: Any, uses: Mapping[str, Collection[str]], *, always: Collection[str]
) -> None:
    """Refuse an option of a settings record that its choice has no use for.

    where: the section, such as "schedule". settings: a dataclass with `name`. uses: the options
    of each name. always: options that every name uses. Raises SettingsError for any other option
    whose value is not the default, and says which names use it.
    """
    name = settings.name
    for option in fields(settings):
        if option.name == "name" or option.name in always or option.name in uses[name]:
            continue
        if getattr(settings, option.name) != option.default:
            users = ", ".join(other for other in uses if option.name in uses[other])
            raise SettingsError(
                f"{where}.{option.name} is for {users}; {where}.name is {name}, which does not "
                "use it. Leave it out, or choose another name."
            )
