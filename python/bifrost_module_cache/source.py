"""Where modules come from, whichever of snapshot and near cache is asked just now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias

from ._native import CachedModule

__all__ = ["Found", "Source", "children"]


Found: TypeAlias = tuple[
    Literal["package", "module", "namespace"], str, str | None, CachedModule | None
]
"""What a name stands for: the kind, the path, the source's SHA-256, and the module, if asking again could
find another one."""


class Source(Protocol):
    """What a snapshot and a near cache have in common."""

    def get(self, path: str) -> CachedModule | None:
        """The module at a path."""
        ...

    def find(self, name: str) -> Found | None:
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
