"""A service with psycopg."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg.rows import dict_row

from bifrost_module_cache import ModuleWriter, RefreshReport

ROWS = (
    "SELECT path, content, content_hash FROM workspace_files "
    "WHERE path = ANY(%s) AND entity_type = 'module' AND NOT is_deleted AND content IS NOT NULL"
)
SAVE = (
    "INSERT INTO workspace_files (path, content, entity_type) VALUES (%s, %s, 'module') "
    "ON CONFLICT (path) DO UPDATE SET content = excluded.content, content_hash = NULL, "
    "is_deleted = FALSE"
)


class Workspace:
    """The modules of a platform."""

    def __init__(self, database: str, writer: ModuleWriter) -> None:
        self.database = database
        self.writer = writer

    def rows(self, paths: list[str]) -> list[dict[str, Any]]:
        """The rows as they are now, as dicts."""
        with psycopg.connect(self.database, row_factory=dict_row) as connection:
            return connection.execute(ROWS, (paths,)).fetchall()

    def save(self, path: str, content: str) -> RefreshReport:
        """Saves a module."""
        with psycopg.connect(self.database) as connection:  # commits at its end
            connection.execute(SAVE, (path, content))
        return self.writer.refresh([path], self.rows)

    def delete(self, path: str) -> RefreshReport:
        """Deletes a module."""
        with psycopg.connect(self.database) as connection:
            connection.execute("UPDATE workspace_files SET is_deleted = TRUE WHERE path = %s", (path,))
        return self.writer.refresh([path], self.rows)

    def move(self, old: str, new: str) -> RefreshReport:
        """Moves a module."""
        with psycopg.connect(self.database) as connection:
            connection.execute("UPDATE workspace_files SET path = %s WHERE path = %s", (new, old))
        return self.writer.refresh([old, new], self.rows)
