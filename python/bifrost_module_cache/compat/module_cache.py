"""The specification's ``module_cache``, for services::

    from bifrost_module_cache.compat.module_cache import get_module, set_module

Stricter than it in this: an outage, a time-out or a corrupt entry is a ``CacheError``, never None; a
path that no module may have is an ``InvalidPath``; ``set_module`` and ``invalidate_module`` change module and
index at once, so that no reader sees one without the other; and ``warm_cache_from_db`` removes
modules that have no row, never writes an older module over a newer one, and refuses to remove more
than half of a cache.

A service that saves to a database calls ``aio.ModuleWriter.refresh`` instead of ``set_module``: of two
services that save the same path, the one that committed first may write last.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable
from typing import Any

from .. import _native, aio
from ..errors import CacheError
from .shared import MODULE_INDEX_KEY, MODULE_KEY_PREFIX, CachedModule, as_dict, reader, writer

__all__ = [
    "MODULE_INDEX_KEY",
    "MODULE_KEY_PREFIX",
    "CachedModule",
    "get_all_module_paths",
    "get_module",
    "invalidate_module",
    "set_module",
    "warm_cache_from_db",
]

logger = logging.getLogger(__name__)

# A cache smaller than this may be emptied; of a larger one, half may go.
_SMALL = 20


async def get_module(path: str) -> CachedModule | None:
    """Fetch a single module from the cache; None if Redis says that there is none."""
    return as_dict(await asyncio.to_thread(reader().get, path))


async def set_module(path: str, content: str, content_hash: str) -> None:
    """Cache a module and add it to the index, both at once. The hash is kept to the letter."""
    module = _native.CachedModule(content, path, content_hash)
    await asyncio.to_thread(writer().set, module)
    logger.debug("Cached module: %s", path)


async def invalidate_module(path: str) -> None:
    """Remove a module from cache and index, both at once."""
    await asyncio.to_thread(writer().invalidate, path)
    logger.debug("Invalidated module cache: %s", path)


async def get_all_module_paths() -> set[str]:
    """All cached module paths."""
    return await asyncio.to_thread(reader().paths)


async def warm_cache_from_db(
    get_async_session: Callable[[], Any] | None = None, workspace_file: Any = None
) -> int:
    """Bring the whole cache to what the database says. Returns how many modules the database has.

    As the specification's function it takes the session from the platform's
    ``src.core.database.get_async_session`` and the model from ``src.models.orm.workspace.WorkspaceFile``,
    unless it is given others. It does not mark the cache as complete: where that is wanted, the tool's
    ``bifrost-modules warm`` is the init container.
    """
    from sqlalchemy import select

    if get_async_session is None:
        get_async_session = importlib.import_module("src.core.database").get_async_session
    if workspace_file is None:
        workspace_file = importlib.import_module("src.models.orm.workspace").WorkspaceFile
    are_modules = (
        workspace_file.entity_type == "module",
        workspace_file.is_deleted == False,  # noqa: E712
        workspace_file.content.is_not(None),
    )

    async def rows(paths: list[str] | None) -> list[Any]:
        """Of these paths, with their contents; or of all, the paths alone."""
        if paths is None:
            statement = select(workspace_file.path).where(*are_modules)
        else:
            columns = (workspace_file.path, workspace_file.content, workspace_file.content_hash)
            statement = select(*columns).where(*are_modules, workspace_file.path.in_(paths))
        async with get_async_session() as session:
            return list((await session.execute(statement)).all())

    listed = {row.path for row in await rows(None)}
    cached = await get_all_module_paths()
    gone = cached - listed
    if gone and (not listed or (len(cached) > _SMALL and 2 * len(gone) > len(cached))):
        raise CacheError(
            f"{len(gone)} of the {len(cached)} cached modules would be removed, because the database does "
            "not have them: if it is the right one, run bifrost-modules warm --max-prune"
        )
    service = aio.ModuleWriter.__new__(aio.ModuleWriter)
    service._blocking = writer()
    await service.refresh(listed | cached, rows)
    logger.info("Warmed module cache with %d modules", len(listed))
    return len(listed)
