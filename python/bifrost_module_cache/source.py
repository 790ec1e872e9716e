"""Where modules come from, whichever of snapshot and near cache is asked just now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from ._native import CachedModule, Resolution

__all__ = ["Source", "children"]


class Source(Protocol):
    """What a snapshot and a near cache have in common."""

    def get(self, path: str) -> CachedModule | None:
        """The module at a path."""
        ...

    def resolve(self, name: str) -> Resolution | None:
        """What a name stands for."""
        ...

    def paths(self) -> Iterable[str]:
        """All paths."""
        ...


def children(source: Source, directory: str) -> dict[str, bool]:
    """What lies directly in a directory ("" is the workspace): names, and whether each is a
    directory itself."""
    prefix = f"{directory}/" if directory else ""
    found: dict[str, bool] = {}
    for path in source.paths():
        if path.startswith(prefix):
            name, slash, _ = path[len(prefix) :].partition("/")
            found[name] = found.get(name, False) or bool(slash)
    return dict(sorted(found.items()))
