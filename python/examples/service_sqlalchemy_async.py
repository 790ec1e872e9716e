"""A service on asyncio with SQLAlchemy: save, delete and move modules, and tell the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bifrost_module_cache import RefreshReport, aio

ROWS = text(
    "SELECT path, content, content_hash FROM workspace_files "
    "WHERE path = ANY(:paths) AND entity_type = 'module' AND NOT is_deleted AND content IS NOT NULL"
)
SAVE = text(
    "INSERT INTO workspace_files (path, content, entity_type) VALUES (:path, :content, 'module') "
    "ON CONFLICT (path) DO UPDATE SET content = excluded.content, content_hash = NULL, "
    "is_deleted = FALSE"
)
DELETE = text("UPDATE workspace_files SET is_deleted = TRUE WHERE path = :path")
MOVE = text("UPDATE workspace_files SET path = :new WHERE path = :old")


class Workspace:
    """The modules of a platform."""

    def __init__(self, engine: AsyncEngine, writer: aio.ModuleWriter) -> None:
        self.engine = engine
        self.writer = writer

    async def rows(self, paths: list[str]) -> Sequence[Any]:
        """The rows as they are now, read outside of any transaction that is not committed."""
        async with self.engine.connect() as connection:
            return (await connection.execute(ROWS, {"paths": paths})).all()

    async def save(self, path: str, content: str) -> RefreshReport:
        """Saves a module; workers that begin an execution from now on import it."""
        async with self.engine.begin() as connection:
            await connection.execute(SAVE, {"path": path, "content": content})
        # It is committed. What is written to the cache is what the database says now.
        return await self.writer.refresh([path], self.rows)

    async def delete(self, path: str) -> RefreshReport:
        """Deletes a module."""
        async with self.engine.begin() as connection:
            await connection.execute(DELETE, {"path": path})
        return await self.writer.refresh([path], self.rows)

    async def move(self, old: str, new: str) -> RefreshReport:
        """Moves a module: both paths are refreshed."""
        async with self.engine.begin() as connection:
            await connection.execute(MOVE, {"old": old, "new": new})
        return await self.writer.refresh([old, new], self.rows)
