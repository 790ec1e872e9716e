"""A worker has the reader's Redis user, and writes nothing: neither to Redis nor to a disk."""

from __future__ import annotations

from textwrap import dedent

from support.servers import Redis
from support.workspaces import publish, run

SCRIPT = """
import os, sys
from bifrost_module_cache import *

url, calls = sys.argv[1], []
modules = Modules(url)
modules.install()
modules.preload()
modules.preload(["shared.a"], progress=lambda done, known: None)
with modules.execution() as snapshot:
    import shared.a
    import importlib, pkgutil
    importlib.reload(shared.a)
    list(pkgutil.walk_packages(shared.__path__)), pkgutil.get_data("shared", "a.py")
import shared.b
modules.get("shared/a.py"), modules.resolve("x"), modules.explain_name("shared.x")
modules.snapshot(), load_snapshot(url), modules.stats(), modules.is_live()
reader = ModuleReader(url)
reader.get("a.py"), reader.get_many(["a.py"]), reader.paths(), reader.resolve("shared")
reader.resolve_many(["shared", "x"]), reader.status(), reader.explain("a.py")
reader.explain_name("shared.x"), reader.stats()
pid = os.fork()
if pid == 0:
    with modules.execution():
        import shared.a
    modules.get("shared/x.py")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
# What writes is refused to this user.
writer = ModuleWriter(url)
for call in (lambda: writer.set(CachedModule("", "a.py")), lambda: writer.invalidate("shared/a.py"), writer.clear):
    try:
        call()
    except Refused as error:
        assert "NOPERM" in str(error), error
    else:
        raise AssertionError
"""


def test_a_worker_needs_no_more_than_the_reader_s_user(own_redis: Redis, tmp_path: object) -> None:
    publish(own_redis.url, {"shared/__init__.py": "", "shared/a.py": "x = 1", "shared/b.py": ""})
    own_redis.add_users()
    before = own_redis.client().get("bifrost:module:shared/a.py")
    own_redis.reset_calls()
    run(dedent(SCRIPT), own_redis.url_of("bifrost_reader"), flags=("-W", "ignore::DeprecationWarning"), cwd=str(tmp_path))
    calls = set(own_redis.calls())
    # What was refused is counted as called; it was not carried out.
    assert own_redis.client().get("bifrost:module:shared/a.py") == before
    writes = {"set", "sadd", "srem", "del", "setex", "flushall", "flushdb", "psetex", "publish"}
    stats = own_redis.client().info("commandstats")
    done = {n for n in writes & calls if stats[f"cmdstat_{n}"]["calls"]}
    assert not done, done
    import os

    assert os.listdir(str(tmp_path)) == []


def test_a_service_needs_no_more_than_the_writer_s_user(own_redis: Redis) -> None:
    own_redis.add_users()
    script = """
        import sys
        from bifrost_module_cache import *
        writer = ModuleWriter(sys.argv[1])
        writer.set(CachedModule("", "a.py")); writer.rename("a.py", CachedModule("", "b.py"))
        writer.publish([CachedModule("", "c.py")], remove=["b.py"])
        writer.publish_exact([CachedModule("", "d.py")], max_prune=1.0)
        assert writer.refresh(["e.py"], lambda paths: [CachedModule("", "e.py")]).written == 1
        assert writer.reader.paths() == {"d.py", "e.py"}
        assert writer.invalidate("e.py") and writer.clear().removed == 1
    """
    run(dedent(script), own_redis.url_of("bifrost_writer"))
