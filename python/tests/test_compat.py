"""The drop-ins for the specification's Python files."""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from sqlalchemy import Boolean, String, Text, insert, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.pool import NullPool
from support.servers import Postgres, Redis

from bifrost_module_cache import CachedModule, CacheError, InvalidPath, ModuleWriter, Unavailable
from bifrost_module_cache.compat import module_cache, module_cache_sync, shared


class Base(DeclarativeBase):
    pass


class WorkspaceFile(Base):
    """As the platform's model has it, as far as modules need it."""

    __tablename__ = "workspace_files"
    path: Mapped[str] = mapped_column(String(1000), primary_key=True)
    content: Mapped[str | None] = mapped_column(Text)
    content_hash: Mapped[str | None] = mapped_column(String(64))
    entity_type: Mapped[str | None] = mapped_column(String(20))
    is_deleted: Mapped[bool] = mapped_column(Boolean, default=False)


@pytest.fixture
def platform(
    redis_server: Redis, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> Iterator[async_sessionmaker[AsyncSession]]:
    """The modules that the specification's warm-up imports."""
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setattr(shared, "_writer", None)
    url = postgres.url.replace("postgresql://", "postgresql+asyncpg://")
    sessions = async_sessionmaker(create_async_engine(url, poolclass=NullPool))
    for name, content in {
        "src": {},
        "src.core": {},
        "src.core.database": {"get_async_session": sessions},
        "src.models": {},
        "src.models.orm": {},
        "src.models.orm.workspace": {"WorkspaceFile": WorkspaceFile},
    }.items():
        module = types.ModuleType(name)
        vars(module).update(content, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    yield sessions


def row(path: str, **changes: Any) -> dict[str, Any]:
    columns: dict[str, Any] = {"path": path, "content": path, "content_hash": None}
    return columns | {"entity_type": "module", "is_deleted": False} | changes


def test_the_async_file(redis_server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setattr(shared, "_writer", None)

    async def main() -> None:
        await module_cache.set_module("a.py", "x = 1\n", "abc")
        module = await module_cache.get_module("a.py")
        assert module == {"content": "x = 1\n", "path": "a.py", "hash": "abc"}
        assert await module_cache.get_all_module_paths() == {"a.py"}
        await module_cache.invalidate_module("a.py")
        assert await module_cache.get_module("a.py") is None
        with pytest.raises(InvalidPath):
            await module_cache.set_module("index", "", "")

    asyncio.run(main())


def test_the_sync_file(redis_server: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setattr(shared, "_writer", None)
    # What the specification's Python writes.
    client: Any = redis.Redis(port=redis_server.port)
    key = module_cache.MODULE_KEY_PREFIX + "a.py"
    client.set(key, '{"content": "x = \'\\u00e4\'", "path": "a.py", "hash": ""}')
    client.sadd(module_cache_sync.MODULE_INDEX_KEY, "a.py")
    expected = {"content": "x = 'ä'", "path": "a.py", "hash": ""}
    assert module_cache_sync.get_module_sync("a.py") == expected
    assert module_cache_sync.get_module_sync("b.py") is None
    assert module_cache_sync.get_module_index_sync() == {"a.py"}


def test_an_outage_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(shared, "_writer", None)
    with pytest.raises(Unavailable):
        module_cache_sync.get_module_sync("a.py")


def test_the_warm_up(platform: async_sessionmaker[AsyncSession], redis_server: Redis) -> None:
    ModuleWriter().publish([CachedModule("old", "gone.py"), CachedModule("old", "a.py")])
    rows = [row("a.py"), row("b.py", content_hash="h"), row("deleted.py", is_deleted=True)]
    rows += [row("form.json", entity_type="form"), row("empty.py", content=None)]

    async def main() -> None:
        async with platform() as session:
            await session.execute(insert(WorkspaceFile), rows)
            await session.commit()
        assert await module_cache.warm_cache_from_db() == 2
        assert await module_cache.get_all_module_paths() == {"a.py", "b.py"}
        module = await module_cache.get_module("b.py")
        assert module == {"content": "b.py", "path": "b.py", "hash": "h"}
        async with platform() as session:
            await session.execute(update(WorkspaceFile).values(is_deleted=True))
            await session.commit()
        with pytest.raises(CacheError, match="would be removed"):
            await module_cache.warm_cache_from_db()
        assert await module_cache.get_all_module_paths() == {"a.py", "b.py"}

    asyncio.run(main())
