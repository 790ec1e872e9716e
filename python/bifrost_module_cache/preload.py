"""Compiles what executions will need, and executes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import CacheError
from .imports import imported_names

if TYPE_CHECKING:
    from types import CodeType

    from ._native import Snapshot
    from .finder import Finder

__all__ = ["PreloadReport", "Progress", "preload"]

Progress = Callable[[int, int], object]
"""Is told how many modules are done, and how many there are as far as is known."""


@dataclass(frozen=True)
class PreloadReport:
    """What ``preload`` did."""

    modules: int
    """How many modules are compiled now, of those that were looked at."""
    missing: tuple[str, ...] = ()
    """Names that were asked for and that the workspace does not have."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """By path, why a module can't be compiled: who imports it is told the same."""
    seconds: float = 0.0
    """How long it took."""


def preload(
    snapshot: Snapshot,
    finder: Finder,
    names: Iterable[str] | None,
    progress: Progress | None,
) -> PreloadReport:
    """Compiles all modules of a snapshot, or these and what they import."""
    start = time.monotonic()
    work = _Work(snapshot, finder, progress)
    missing: tuple[str, ...] = ()
    if names is None:
        work.all()
    else:
        missing = work.follow(names)
    finder.rehearse(snapshot, work.names)
    return PreloadReport(work.compiled, missing, work.failed, time.monotonic() - start)


class _Work:
    def __init__(self, snapshot: Snapshot, finder: Finder, progress: Progress | None) -> None:
        self.compiled = 0
        self.failed: dict[str, str] = {}
        self._snapshot = snapshot
        self._finder = finder
        self._progress = progress
        self._seen: set[str] = set()
        self.names: list[str] = []

    def all(self) -> None:
        paths = [path for path in self._snapshot.paths() if path.endswith(".py")]
        for done, path in enumerate(paths, 1):
            name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            self._all_of(name, path)
            self._tell(done, len(paths))

    def _all_of(self, name: str, path: str) -> None:
        try:
            # Children ask for the name: what is found is remembered.
            found = self._snapshot.find(name)
            module = self._snapshot.get(path)
        except CacheError as error:
            self.failed[path] = f"{type(error).__name__}: {error}"
            return
        if found is not None and found[1] == path and found[2] is not None:
            self._compile(name, path, found[2])
        elif module is not None:
            self._compile(name, path, module.sha256)

    def follow(self, names: Iterable[str]) -> tuple[str, ...]:
        """Follows imports in memory: however deep they go, Redis is not asked."""
        if isinstance(names, str):
            raise TypeError("names must be an iterable of names, not a single str")
        wanted = list(names)
        missing = tuple(name for name in wanted if self._snapshot.resolve(name) is None)
        waiting = wanted
        done = 0
        while waiting:
            name = waiting.pop()
            # A parent is imported before its child.
            for end in [*(at for at, letter in enumerate(name) if letter == "."), len(name)]:
                waiting += self._visit(name[:end])
            done += 1
            self._tell(done, done + len(waiting))
        return missing

    def _visit(self, name: str) -> list[str]:
        """Compiles a module that is met for the first time. Returns what it imports."""
        if name in self._seen:
            return []
        self._seen.add(name)
        try:
            found = self._snapshot.find(name)
        except CacheError as error:
            self.failed[error.path or name] = f"{type(error).__name__}: {error}"
            return []
        if found is None:
            return []
        kind, path, sha256, _ = found
        if sha256 is None:
            return []
        code = self._compile(name, path, sha256)
        if code is None:
            return []
        package = name if kind == "package" else name.rpartition(".")[0]
        return list(imported_names(code, package))

    def _compile(self, name: str, path: str, sha256: str) -> CodeType | None:
        try:
            code = self._finder.loader(name, path, sha256, self._snapshot).get_code()
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            self.failed[path] = f"{type(error).__name__}: {error}"
            return None
        self.compiled += 1
        self.names.append(name)
        return code

    def _tell(self, done: int, known: int) -> None:
        if self._progress is not None:
            self._progress(done, known)
