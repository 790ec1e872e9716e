"""The examples for services, against a real Postgres."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool
from support.servers import Postgres, Redis

from bifrost_module_cache import ModuleReader, ModuleWriter, aio

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield


async def workspace(kind: str, postgres: Postgres, redis: Redis) -> Any:
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    if kind == "sqlalchemy_async":
        import service_sqlalchemy_async as example

        asynchronous = postgres.url.replace("postgresql:", "postgresql+asyncpg:")
        engine = create_async_engine(asynchronous, poolclass=NullPool)
        return example.Workspace(engine, aio.ModuleWriter(redis.url))
    if kind == "sqlalchemy":
        import service_sqlalchemy as sync_example

        engine_ = create_engine(url, poolclass=NullPool)
        return sync_example.Workspace(engine_, ModuleWriter(redis.url))
    if kind == "asyncpg":
        import service_asyncpg

        return await service_asyncpg.Workspace.connect(postgres.url, aio.ModuleWriter(redis.url))
    import service_psycopg

    return service_psycopg.Workspace(postgres.url, ModuleWriter(redis.url))


@pytest.mark.parametrize("kind", ["sqlalchemy_async", "sqlalchemy", "asyncpg", "psycopg"])
def test_a_service_saves_deletes_and_moves(
    kind: str, postgres: Postgres, redis_server: Redis
) -> None:
    reader = ModuleReader(redis_server.url)

    async def main() -> None:
        service = await workspace(kind, postgres, redis_server)

        async def call(method: Any, *arguments: Any) -> Any:
            answer = method(*arguments)
            return await answer if inspect.isawaitable(answer) else answer

        assert (await call(service.save, "shared/a.py", "x = 'ä'\n")).written == 1
        module = reader.get("shared/a.py")
        assert module is not None and module.content == "x = 'ä'\n"
        await call(service.save, "shared/a.py", "x = 2\n")
        report = await call(service.move, "shared/a.py", "shared/b.py")
        assert (report.written, report.removed) == (1, 1)
        assert reader.paths() == {"shared/b.py"}
        assert (await call(service.delete, "shared/b.py")).removed == 1
        assert reader.paths() == set()
        # Many at once: the order in which they get here does not matter.
        if inspect.iscoroutinefunction(service.save):
            saves = [service.save("shared/c.py", f"x = {n}\n") for n in range(20)]
            await asyncio.gather(*saves)
            rows = await call(service.rows, ["shared/c.py"])
            module = reader.get("shared/c.py")
            assert module is not None and module.content == rows[0][1]
        if kind == "asyncpg":
            await service.pool.close()

    asyncio.run(main())


def test_fastapi(
    postgres: Postgres, redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres.url.replace("postgresql:", "postgresql+asyncpg:"))
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    import service_fastapi

    reader = ModuleReader(redis_server.url)
    with TestClient(service_fastapi.application()) as client:
        answer = client.put("/modules/shared/a.py", json={"content": "x = 1\n"})
        assert (answer.status_code, answer.json()) == (200, {"written": 1})
        assert reader.paths() == {"shared/a.py"}
        answer = client.post("/modules/shared/a.py", json={"to": "shared/b.py"})
        assert answer.json() == {"written": 1, "removed": 1}
        assert client.delete("/modules/shared/b.py").json() == {"removed": 1}
        assert reader.paths() == set()
        answer = client.put("/modules/index", json={"content": ""})
        assert answer.status_code == 422 and "overwrite the index" in answer.json()["detail"]
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with TestClient(service_fastapi.application()) as client:
        answer = client.put("/modules/shared/a.py", json={"content": ""})
        assert answer.status_code == 503 and "unavailable" in answer.json()["detail"]


