"""The same reader and writer for services on asyncio, under the same names.

Each call runs in a thread of the loop's executor. Nothing is started before, and nothing has to be
closed. A call that is cancelled runs to its end: of a write, only Redis knows whether it was applied.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import TimeoutError as NotYet
from typing import Any

from . import _native
from ._native import (
    CachedModule,
    ClearReport,
    Config,
    Diagnosis,
    PublishReport,
    RefreshReport,
    Resolution,
    Status,
)

__all__ = ["ModuleReader", "ModuleWriter"]

# How often a thread that waits for `fetch` looks whether its loop is still there.
_LOOK = 1.0


class ModuleReader:
    """Reads modules, and has no method that changes Redis. See ``bifrost_module_cache.ModuleReader``."""

    def __init__(self, url: str | None = None, *, config: Config | None = None) -> None:
        self._blocking = _native.ModuleReader(url, config=config)

    async def get(self, path: str) -> CachedModule | None:
        """The module at a path, or None if Redis says that there is none."""
        return await asyncio.to_thread(self._blocking.get, path)

    async def get_many(self, paths: Iterable[str]) -> list[CachedModule | None]:
        """The modules at these paths, in their order, in one round trip; None where there is none."""
        return await asyncio.to_thread(self._blocking.get_many, paths)

    async def paths(self) -> set[str]:
        """All cached paths."""
        return await asyncio.to_thread(self._blocking.paths)

    async def resolve(self, name: str) -> Resolution | None:
        """What a name stands for, such as ``shared.halopsa``; None if there is nothing of that name."""
        return await asyncio.to_thread(self._blocking.resolve, name)

    async def resolve_many(self, names: Iterable[str]) -> list[Resolution | None]:
        """What these names stand for, in their order, in one round trip."""
        return await asyncio.to_thread(self._blocking.resolve_many, names)

    async def status(self) -> Status:
        """Whether the cache is known to be complete."""
        return await asyncio.to_thread(self._blocking.status)

    async def explain(self, path: str) -> Diagnosis:
        """Why the module at a path is absent."""
        return await asyncio.to_thread(self._blocking.explain, path)

    async def explain_name(self, name: str) -> Diagnosis:
        """Why a name is not found."""
        return await asyncio.to_thread(self._blocking.explain_name, name)

    def stats(self) -> dict[str, Any]:
        """What has been done so far, as counters. No IO."""
        return self._blocking.stats()

    def __repr__(self) -> str:
        return "<aio.ModuleReader>"


class ModuleWriter:
    """Writes, removes and moves modules. See ``bifrost_module_cache.ModuleWriter``."""

    def __init__(self, url: str | None = None, *, config: Config | None = None) -> None:
        self._blocking = _native.ModuleWriter(url, config=config)

    async def set(self, module: CachedModule) -> None:
        """Caches a module. With a database, call ``refresh`` instead."""
        await asyncio.to_thread(self._blocking.set, module)

    async def invalidate(self, path: str) -> bool:
        """Removes a module; returns whether there was one."""
        return await asyncio.to_thread(self._blocking.invalidate, path)

    async def rename(self, old_path: str, module: CachedModule) -> None:
        """Moves a module, so that no reader ever sees neither of the two."""
        await asyncio.to_thread(self._blocking.rename, old_path, module)

    async def publish(
        self, modules: Iterable[CachedModule], *, remove: Iterable[str] | None = None
    ) -> PublishReport:
        """Writes modules and removes paths, which readers see all at once, up to 4 MiB."""
        return await asyncio.to_thread(self._blocking.publish, modules, remove=remove)

    async def publish_exact(
        self,
        modules: Iterable[CachedModule],
        *,
        allow_empty: bool = False,
        max_prune: float | None = None,
    ) -> PublishReport:
        """Makes the cache hold exactly these modules, and marks it as complete."""
        return await asyncio.to_thread(
            self._blocking.publish_exact, modules, allow_empty=allow_empty, max_prune=max_prune
        )

    async def clear(self) -> ClearReport:
        """Removes all modules, the index, and the mark of a complete cache."""
        return await asyncio.to_thread(self._blocking.clear)

    async def refresh(
        self,
        paths: Iterable[str],
        fetch: Callable[[list[str]], Iterable[Any] | Awaitable[Iterable[Any]]],
    ) -> RefreshReport:
        """Brings paths to what ``fetch`` says now: await it after your commit.

        ``fetch(paths)`` returns the rows of these paths as they are when it is called, and may be
        called again. An async one runs on this loop, a plain one in a thread, where it may block. What
        it raises comes back as it was.
        """
        loop = asyncio.get_running_loop()
        on_loop = inspect.iscoroutinefunction(fetch)

        async def fetch_on_loop(paths: list[str]) -> Iterable[Any]:
            answer = fetch(paths)
            return await answer if inspect.isawaitable(answer) else answer

        def fetch_in_thread(paths: list[str]) -> Iterable[Any]:
            if on_loop:
                return _wait(loop, fetch_on_loop(paths))
            answer = fetch(paths)
            # A partial of an async function, an object that is called: it says so only now.
            return _wait(loop, _awaited(answer)) if inspect.isawaitable(answer) else answer

        return await asyncio.to_thread(self._blocking.refresh, paths, fetch_in_thread)

    @property
    def reader(self) -> ModuleReader:
        """A reader over the same connections."""
        reader = ModuleReader.__new__(ModuleReader)
        reader._blocking = self._blocking.reader
        return reader

    def stats(self) -> dict[str, Any]:
        """What has been done so far, as counters. No IO."""
        return self._blocking.stats()

    def __repr__(self) -> str:
        return "<aio.ModuleWriter>"


async def _awaited(answer: Awaitable[Iterable[Any]]) -> Iterable[Any]:
    return await answer


def _wait(
    loop: asyncio.AbstractEventLoop, call: Coroutine[Any, Any, Iterable[Any]]
) -> Iterable[Any]:
    """Runs a coroutine on a loop from another thread; a loop that has ended ends the wait."""
    try:
        future = asyncio.run_coroutine_threadsafe(call, loop)
    except RuntimeError:
        call.close()
        raise
    while True:
        try:
            return future.result(_LOOK)
        except NotYet:
            if future.done():
                raise  # It is fetch's own.
            if loop.is_closed():
                future.cancel()
                raise RuntimeError("the event loop ended before fetch had answered") from None
