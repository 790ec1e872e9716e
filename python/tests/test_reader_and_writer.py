"""What reader and writer promise, blocking and on asyncio."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import threading
import time
from typing import Any

import pytest
from support.servers import Redis

from bifrost_module_cache import (
    CachedModule,
    CacheError,
    Config,
    Corrupt,
    InvalidConfig,
    InvalidPath,
    ModuleReader,
    ModuleWriter,
    Refused,
    Unavailable,
    aio,
)


class Blocking:
    """The blocking facade, as a test for both calls it."""

    def __init__(self, url: str) -> None:
        self.writer = ModuleWriter(url)
        self.reader = self.writer.reader

    def call(self, method: Any, *arguments: Any, **keywords: Any) -> Any:
        return method(*arguments, **keywords)


class OnLoop:
    """The facade for asyncio."""

    def __init__(self, url: str) -> None:
        self.writer = aio.ModuleWriter(url)
        self.reader = self.writer.reader

    def call(self, method: Any, *arguments: Any, **keywords: Any) -> Any:
        return asyncio.run(method(*arguments, **keywords))


@pytest.fixture(params=[Blocking, OnLoop])
def facade(request: pytest.FixtureRequest, redis_server: Redis) -> Any:
    return request.param(redis_server.url)


HASH = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_what_is_set_is_read(facade: Any, redis_server: Redis) -> None:
    module = CachedModule("x = 'ä'\n", "shared/a.py")
    facade.call(facade.writer.set, module)
    assert facade.call(facade.reader.get, "shared/a.py") == module
    assert facade.call(facade.reader.get, "shared/b.py") is None
    assert facade.call(facade.reader.get_many, ["x.py", "shared/a.py"]) == [None, module]
    assert facade.call(facade.reader.paths) == {"shared/a.py"}
    stored = json.loads(redis_server.client().get("bifrost:module:shared/a.py") or "")
    assert stored == {"content": "x = 'ä'\n", "path": "shared/a.py", "hash": module.sha256}


def test_what_is_removed_is_absent(facade: Any) -> None:
    facade.call(facade.writer.set, CachedModule("", "a.py"))
    assert facade.call(facade.writer.invalidate, "a.py") is True
    assert facade.call(facade.writer.invalidate, "a.py") is False
    assert facade.call(facade.reader.paths) == set()


def test_a_move_and_a_publication(facade: Any) -> None:
    facade.call(facade.writer.set, CachedModule("", "a.py"))
    facade.call(facade.writer.rename, "a.py", CachedModule("1", "b.py"))
    assert facade.call(facade.reader.paths) == {"b.py"}
    modules = [CachedModule("2", "c.py"), CachedModule("3", "d.py")]
    report = facade.call(facade.writer.publish, iter(modules), remove=["b.py"])
    assert (report.written, report.removed) == (2, 1)
    report = facade.call(facade.writer.publish_exact, modules[:1], max_prune=1.0)
    assert (report.unchanged, report.removed, report.complete) == (1, 1, True)
    assert "1 unchanged" in repr(report)
    status = facade.call(facade.reader.status)
    assert status.is_warm and status.modules == 1 and status.since.tzinfo is not None
    assert str(status).startswith("warm since")
    report = facade.call(facade.writer.clear)
    assert report.removed == 1
    assert facade.call(facade.reader.status).state == "cold"


def test_names_are_resolved(facade: Any) -> None:
    modules = [CachedModule("", path) for path in ("a/__init__.py", "a/b.py", "n/m/c.py")]
    facade.call(facade.writer.publish, modules)
    names = ["a", "a.b", "n.m", "none", "a..b", "", "\udcff"]
    found = facade.call(facade.reader.resolve_many, names)
    kinds = [answer and (answer.kind, answer.path) for answer in found]
    expected = [("package", "a/__init__.py"), ("module", "a/b.py"), ("namespace", "n/m")]
    assert kinds == [*expected, None, None, None, None]
    assert found[0].module == modules[0] and found[2].module is None
    assert facade.call(facade.reader.resolve, "a") == found[0]
    why = facade.call(facade.reader.explain_name, "a.typo")
    assert why.cause == "cache_cold" and 'no module named "a.typo"' in str(why)
    why = facade.call(facade.reader.explain, "a/b.py")
    assert why.is_fine and why.cause == "cached"


def test_refresh_brings_what_the_rows_say(facade: Any) -> None:
    facade.call(facade.writer.set, CachedModule("old", "gone.py"))
    rows = [
        {"path": "a.py", "content": "1", "content_hash": None},
        {"path": "b.py", "content": None, "content_hash": None},
        {"path": "c.py", "content": "3", "is_deleted": True},
        {"path": "d.py", "content": "4", "entity_type": "form"},
        CachedModule("5", "e.py"),
    ]
    asked = []

    def fetch(paths: list[str]) -> list[Any]:
        asked.append(paths)
        return rows

    paths = {"a.py", "b.py", "c.py", "d.py", "e.py", "gone.py"}
    report = facade.call(facade.writer.refresh, paths, fetch)
    assert asked == [sorted(paths)]
    assert (report.written, report.removed, report.unsettled) == (2, 4, [])
    assert facade.call(facade.reader.get, "a.py").hash == ""
    assert facade.call(facade.reader.paths) == {"a.py", "e.py"}


class Oops(Exception):
    pass


def test_what_fetch_raises_comes_back_as_it_was(facade: Any) -> None:
    oops = Oops("mine")

    def fetch(paths: list[str]) -> list[Any]:
        raise oops

    with pytest.raises(Oops) as caught:
        facade.call(facade.writer.refresh, ["a.py"], fetch)
    assert caught.value is oops
    for rows in ("text", 5, ["text"], [("a.py", "")], [{"path": "a.py"}]):
        with pytest.raises(TypeError, match="row"):
            facade.call(facade.writer.refresh, ["a.py"], lambda paths, rows=rows: rows)


def test_bad_input_is_refused_with_the_reason(facade: Any) -> None:
    for path in ("", "index", "/a.py", "a/../b.py", "a\\b", "a\0.py", "a//b.py", "\udcff.py"):
        with pytest.raises(InvalidPath, match="invalid module path"):
            facade.call(facade.reader.get, path)
        with pytest.raises(InvalidPath):
            CachedModule("", path)
    with pytest.raises(ValueError, match="lone surrogate"):
        CachedModule("x = '\udcff'", "a.py")
    with pytest.raises(TypeError, match="decode it as UTF-8"):
        CachedModule(b"x", "a.py")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="iterable"):
        facade.call(facade.reader.get_many, "a.py")
    with pytest.raises(TypeError, match="must be a str, not int"):
        facade.call(facade.reader.get, 5)
    with pytest.raises(CacheError, match="empty workspace.*allow_empty"):
        facade.call(facade.writer.publish_exact, [])
    big = CachedModule("x" * (17 << 20), "big.py")
    with pytest.raises(CacheError, match=r"Config\(max_content_bytes="):
        facade.call(facade.writer.set, big)


def test_a_corrupt_entry_is_no_absence(facade: Any, redis_server: Redis) -> None:
    redis_server.client().set("bifrost:module:a.py", "{")
    with pytest.raises(Corrupt, match="corrupt") as caught:
        facade.call(facade.reader.get, "a.py")
    assert caught.value.path == "a.py" and not caught.value.is_transient
    redis_server.client().set("bifrost:module:b.py", '{"content":"\\ud800","path":"b.py","hash":""}')
    with pytest.raises(Corrupt):
        facade.call(facade.reader.get, "b.py")


def test_an_outage_is_an_error_in_time(own_redis: Redis) -> None:
    reader = ModuleReader(own_redis.url)
    assert reader.get("a.py") is None
    with own_redis.frozen():
        start = time.monotonic()
        with pytest.raises(Unavailable, match="did not answer in time") as caught:
            reader.get("a.py")
        assert time.monotonic() - start < 2
    error = caught.value
    assert error.is_transient and not error.may_have_been_applied
    assert error.server == f"127.0.0.1:{own_redis.port}/0"
    assert isinstance(error, ImportError) and not isinstance(error, ModuleNotFoundError)
    own_redis.stop()
    with pytest.raises(Unavailable):
        ModuleReader(own_redis.url).paths()


def test_a_write_that_may_have_been_applied_says_so(own_redis: Redis) -> None:
    writer = ModuleWriter(own_redis.url)
    writer.set(CachedModule("", "a.py"))
    with own_redis.frozen():
        with pytest.raises(Unavailable, match="may have been applied") as caught:
            writer.set(CachedModule("2", "a.py"))
    assert caught.value.may_have_been_applied


def test_a_wrong_password_is_refused_and_not_shown(own_redis: Redis) -> None:
    own_redis.add_users()
    url = own_redis.url.replace("redis://", "redis://bifrost_reader:secret@")
    reader = ModuleReader(url)
    with pytest.raises(Refused, match="WRONGPASS") as caught:
        reader.get("a.py")
    shown = f"{caught.value!r} {caught.value.__dict__} {reader!r}"
    assert "secret" not in shown and "bifrost_reader" not in shown


def test_settings_that_cannot_be_used_are_refused() -> None:
    for settings in (
        {"pool_size": 0},
        {"response_timeout": 0.0},
        {"lookup_deadline": -1.0},
        {"bulk_deadline": float("nan")},
        {"ttl": float("inf")},
        {"integrity": "maybe"},
        {"client_key_pem": b""},
        {"ca_pem": b"no certificate"},
    ):
        with pytest.raises(InvalidConfig, match="invalid configuration"):
            Config(**settings)  # type: ignore[arg-type]
    for url in ("", "hunter2", "http://u:hunter2@x", "redis://:hunter2@:1"):
        with pytest.raises(InvalidConfig) as caught:
            ModuleReader(url)
        assert "hunter2" not in repr(caught.value)
    with pytest.raises(TypeError):
        Config("redis://localhost")  # type: ignore[misc]
    assert repr(Config(ttl=60.0, pool_size=2)) == "Config(pool_size=2, ttl=60.0)"
    assert Config(bulk_deadline=2).bulk_deadline == 2.0


def test_settings_are_applied(redis_server: Redis) -> None:
    writer = ModuleWriter(redis_server.url, config=Config(ttl=60.0, integrity="enforce"))
    writer.set(CachedModule("x", "a.py", hash="0" * 64))
    assert 0 < redis_server.client().ttl("bifrost:module:a.py") <= 60
    with pytest.raises(Corrupt):
        writer.reader.get("a.py")


def test_namespaces_never_see_each_other(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = redis_server.url
    ours, theirs = Config(namespace="{a}:"), Config(namespace="{b}:")
    ModuleWriter(url, config=ours).set(CachedModule("", "a.py"))
    assert ModuleReader(url, config=ours).paths() == {"a.py"}
    assert ModuleReader(url, config=theirs).paths() == ModuleReader(url).paths() == set()
    assert repr(ours) == 'Config(namespace="{a}:")'
    with pytest.raises(InvalidConfig):
        Config(namespace="a*")
    monkeypatch.setenv("REDIS_URL", url)
    monkeypatch.setenv("BIFROST_NAMESPACE", "{a}:")
    assert ModuleReader().paths() == {"a.py"}
    assert ModuleReader(config=theirs).paths() == set()


def test_the_url_comes_from_the_environment(
    redis_server: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    ModuleWriter().set(CachedModule("", "a.py"))
    assert ModuleReader().paths() == {"a.py"}
    monkeypatch.setenv("REDIS_URL", "nonsense")
    with pytest.raises(InvalidConfig):
        ModuleReader()


def test_values_and_errors_can_be_pickled() -> None:
    module = CachedModule("x", "a.py", hash="")
    again = pickle.loads(pickle.dumps(module))
    assert again == module and hash(again) == hash(module) and again.hash == ""
    assert repr(module) == "CachedModule(path='a.py', 1 bytes)"
    assert CachedModule("", "a.py").hash == CachedModule("", "a.py").sha256 == HASH
    error = Unavailable("text", server="s", is_transient=True, path="a.py")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is Unavailable and str(again) == "text"
    assert (again.server, again.is_transient, again.path) == ("s", True, "a.py")
    invalid = pickle.loads(pickle.dumps(InvalidPath("text", path="p")))
    assert (str(invalid), invalid.path) == ("text", "p")


def test_stats_count(facade: Any) -> None:
    facade.call(facade.reader.get, "a.py")
    stats = facade.reader.stats()
    assert stats["calls"] == 1 and stats["absent"] == 1 and stats["breaker"] == "closed"


def test_both_facades_have_the_same_methods() -> None:
    for blocking, on_loop in ((ModuleReader, aio.ModuleReader), (ModuleWriter, aio.ModuleWriter)):
        names = {name for name in dir(blocking) if not name.startswith("_")}
        assert names == {name for name in dir(on_loop) if not name.startswith("_")}
        for name in names - {"reader"}:
            ours = inspect.signature(getattr(blocking, name))
            theirs = inspect.signature(getattr(on_loop, name))
            parameters = [(p.name, p.kind) for p in ours.parameters.values()]
            # Native methods have no position-only self to be told apart.
            assert [p for p, _ in parameters] == [p.name for p in theirs.parameters.values()], name


def test_an_async_fetch_runs_on_the_callers_loop(redis_server: Redis) -> None:
    writer = aio.ModuleWriter(redis_server.url)

    class Fetcher:
        """Says that it is async only when it is called."""

        async def __call__(self, paths: list[str]) -> list[Any]:
            await asyncio.sleep(0)
            threads.append(threading.current_thread())
            return [CachedModule("", path) for path in paths]

    async def fetch(paths: list[str]) -> list[Any]:
        return await Fetcher()(paths)

    def plain(paths: list[str]) -> list[Any]:
        threads.append(threading.current_thread())
        return []

    threads: list[threading.Thread] = []

    async def main() -> None:
        await writer.refresh(["a.py"], fetch)
        await writer.refresh(["b.py"], Fetcher())
        await writer.refresh(["c.py"], plain)

    asyncio.run(main())
    assert threads[:2] == [threading.main_thread()] * 2
    assert threads[2] is not threading.main_thread()
    assert writer._blocking.reader.paths() == {"a.py", "b.py"}


def test_a_cancelled_write_runs_to_its_end(own_redis: Redis) -> None:
    writer = aio.ModuleWriter(own_redis.url, config=Config(response_timeout=10, lookup_deadline=10))

    async def main() -> None:
        await writer.set(CachedModule("1", "a.py"))
        with own_redis.frozen():
            task = asyncio.create_task(writer.set(CachedModule("2", "a.py")))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    module = writer._blocking.reader.get("a.py")
    assert module is not None and module.content == "2"


def test_a_loop_that_ends_during_fetch_hangs_nobody(redis_server: Redis) -> None:
    writer = aio.ModuleWriter(redis_server.url)

    async def fetch(paths: list[str]) -> list[Any]:
        await asyncio.sleep(3600)
        return []

    async def main() -> None:
        task = asyncio.create_task(writer.refresh(["a.py"], fetch))
        await asyncio.sleep(0.2)
        task.cancel()

    start = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - start < 10


def test_the_reader_has_no_method_that_writes() -> None:
    expected = "explain explain_name get get_many paths resolve resolve_many stats status"
    assert [n for n in dir(ModuleReader) if not n.startswith("_")] == expected.split()
