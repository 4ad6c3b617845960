"""What is closed when its `with` block is left."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Gives itself to a `with` block, and is closed at its end, whatever ended it."""

    @abstractmethod
    def close(self) -> None:
        """Let go; a second time does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
