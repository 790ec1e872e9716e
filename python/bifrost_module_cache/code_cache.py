"""Code objects, compiled once in the process that forks and inherited by its children."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from types import CodeType
from weakref import WeakSet

__all__ = ["CodeCache"]


class CodeCache:
    """Code objects by file name and by the SHA-256 of the source that they were compiled from.

    The hash is computed by the reader of the source: the one that is stored beside it says whatever
    its writer likes. What was compiled first goes when the bytes are used up.

    A hit touches nothing but the code object: a forked child copies each page of memory that it writes
    to, and counting a reference is writing.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._codes: dict[str, CodeType] = {}
        # By file name: its key among the codes, and what it takes.
        self._entries: dict[str, tuple[str, int]] = {}
        self._bytes = 0
        self._hits = 0
        self._misses = 0
        self._evictions = 0
        self._lock = threading.Lock()
        _all.add(self)

    def get(self, filename: str, sha256: str) -> CodeType | None:
        """The code object, if it is of this very source."""
        code = self._codes.get(sha256 + filename)
        if code is None:
            self._misses += 1
        else:
            self._hits += 1
        return code

    def put(self, filename: str, sha256: str, code: CodeType) -> None:
        """Keeps a code object in place of the one of an older source, if there is room for it."""
        size = size_of(code)
        key = sha256 + filename
        with self._lock:
            self._remove(filename)
            if size > self.max_bytes:
                return
            self._codes[key] = code
            self._entries[filename] = (key, size)
            self._bytes += size
            while self._bytes > self.max_bytes:
                self._remove(next(iter(self._entries)))
                self._evictions += 1

    def drop(self, filenames: Iterable[str]) -> None:
        """Gives up the code objects of modules that were changed or removed."""
        with self._lock:
            for filename in filenames:
                self._remove(filename)

    def clear(self) -> None:
        """Gives up all of them."""
        with self._lock:
            self._codes.clear()
            self._entries.clear()
            self._bytes = 0

    def filenames(self) -> list[str]:
        """Whose code objects there are."""
        return list(self._entries)

    def stats(self) -> dict[str, int]:
        """How many there are, what they take, and how often one was found."""
        with self._lock:
            return {
                "codes": len(self._codes),
                "bytes": self._bytes,
                "hits": self._hits,
                "misses": self._misses,
                "evictions": self._evictions,
            }

    def _remove(self, filename: str) -> None:
        entry = self._entries.pop(filename, None)
        if entry is not None:
            key, size = entry
            self._codes.pop(key, None)
            self._bytes -= size

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()


def size_of(code: CodeType) -> int:
    """What a code object takes, with those of its functions and classes."""
    size = sys.getsizeof
    total = 0
    waiting = [code]
    while waiting:
        code = waiting.pop()
        total += size(code) + size(code.co_consts) + size(code.co_names)
        total += size(code.co_linetable) + size(code.co_exceptiontable)
        total += size(code.co_varnames) + size(code.co_qualname)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                waiting.append(constant)
            else:
                total += size(constant)
    return total


_all: WeakSet[CodeCache] = WeakSet()


def _renew_locks() -> None:
    """A thread that the child does not have may have held one."""
    for cache in _all:
        cache._renew_lock()


os.register_at_fork(after_in_child=_renew_locks)
