"""Preparing: what is compiled before anything is executed."""

from __future__ import annotations

from textwrap import dedent

from support.servers import Proxy, Redis
from support.workspaces import publish, run

from bifrost_module_cache.imports import imported_names

START = """
import sys
from bifrost_module_cache import *
modules = Modules(sys.argv[1])
finder = modules.install()
"""


def names(source: str, package: str = "p.q") -> set[str]:
    return set(imported_names(compile(dedent(source), "x", "exec"), package))


def test_imports_are_seen_in_the_code() -> None:
    assert names("import a.b.c, d as e") == {"a.b.c", "d"}
    assert names("from a import b, c") == {"a", "a.b", "a.c"}
    assert names("from a import *") == {"a"}
    assert names("from . import x") == {"p.q", "p.q.x"}
    assert names("from .. import x") == {"p", "p.x"}
    assert names("from .r.s import x as y") == {"p.q.r.s", "p.q.r.s.x"}
    assert names("from .... import x") == set()
    assert names("from . import x", "") == set()
    assert names("def f():\n  class C:\n    async def g(self):\n      import deep") == {"deep"}
    assert names("try:\n  import a\nexcept ImportError:\n  import b") == {"a", "b"}
    assert names("if x:\n  import a\nelse:\n  from b import c") == {"a", "b", "b.c"}
    many = "\n".join(f"import m{n}\nx = {n}" for n in range(400))
    assert names(many) == {f"m{n}" for n in range(400)}
    assert names("x = 1; y = 'import z'") == set()


def test_all_is_compiled_and_nothing_executed(redis_server: Redis) -> None:
    files = {f"m{n}.py": "raise AssertionError" for n in range(5)}
    files |= {"bad.py": "def f(:", "nul.py": "\0", "data.txt": "no code", "p/__init__.py": ""}
    publish(redis_server.url, files)
    script = """
        calls = []
        report = modules.preload(progress=lambda done, known: calls.append((done, known)))
        assert (report.modules, report.missing) == (6, ()), report
        assert sorted(report.failed) == ["bad.py", "nul.py"]
        assert report.failed["bad.py"].startswith("SyntaxError: invalid syntax (bad.py, line 1)"), report.failed
        assert calls == [(n, 8) for n in range(1, 9)] and report.seconds > 0
        assert modules.stats()["code"]["codes"] == 6
        try:
            import bad
        except SyntaxError:
            pass
    """
    run(START + dedent(script), redis_server.url)


FILES = {
    "workflows/main.py": "import shared.a\nfrom shared import b, c\nfrom importlib import import_module\n",
    "shared/__init__.py": "from .base import thing\n",
    "shared/base.py": "thing = 1\n",
    "shared/a.py": "def f():\n    from . import late\n",
    "shared/b.py": "from .deep import x\nc = 1\n",
    "shared/c.py": "import namespace.leaf\n",
    "shared/late.py": "import numpy\nimport shared.broken",
    "shared/broken.py": "def f(:",
    "shared/deep/__init__.py": "from .chain0 import x\n",
    "namespace/leaf.py": "from .. import nothing\nfrom ... import nothing\n",
    "unused.py": "raise AssertionError",
    "shared/unused.py": "",
}


def test_imports_are_followed_from_the_names(redis_server: Redis) -> None:
    chain = {f"shared/deep/chain{n}.py": f"from .chain{n + 1} import x" for n in range(50)}
    publish(redis_server.url, FILES | chain | {"shared/deep/chain50.py": "x = 1"})
    script = """
        calls = []
        names = iter(["workflows.main", "nothing.at.all"])
        report = modules.preload(names, progress=lambda done, known: calls.append((done, known)))
        assert report.missing == ("nothing.at.all",), report
        assert list(report.failed) == ["shared/broken.py"], report.failed
        codes = set(modules._codes.filenames())
        unused = {"/bifrost/unused.py", "/bifrost/shared/unused.py", "/bifrost/shared/broken.py"}
        assert codes == {"/bifrost/" + path for path in modules.snapshot().paths()} - unused, codes
        assert report.modules == len(codes) == 60, report
        assert calls and all(done <= known for done, known in calls)
        try:
            modules.preload("workflows.main")
        except TypeError:
            pass
        # What can't be seen is loaded later.
        with modules.execution():
            import shared.unused
    """
    run(START + dedent(script), redis_server.url)


def test_round_trips_are_few_however_deep_it_goes(redis_server: Redis, proxy: Proxy) -> None:
    chain = {f"deep{n}.py": f"import deep{n + 1}" for n in range(300)}
    publish(redis_server.url, chain | {"deep300.py": ""})
    script = """
        report = modules.preload(["deep0"])
        assert report.modules == 301, report
    """
    run(START + dedent(script), proxy.url)
    # Two connections, each with its greeting; the index, the modules; signs of life.
    assert proxy.connections <= 3 and proxy.pieces <= 20, (proxy.connections, proxy.pieces)


def test_an_outage_is_raised_and_not_reported(redis_server: Redis) -> None:
    script = """
        away = Modules("redis://127.0.0.1:1/0", config=Config(bulk_deadline=0.3))
        try:
            away.preload()
        except Unavailable:
            pass
        else:
            raise AssertionError
    """
    run(START + dedent(script), redis_server.url)
