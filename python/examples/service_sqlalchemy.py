"""A service with SQLAlchemy, without asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service_sqlalchemy_async import DELETE, MOVE, ROWS, SAVE
from sqlalchemy import Engine

from bifrost_module_cache import ModuleWriter, RefreshReport


class Workspace:
    """The modules of a platform."""

    def __init__(self, engine: Engine, writer: ModuleWriter) -> None:
        self.engine = engine
        self.writer = writer

    def rows(self, paths: list[str]) -> Sequence[Any]:
        """The rows as they are now."""
        with self.engine.connect() as connection:
            return connection.execute(ROWS, {"paths": paths}).all()

    def save(self, path: str, content: str) -> RefreshReport:
        """Saves a module."""
        with self.engine.begin() as connection:
            connection.execute(SAVE, {"path": path, "content": content})
        return self.writer.refresh([path], self.rows)

    def delete(self, path: str) -> RefreshReport:
        """Deletes a module."""
        with self.engine.begin() as connection:
            connection.execute(DELETE, {"path": path})
        return self.writer.refresh([path], self.rows)

    def move(self, old: str, new: str) -> RefreshReport:
        """Moves a module."""
        with self.engine.begin() as connection:
            connection.execute(MOVE, {"old": old, "new": new})
        return self.writer.refresh([old, new], self.rows)
