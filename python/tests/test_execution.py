"""Executions: one consistent workspace each."""

from __future__ import annotations

from textwrap import dedent

from support.servers import Proxy, Redis
from support.workspaces import publish, run

START = """
import sys, threading, time
from bifrost_module_cache import *
url = sys.argv[1]
modules = Modules(url)
finder = modules.install()
writer = ModuleWriter(url)
def save(**sources):
    writer.publish([CachedModule(text, f"shared/{name}.py") for name, text in sources.items()])
"""

FILES = {
    "shared/__init__.py": "",
    "shared/a.py": "version = 'old'\n",
    "shared/b.py": "version = 'old'\nclass Thing: pass\n",
    "shared/late.py": "version = 'old'\n",
}


def start(script: str, server: Redis, url: str | None = None) -> None:
    publish(server.url, FILES)
    run(START + dedent(script), url or server.url)


def test_what_is_saved_meanwhile_is_for_the_next_one(redis_server: Redis) -> None:
    script = """
        with modules.execution() as snapshot:
            import shared.a
            save(a="version = 'new'", late="version = 'new'")
            import shared.late
            assert (shared.a.version, shared.late.version) == ("old", "old")
            assert snapshot.get("shared/late.py").content == "version = 'old'\\n"
        kept = shared.a
        with modules.execution() as later:
            import shared.a, shared.late
            assert (shared.a.version, shared.late.version) == ("new", "new")
            assert shared.a is not kept and later is not snapshot
    """
    start(script, redis_server)


def test_all_of_ours_are_evicted_or_none(redis_server: Redis) -> None:
    script = """
        import pickle
        with modules.execution():
            import shared.a, shared.b, json
            first = shared.b, shared
        with modules.execution():
            # Nothing was saved: nothing is imported again.
            import shared.b
            assert shared.b is first[0] and sys.modules["shared"] is first[1]
        save(a="version = 'new'")
        with modules.execution():
            assert not [name for name in sys.modules if name.split(".")[0] == "shared"]
            assert "json" in sys.modules
            import shared.a, shared.b
            assert shared.b is not first[0] and shared.a.version == "new"
            # One by one, instances and classes would be of two versions.
            assert isinstance(pickle.loads(pickle.dumps(shared.b.Thing())), shared.b.Thing)
        # Redis was flushed and warmed with the same: nothing changed.
        snapshot = modules.snapshot()
        writer.invalidate("shared/late.py")
        save(late="version = 'old'\\n")
        assert modules.snapshot().get("shared/a.py") == snapshot.get("shared/a.py")
    """
    start(script, redis_server)


def test_what_was_imported_outside_is_compared(redis_server: Redis) -> None:
    script = """
        import shared.a
        kept = shared.a
        with modules.execution():
            import shared.a
            assert shared.a is kept
        save(b="version = 'new'")
        import shared.late
        end = time.monotonic() + 10
        while modules.get("shared/b.py").content == FILES_B and time.monotonic() < end:
            time.sleep(.01)
        del sys.modules["shared.b"] if False else sys.modules["shared.late"]
        import shared.b
        assert shared.b.version == "new"          # live, beside the old ones
        with modules.execution():
            import shared.a, shared.b
            assert shared.a is not kept and shared.b.version == "new"
    """
    script = script.replace("FILES_B", repr(FILES["shared/b.py"]))
    script = script.replace('del sys.modules["shared.b"] if False else sys.modules["shared.late"]', "")
    start(script, redis_server)


def test_nested_executions_share(redis_server: Redis) -> None:
    script = """
        with modules.execution() as outer:
            save(a="version = 'new'")
            with modules.execution() as inner:
                assert inner is outer
            import shared.a
            assert shared.a.version == "old"
        execution = modules.execution()
        with execution, execution:
            import shared.a
            assert shared.a.version == "new"
    """
    start(script, redis_server)


def test_threads_share_a_workspace_or_wait(redis_server: Redis) -> None:
    script = """
        inside, go_on = threading.Event(), threading.Event()
        seen = []
        def hold():
            with modules.execution() as snapshot:
                seen.append(snapshot)
                inside.set()
                go_on.wait(30)
                import shared.late
                seen.append(shared.late.version)
        def other():
            with modules.execution() as snapshot:
                import shared.late
                seen.append(shared.late.version)
                seen.append(snapshot)
        holder = threading.Thread(target=hold); holder.start(); inside.wait(30)
        # Nothing changed: shared at once.
        with modules.execution() as snapshot:
            assert snapshot is seen[0]
        save(late="version = 'new'")
        waiter = threading.Thread(target=other); waiter.start()
        waiter.join(0.3)
        assert waiter.is_alive()            # it must not mix, and must not be stale
        go_on.set(); holder.join(30); waiter.join(30)
        assert seen[1:3] == ["old", "new"] and seen[3] is not seen[0], seen
    """
    start(script, redis_server)


def test_waiting_ends_as_busy_in_time(redis_server: Redis) -> None:
    script = """
        patient = Modules(url, config=Config(bulk_deadline=0.3))
        patient.install(root="/patient/")
        inside, go_on = threading.Event(), threading.Event()
        def hold():
            with patient.execution():
                inside.set(); go_on.wait(30)
        holder = threading.Thread(target=hold); holder.start(); inside.wait(30)
        save(a="version = 'new'")
        begin = time.monotonic()
        try:
            with patient.execution():
                raise AssertionError
        except Busy as error:
            assert error.is_transient and "older workspace" in str(error)
        assert 0.2 < time.monotonic() - begin < 5
        go_on.set(); holder.join()
        with patient.execution():
            pass
    """
    start(script, redis_server)


def test_many_threads_never_mix(redis_server: Redis) -> None:
    script = """
        save(a="version = 0", b="version = 0")
        stop, failures, runs = threading.Event(), [], []
        def work():
            while not stop.is_set():
                try:
                    with modules.execution():
                        import importlib
                        a, b = (importlib.import_module("shared." + name) for name in "ab")
                        pair = a.version, b.version
                except Busy:
                    continue
                except BaseException as error:
                    failures.append(repr(error)); return
                if pair[0] != pair[1]:
                    failures.append(pair)
                runs.append(pair)
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers: worker.start()
        for version in range(1, 60):
            save(a=f"version = {version}", b=f"version = {version}")
            time.sleep(0.01)
        stop.set()
        for worker in workers: worker.join()
        assert not failures, failures[:3]
        assert len(set(runs)) > 3, len(set(runs))
        with modules.execution():
            import shared.a
            assert shared.a.version == 59
    """
    start(script, redis_server)


def test_an_execution_asks_redis_nothing_for_its_imports(redis_server: Redis) -> None:
    script = """
        modules.preload()
        with modules.execution():
            client = redis.Redis.from_url(url)
            client.config_resetstat()
            import shared.a, shared.b, shared.late
            for name in ("shared.nothing", "nothing_at_all"):
                try:
                    __import__(name)
                except ModuleNotFoundError:
                    pass
            import pkgutil
            pkgutil.get_data("shared", "a.py"); list(pkgutil.iter_modules(shared.__path__))
            calls = set(client.info("commandstats"))
            # The near cache's sign of life, and this client.
            assert calls <= {"cmdstat_ping", "cmdstat_config|resetstat", "cmdstat_client|setinfo", "cmdstat_info"}, calls
    """
    start("import redis\n" + dedent(script), redis_server)


def test_the_code_cache_is_bounded_and_counted(redis_server: Redis) -> None:
    script = """
        small = Modules(url, max_bytes=20_000)
        small.install(root="/small/")
        save(**{f"m{n}": "\\n".join(f"def f{k}(): return {k}" for k in range(20)) for n in range(30)})
        report = small.preload()
        assert report.modules == 34 and not report.failed
        code = small.stats()["code"]
        small.uninstall()
        assert 0 < code["bytes"] <= 20_000 and code["evictions"] > 0 and 0 < code["codes"] < 34, code
        modules.preload()
        before = modules.stats()["code"]
        assert before["codes"] == 34 and before["evictions"] == 0
        # A code object is dropped with its module.
        writer.invalidate("shared/m0.py")
        save(m1="x = 1")
        with modules.execution():
            after = modules.stats()["code"]
            assert after["codes"] == 32, after
            assert after["bytes"] < before["bytes"], after
            import shared.m1, shared.m2
            assert shared.m1.x == 1
            assert modules.stats()["code"]["codes"] == 33, modules.stats()
    """
    start(script, redis_server)


def test_an_older_workspace_serves_during_an_outage_if_that_is_wanted(own_redis: Redis) -> None:
    script = """
        import os, signal
        lenient = Modules(url, stale_if_error=60, config=Config(bulk_deadline=0.5))
        modules.uninstall(); lenient.install()
        with lenient.execution():
            import shared.a
        os.kill(int(sys.argv[2]), signal.SIGKILL)
        time.sleep(0.5)
        with lenient.execution():
            import shared.b
        try:
            with modules.execution():
                raise AssertionError
        except Unavailable:
            pass
        strict = Modules(url, stale_if_error=0.0001)
        try:
            strict.preload()
        except Unavailable:
            pass
    """
    publish(own_redis.url, FILES)
    assert own_redis.process is not None
    run(START + dedent(script), own_redis.url, str(own_redis.process.pid))


def test_a_closed_cache_goes_on_with_its_last_workspace(redis_server: Redis) -> None:
    script = """
        import os
        assert not modules.is_live()
        modules.preload()
        assert modules.is_live() and "live" in repr(modules)
        modules.close(); modules.close()
        assert repr(modules) == "<Modules: closed>" and not modules.is_live()
        save(a="version = 'new'")
        import shared.b
        with modules.execution() as snapshot:
            import shared.a
            assert shared.a.version == "old" and len(snapshot) == 4
        for call in (modules.snapshot, lambda: modules.get("a.py"), lambda: modules.resolve("a"), lambda: modules.explain_name("a")):
            try:
                call()
            except CacheError as error:
                assert "closed" in str(error)
            else:
                raise AssertionError
        assert modules.stats()["near"] is None
        fresh = Modules(url)
        fresh.close()
        try:
            fresh.preload()
        except CacheError as error:
            assert "closed" in str(error)
    """
    start(script, redis_server)


def test_what_modules_answers_of_itself(redis_server: Redis) -> None:
    script = """
        assert modules.get("shared/a.py").content == "version = 'old'\\n"
        assert modules.get("shared/x.py") is None
        assert modules.resolve("shared").kind == "package" and modules.resolve("x") is None
        assert modules.explain_name("shared.x").cause == "not_cached"
        assert modules.explain_name("shared.a").is_fine
        snapshot = modules.snapshot()
        assert snapshot.paths() == sorted(snapshot.paths()) and len(snapshot) == 4
        assert [r and r.kind for r in snapshot.resolve_many(["shared", "shared.a", "x"])] == ["package", "module", None]
        assert snapshot.find("shared")[:2] == ("package", "shared/__init__.py") and snapshot.find("x") is None
        assert snapshot.explain_name("shared.x").cause == "not_cached"
        assert repr(snapshot) == "<Snapshot of 4 modules>"
        stats = modules.stats()
        assert stats["near"]["live"] and stats["near"]["modules"] >= 4
        loaded = load_snapshot(url)
        assert loaded.changes_since(snapshot) == []
        save(a="1", new="2")
        writer.invalidate("shared/b.py")
        assert load_snapshot(url).changes_since(snapshot) == ["shared/a.py", "shared/b.py", "shared/new.py"]
    """
    start(script, redis_server)
