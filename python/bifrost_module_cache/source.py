"""Where modules come from, whichever of snapshot and near cache is asked just now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Protocol, TypeAlias
from weakref import WeakKeyDictionary

from ._native import CachedModule, Snapshot

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
    """What lies directly in a directory ("" is the workspace): names, and whether each is a directory
    itself."""
    if not isinstance(source, Snapshot):
        return tree(source).get(directory, {})
    # A walk through a large workspace asks for one directory after the other.
    known = _trees.get(source)
    if known is None:
        known = _trees[source] = tree(source)
    return known.get(directory, {})


_trees: WeakKeyDictionary[Snapshot, dict[str, dict[str, bool]]] = WeakKeyDictionary()


def tree(source: Source) -> dict[str, dict[str, bool]]:
    """By directory, what lies in it."""
    found: dict[str, dict[str, bool]] = {}
    for path in sorted(source.paths()):
        directory, _, name = path.rpartition("/")
        found.setdefault(directory, {}).setdefault(name, False)
        while directory:
            directory, _, name = directory.rpartition("/")
            found.setdefault(directory, {})[name] = True
    return {directory: dict(sorted(entries.items())) for directory, entries in found.items()}
