"""What tests ask for: servers of their own."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.servers import Postgres, Proxy, Redis  # noqa: E402


@pytest.fixture(scope="session")
def _shared_redis() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.close()


@pytest.fixture
def redis_server(_shared_redis: Redis) -> Redis:
    """An empty Redis, which the test must leave running."""
    _shared_redis.client().flushall()
    return _shared_redis


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis that the test may stop, freeze or give users."""
    server = Redis()
    yield server
    server.close()


@pytest.fixture
def proxy(redis_server: Redis) -> Iterator[Proxy]:
    """Stands before the Redis and counts."""
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="session")
def _shared_postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def postgres(_shared_postgres: Postgres) -> Postgres:
    """A Postgres with an empty table of modules."""
    _shared_postgres.empty_table()
    return _shared_postgres


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long tests run only when they are asked for: `make soak`."""
    if config.getoption("-m"):
        return
    skip = pytest.mark.skip(reason="long: make soak")
    for item in items:
        if "long" in item.keywords:
            item.add_marker(skip)
