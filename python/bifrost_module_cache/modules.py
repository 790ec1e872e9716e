"""What a worker holds: near cache, import hook, executions."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from ._native import CachedModule, Config, Diagnosis, NearCache, Resolution, Snapshot
from .code_cache import CodeCache
from .errors import CacheError, InvalidConfig, Unavailable
from .execution import Execution, Executions
from .finder import Finder
from .preload import PreloadReport, Progress, preload
from .source import Source

__all__ = ["Modules"]

_DEFAULT_ROOT = "/bifrost/"
# As Config's bulk_deadline, if it is not set.
_PATIENCE = 5.0


class Modules:
    """The workspace's modules in a worker: kept in memory, and imported by ``import``.

    Connects at its first use, to the Redis at ``url``, or where ``REDIS_URL`` says. ``staleness`` is how
    old, in seconds, an answer may be at most when the network goes silent. The sources that it keeps
    take at most ``max_bytes``, and so do the code objects. With ``stale_if_error``, modules and
    workspaces that were current so many seconds ago are served during an outage.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        config: Config | None = None,
        staleness: float = 2.0,
        max_bytes: int = 64 << 20,
        stale_if_error: float | None = None,
    ) -> None:
        self._near = NearCache(url, config, staleness, max_bytes, stale_if_error)
        self._stale_if_error = stale_if_error
        self._codes = CodeCache(max_bytes)
        self._finder: Finder | None = None
        self._latest: Snapshot | None = None
        self._taken = 0.0
        self._is_closed = False
        patience = config.bulk_deadline if config is not None else None
        self._executions = Executions(patience or _PATIENCE)

    def install(self, *, root: str = _DEFAULT_ROOT) -> Finder:
        """Has ``import`` find the workspace's modules, before anything but the standard library and
        what is installed. Returns the finder; a second call changes nothing.

        Files of the workspace are called by their path below ``root``, a directory that must not exist.
        """
        finder = self._finder
        if finder is None:
            if not root.startswith("/") or not root.endswith("/") or root == "/":
                raise InvalidConfig('invalid configuration: root must look like "/bifrost/"')
            if os.path.lexists(root.rstrip("/")):
                raise InvalidConfig(
                    f"invalid configuration: {root} exists on this machine, so that its files could "
                    "be taken for the workspace's: choose another root"
                )
            finder = self._finder = Finder(root, self._source, self._codes)
        elif finder.root != root:
            raise InvalidConfig(
                f"invalid configuration: it is installed with the root {finder.root}: uninstall it first"
            )
        if not sys.meta_path or sys.meta_path[0] is not finder:
            self._forget_finder(finder)
            sys.meta_path.insert(0, finder)
            sys.path_hooks.insert(0, finder.path_hook)
        return finder

    def uninstall(self) -> None:
        """Has ``import`` find them no longer. What was imported stays."""
        finder, self._finder = self._finder, None
        if finder is not None:
            self._forget_finder(finder)

    def preload(
        self, names: Iterable[str] | None = None, *, progress: Progress | None = None
    ) -> PreloadReport:
        """Compiles all modules, or these and what they import, and executes nothing: forked children
        inherit the code objects.

        A module that can't be compiled is reported, not raised. ``progress`` is called with how many
        modules are done, and how many are known so far.
        """
        finder = self._finder or Finder(_DEFAULT_ROOT, self._source, self._codes)
        return preload(self._take_snapshot(), finder, names, progress)

    def execution(self) -> AbstractContextManager[Snapshot]:
        """One consistent workspace for one run: what is saved meanwhile is for the next one.

        At its beginning, all modules of an older workspace are evicted from ``sys.modules``, or none.
        While it lasts, imports ask no server. Executions in several threads share a workspace, or
        wait for each other; ``Busy`` if that takes too long.
        """
        finder = lambda: self._finder  # noqa: E731
        return Execution(self._executions, self._take_snapshot, finder, self._explain)

    def snapshot(self) -> Snapshot:
        """All modules as they are now."""
        if self._is_closed:
            raise CacheError("this cache is closed: take the snapshot before you close it")
        return self._take_snapshot()

    def get(self, path: str) -> CachedModule | None:
        """The module at a path, or None if there is none."""
        return self._near.get(path)

    def resolve(self, name: str) -> Resolution | None:
        """What a name stands for, such as ``shared.halopsa``, or None."""
        return self._near.resolve(name)

    def explain_name(self, name: str) -> Diagnosis:
        """Why a name is not found: asks Redis."""
        return self._near.explain_name(name)

    def stats(self) -> dict[str, Any]:
        """Counters: of the near cache, and of the code objects."""
        near = None if self._is_closed else self._near.stats()
        return {"near": near, "code": self._codes.stats()}

    def is_live(self) -> bool:
        """Whether Redis is followed now. While it is not, reads ask Redis."""
        return self._near.is_live()

    def close(self) -> None:
        """Ends the thread that follows Redis, and its connection: a process that forks has no other
        thread then. Imports and executions go on with the last snapshot."""
        self._is_closed = True
        self._near.close()

    def __enter__(self) -> Modules:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.uninstall()
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "live" if self.is_live() else "not live"
        return f"<Modules: {state}>"

    def _source(self) -> Source:
        """What an import asks."""
        snapshot = self._executions.snapshot
        if snapshot is not None:
            return snapshot
        self._executions.imported_outside = True
        if self._is_closed and self._latest is not None:
            return self._latest
        return self._near

    def _take_snapshot(self) -> Snapshot:
        """The workspace of now: the same object if it is the same workspace."""
        latest = self._latest
        if self._is_closed and latest is not None:
            return latest
        try:
            snapshot = self._near.snapshot()
        except Unavailable:
            age = time.monotonic() - self._taken
            if latest is None or self._stale_if_error is None or age > self._stale_if_error:
                raise
            return latest
        self._taken = time.monotonic()
        if latest is not None:
            changed = snapshot.changes_since(latest)
            if not changed:
                return latest
            root = self._finder.root if self._finder is not None else _DEFAULT_ROOT
            self._codes.drop(root + path for path in changed)
        self._latest = snapshot
        return snapshot

    def _explain(self, name: str) -> Diagnosis:
        if self._is_closed and self._latest is not None:
            return self._latest.explain_name(name)
        return self._near.explain_name(name)

    @staticmethod
    def _forget_finder(finder: Finder) -> None:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        if finder.path_hook in sys.path_hooks:
            sys.path_hooks.remove(finder.path_hook)
        for entry in list(sys.path_importer_cache):
            if (entry + "/").startswith(finder.root):
                sys.path_importer_cache.pop(entry, None)
