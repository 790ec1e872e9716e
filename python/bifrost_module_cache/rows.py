"""From a database's rows to modules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ._native import CachedModule

__all__ = ["module_of", "modules_of"]


def modules_of(rows: Iterable[Any]) -> list[CachedModule]:
    """The modules of rows; a row that is no module counts as one that is not there."""
    if isinstance(rows, (str, bytes)) or not hasattr(rows, "__iter__"):
        kind = type(rows).__name__
        hint = ": await it, or call aio.ModuleWriter.refresh" if hasattr(rows, "__await__") else ""
        raise TypeError(f"fetch must return an iterable of rows, not {kind}{hint}")
    modules = (module_of(row) for row in rows)
    return [module for module in modules if module is not None]


def module_of(row: Any) -> CachedModule | None:
    """The module of a row, which is a mapping with ``path``, ``content`` and ``content_hash``.

    SQLAlchemy's rows and mappings, asyncpg's records, psycopg's ``dict_row`` and plain dicts will
    do, and so does a ``CachedModule``. None for a row that says of itself that it is no module: no
    content, deleted, or another ``entity_type``. A hash that is NULL is kept as ``""``; where there is
    no column for it, it is computed.
    """
    if isinstance(row, CachedModule):
        return row
    # SQLAlchemy's Row is a tuple, and has its mapping beside it.
    row = getattr(row, "_mapping", row)
    try:
        keys = set(row.keys())
        path, content = row["path"], row["content"]
    except (AttributeError, KeyError, TypeError):
        raise TypeError(
            "a row must be a mapping with path and content, or a CachedModule, "
            f"not {type(row).__name__}: ask the database's client for rows as mappings"
        ) from None
    if content is None or ("is_deleted" in keys and row["is_deleted"]):
        return None
    if "entity_type" in keys and row["entity_type"] != "module":
        return None
    for column in ("content_hash", "hash"):
        if column in keys:
            return CachedModule(content, path, row[column] or "")
    return CachedModule(content, path)
