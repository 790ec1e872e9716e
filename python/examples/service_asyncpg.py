"""A service with asyncpg."""

from __future__ import annotations

from typing import Any

import asyncpg

from bifrost_module_cache import RefreshReport, aio

ROWS = (
    "SELECT path, content, content_hash FROM workspace_files "
    "WHERE path = ANY($1) AND entity_type = 'module' AND NOT is_deleted AND content IS NOT NULL"
)
SAVE = (
    "INSERT INTO workspace_files (path, content, entity_type) VALUES ($1, $2, 'module') "
    "ON CONFLICT (path) DO UPDATE SET content = excluded.content, content_hash = NULL, "
    "is_deleted = FALSE"
)


class Workspace:
    """The modules of a platform."""

    def __init__(self, pool: Any, writer: aio.ModuleWriter) -> None:
        self.pool = pool
        self.writer = writer

    @classmethod
    async def connect(cls, database: str, writer: aio.ModuleWriter) -> Workspace:
        """With a pool of connections of its own."""
        return cls(await asyncpg.create_pool(database, min_size=1), writer)

    async def rows(self, paths: list[str]) -> list[Any]:
        """The rows as they are now; records are mappings."""
        records: list[Any] = await self.pool.fetch(ROWS, paths)
        return records

    async def save(self, path: str, content: str) -> RefreshReport:
        """Saves a module."""
        await self.pool.execute(SAVE, path, content)
        return await self.writer.refresh([path], self.rows)

    async def delete(self, path: str) -> RefreshReport:
        """Deletes a module."""
        statement = "UPDATE workspace_files SET is_deleted = TRUE WHERE path = $1"
        await self.pool.execute(statement, path)
        return await self.writer.refresh([path], self.rows)

    async def move(self, old: str, new: str) -> RefreshReport:
        """Moves a module."""
        await self.pool.execute("UPDATE workspace_files SET path = $2 WHERE path = $1", old, new)
        return await self.writer.refresh([old, new], self.rows)
