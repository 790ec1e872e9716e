"""Executions: each sees one consistent workspace."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING
from weakref import WeakSet

from .errors import Busy
from .explanation import add_notes
from .loader import Loader

if TYPE_CHECKING:
    from ._native import Diagnosis, Snapshot
    from .finder import Finder

__all__ = ["Execution", "Executions"]


class Executions:
    """The executions of a process. Those that run at the same time, in several threads, share one
    snapshot; one that would need a newer one waits until the others have ended."""

    def __init__(self, patience: float) -> None:
        self.snapshot: Snapshot | None = None
        """Of the executions that run now."""
        self.imported_outside = False
        """Whether modules may have been imported while none ran."""
        self._patience = patience
        self._changed = threading.Condition()
        # By thread: how many executions it is in, one inside the other.
        self._running: dict[int, int] = {}
        self._begun = 0
        # What the modules in sys.modules were imported from.
        self._imported_from: Snapshot | None = None
        _all.add(self)

    def begin(self, take_snapshot: Callable[[], Snapshot], finder: Finder | None) -> Snapshot:
        """Waits until the workspace of now can be imported. Returns it."""
        thread = threading.get_ident()
        end = time.monotonic() + self._patience
        while True:
            with self._changed:
                if thread in self._running and self.snapshot is not None:
                    self._running[thread] += 1
                    return self.snapshot
                begun = self._begun
            snapshot = take_snapshot()
            with self._changed:
                if self._begun != begun:
                    continue  # Another one has begun, perhaps with a newer one.
                if not self._running:
                    self._switch_to(snapshot, finder)
                elif snapshot is not self.snapshot:
                    left = end - time.monotonic()
                    if not self._changed.wait_for(lambda: not self._running, max(left, 0)):
                        raise Busy(
                            "executions of an older workspace still run in this process: try again "
                            "when they have ended, or fork for each execution",
                            is_transient=True,
                        )
                    continue
                self._begun += 1
                self._running[thread] = 1
                return snapshot

    def end(self, thread: int) -> None:
        """Ends the innermost execution of a thread."""
        with self._changed:
            self._running[thread] -= 1
            if not self._running[thread]:
                del self._running[thread]
            if not self._running:
                self.snapshot = None
                self._changed.notify_all()

    def _switch_to(self, snapshot: Snapshot, finder: Finder | None) -> None:
        """Evicts all of our modules, or none: one by one, versions would mix."""
        is_new = snapshot is not self._imported_from
        is_first = self._imported_from is None and not self.imported_outside
        if finder is not None and not is_first:
            if is_new and self._imported_from is not None:
                evict(finder)
            elif self.imported_outside and not all_are_of(snapshot, finder):
                evict(finder)
        self.imported_outside = False
        self._imported_from = self.snapshot = snapshot

    def _renew_after_fork(self) -> None:
        """Of the threads there is one left, and a lock may be held by another one."""
        self._changed = threading.Condition()
        thread = threading.get_ident()
        self._running = {key: depth for key, depth in self._running.items() if key == thread}
        if not self._running:
            self.snapshot = None


class Execution(AbstractContextManager["Snapshot", None]):
    """One execution. An ``ImportError`` that leaves it is given a note that says why a module of the
    workspace was not found."""

    def __init__(
        self,
        executions: Executions,
        take_snapshot: Callable[[], Snapshot],
        finder: Callable[[], Finder | None],
        explain: Callable[[str], Diagnosis],
    ) -> None:
        self._executions = executions
        self._take_snapshot = take_snapshot
        self._finder = finder
        self._explain = explain
        self._thread: list[int] = []
        self._snapshot: Snapshot | None = None

    def __enter__(self) -> Snapshot:
        self._snapshot = self._executions.begin(self._take_snapshot, self._finder())
        self._thread.append(threading.get_ident())
        return self._snapshot

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._executions.end(self._thread.pop())
        if error is not None and self._snapshot is not None:
            add_notes(error, self._snapshot, self._explain)


def ours(finder: Finder) -> list[str]:
    """The names of all modules that were found here. What runs as ``__main__`` stays."""
    found = [name for name, module in list(sys.modules.items()) if finder.is_ours(module)]
    return [name for name in found if name != "__main__"]


def evict(finder: Finder) -> None:
    """Has Python forget all of our modules."""
    for name in ours(finder):
        sys.modules.pop(name, None)


def all_are_of(snapshot: Snapshot, finder: Finder) -> bool:
    """Whether all of our modules that are imported are those of a snapshot."""
    for name in ours(finder):
        loader = getattr(getattr(sys.modules.get(name), "__spec__", None), "loader", None)
        found = snapshot.find(name)
        if found is None:
            return False
        _, path, sha256, _ = found
        if isinstance(loader, Loader):
            if (loader.relative, loader.sha256) != (path, sha256):
                return False
        elif sha256 is not None:
            return False
    return True


_all: WeakSet[Executions] = WeakSet()


def _renew_after_fork() -> None:
    for executions in _all:
        executions._renew_after_fork()


os.register_at_fork(after_in_child=_renew_after_fork)
