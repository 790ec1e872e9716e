"""The import hook: each trap that was found, and what differs from a disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.servers import Redis
from support.workspaces import publish, run

from bifrost_module_cache import InvalidConfig, Modules

START = """
import sys
from bifrost_module_cache import *
modules = Modules(sys.argv[1])
finder = modules.install()
"""


def test_the_working_directory_is_not_searched(redis_server: Redis, tmp_path: Path) -> None:
    publish(redis_server.url, {"shared/__init__.py": "", "spread/a.py": ""})
    for package in ("shared", "spread"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "evil.py").write_text("print('evil')")
    script = """
        import os
        for name in ("shared.evil", "spread.evil"):
            try:
                __import__(name)
            except ModuleNotFoundError as error:
                assert error.name == name
            else:
                raise AssertionError(name)
        import shared, spread
        assert all(os.path.isabs(entry) for p in (shared, spread) for entry in p.__path__)
        assert not os.path.exists("/bifrost")
    """
    run(START + _dedent(script), redis_server.url, cwd=tmp_path)


def test_an_empty_directory_hides_nothing(redis_server: Redis, tmp_path: Path) -> None:
    publish(redis_server.url, {"shared/__init__.py": "value = 1", "requests.py": "mine = 1"})
    (tmp_path / "shared").mkdir()
    (tmp_path / "requests").mkdir()
    script = """
        import shared, requests
        assert shared.value == 1 and requests.mine == 1
    """
    run(START + _dedent(script), redis_server.url, cwd=tmp_path)


def test_what_is_installed_is_not_hidden(redis_server: Redis, tmp_path: Path) -> None:
    files = {"requests.py": "mine = 1", "installed/extra.py": "mine = 1", "sys.py": "", "json.py": ""}
    publish(redis_server.url, files)
    (tmp_path / "requests.py").write_text("mine = 0")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "__init__.py").write_text("")
    script = """
        import importlib.util, json, requests
        assert requests.mine == 0 and not hasattr(json, "__content_hash__")
        import installed
        assert importlib.util.find_spec("installed.extra") is None
        # An editable install is found by a finder of its own.
        import importlib.machinery, types
        class Editable:
            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "editable":
                    return importlib.machinery.ModuleSpec(name, Editable)
            create_module = staticmethod(lambda spec: types.ModuleType(spec.name))
            exec_module = staticmethod(lambda module: None)
        sys.meta_path.append(Editable)
        import editable
        assert editable.__spec__.loader is Editable
    """
    publish(redis_server.url, files | {"editable.py": "raise AssertionError"})
    run(START + _dedent(script), redis_server.url, cwd=tmp_path)


def test_a_cookie_does_not_decode_twice(redis_server: Redis) -> None:
    source = "# -*- coding: latin-1 -*-\ntext = 'ä€'\n"
    publish(redis_server.url, {"cookie.py": source, "bom.py": "\ufeff" + source})
    script = """
        import cookie, bom, inspect
        assert cookie.text == bom.text == "ä€"
        assert "ä€" in inspect.getsource(cookie)
    """
    run(START + _dedent(script), redis_server.url)


def test_pkgutil_sees_the_top_level_and_what_lies_below(redis_server: Redis) -> None:
    files = ["a.py", "p/__init__.py", "p/b.py", "p/q/__init__.py", "n/c.py", "p/x.txt", "odd.name/d.py"]
    publish(redis_server.url, dict.fromkeys(files, ""))
    script = """
        import pkgutil
        ours = [(i.name, i.ispkg) for i in pkgutil.iter_modules() if i.module_finder is finder]
        assert ours == [("a", False), ("p", True)], ours
        walked = [i.name for i in pkgutil.walk_packages(["/bifrost/"])]
        assert walked == ["a", "p", "p.b", "p.q"], walked
        assert [i.name for i in pkgutil.iter_modules(["/bifrost"], "x.")] == ["x.a", "x.p"]
        assert list(pkgutil.iter_modules(["/bifrost/nowhere", "/bifrostling"])) == []
        import p
        assert [i.name for i in pkgutil.iter_modules(p.__path__)] == ["b", "q"]
    """
    run(START + _dedent(script), redis_server.url)


def test_find_spec_and_optional_imports_work(redis_server: Redis) -> None:
    publish(redis_server.url, {"shared/__init__.py": ""})
    script = """
        import importlib.util
        with modules.execution():
            assert importlib.util.find_spec("shared.nothing") is None
            assert importlib.util.find_spec("nothing") is None
            try:
                import shared.nothing
            except ModuleNotFoundError as error:
                assert not hasattr(error, "__notes__")
    """
    run(START + _dedent(script), redis_server.url)


def test_an_import_error_that_leaves_an_execution_says_why(redis_server: Redis) -> None:
    files = {
        "shared/__init__.py": "",
        "shared/module.py": "",
        "wraps.py": "try:\n    import shared.typo\nexcept ImportError as e:\n    raise RuntimeError from e\n",
    }
    publish(redis_server.url, files)
    script = """
        def notes(statement):
            try:
                with modules.execution():
                    with modules.execution():
                        exec(statement)
            except BaseException as error:
                found = []
                while error:
                    found += getattr(error, "__notes__", [])
                    error = error.__cause__ or error.__context__
                return found

        (note,) = notes("import shared.typo")
        assert note.startswith('no module named "shared.typo": there is no'), note
        assert "check the spelling" in note
        (note,) = notes("from shared import typo")
        assert 'no module named "shared.typo"' in note
        (note,) = notes("import shared.module.below")
        assert '"shared/module.py" is a module and no package' in note, note
        assert len(notes("import wraps")) == 1
        assert notes("import nothing_of_ours") == []
        assert notes("1 / 0") == []
        assert notes("raise ImportError('x', name='shared')") == []
        try:
            with modules.execution():
                raise ExceptionGroup("", [ImportError("x", name="shared.typo")])
        except ExceptionGroup as group:
            assert "shared.typo" in group.exceptions[0].__notes__[0]

        # What was saved after the execution began.
        try:
            with modules.execution():
                ModuleWriter(sys.argv[1]).set(CachedModule("", "shared/late.py"))
                import shared.late
        except ImportError as error:
            assert error.__notes__ == ['"shared.late" is newer than this execution: run it again']
        with modules.execution():
            import shared.late
    """
    run(START + _dedent(script), redis_server.url)


def test_an_outage_is_no_absence(own_redis: Redis) -> None:
    publish(own_redis.url, {"shared/__init__.py": "", "shared/a.py": ""})
    script = """
        import os, signal, time, importlib.util
        with modules.execution():
            os.kill(int(sys.argv[2]), signal.SIGSTOP)
            # Inside an execution nothing does IO.
            try:
                import nothing_installed
            except ModuleNotFoundError as error:
                assert type(error) is ModuleNotFoundError
            import shared.a
            time.sleep(2.2)     # longer than the near cache may trust what it has
        start = time.monotonic()
        try:
            import shared.b
        except ModuleNotFoundError:
            raise AssertionError("an absence")
        except Unavailable as error:
            assert error.is_transient and "did not answer" in str(error) or "left alone" in str(error), error
        else:
            raise AssertionError
        try:
            with modules.execution():
                raise AssertionError("it began")
        except Unavailable:
            pass
        assert time.monotonic() - start < 8
    """
    assert own_redis.process is not None
    run(START + _dedent(script), own_redis.url, str(own_redis.process.pid))


def test_a_corrupt_entry_fails_the_import_statement(redis_server: Redis) -> None:
    publish(redis_server.url, {"shared/__init__.py": "", "shared/a.py": ""})
    redis_server.client().set("bifrost:module:shared/a.py", "nonsense")
    script = """
        for execution in (True, False):
            try:
                if execution:
                    with modules.execution():
                        import shared.a
                else:
                    import shared.a
            except Corrupt as error:
                assert error.path == "shared/a.py" and not hasattr(error, "__notes__")
            else:
                raise AssertionError
        report = modules.preload()
        assert list(report.failed) == ["shared/a.py"] and "corrupt" in report.failed["shared/a.py"]
    """
    run(START + _dedent(script), redis_server.url)


def test_reload_brings_the_new_source(redis_server: Redis) -> None:
    publish(redis_server.url, {"shared/a.py": "def f():\n    1 / 0\n"})
    script = """
        import importlib, inspect, linecache, traceback, time
        import shared.a as a
        first = a.__content_hash__
        assert first == modules.get("shared/a.py").sha256 == CachedModule("def f():\\n    1 / 0\\n", "a.py").hash
        assert "1 / 0" in inspect.getsource(a.f)
        try:
            a.f()
        except ZeroDivisionError:
            assert "1 / 0" in traceback.format_exc()
        new = CachedModule("# one line more\\ndef f():\\n    2 / 0\\n", "shared/a.py", hash="a lie")
        ModuleWriter(sys.argv[1]).set(new)
        end = time.monotonic() + 10
        while a.__content_hash__ == first and time.monotonic() < end:
            importlib.reload(a)
        assert a.__content_hash__ == new.sha256
        try:
            a.f()
        except ZeroDivisionError:
            assert "2 / 0" in traceback.format_exc()
        assert "2 / 0" in inspect.getsource(a.f)
    """
    run(START + _dedent(script), redis_server.url)


def test_the_hash_that_is_stored_is_not_believed(redis_server: Redis) -> None:
    publish(redis_server.url, {"a.py": "value = 1"})
    script = """
        import time
        writer = ModuleWriter(sys.argv[1])
        for value in (1, 2):
            # Two sources under one hash.
            writer.set(CachedModule(f"value = {value}", "a.py", hash="0" * 64))
            with modules.execution():
                import a
                assert a.value == value
    """
    run(START + _dedent(script), redis_server.url)


def test_install_is_idempotent_and_first(redis_server: Redis) -> None:
    publish(redis_server.url, {"shared/a.py": ""})
    script = """
        assert modules.install() is finder and sys.meta_path.count(finder) == 1
        assert sys.meta_path[0] is finder
        sys.meta_path.insert(0, sys.meta_path.pop(1))
        modules.install()
        assert sys.meta_path[0] is finder and sys.meta_path.count(finder) == 1
        assert sys.path_hooks.count(finder.path_hook) == 1
        import shared.a
        try:
            modules.install(root="/other/")
        except InvalidConfig as error:
            assert "uninstall" in str(error)
        modules.uninstall()
        modules.uninstall()
        assert finder not in sys.meta_path and finder.path_hook not in sys.path_hooks
        assert not any(e.startswith("/bifrost") for e in sys.path_importer_cache)
        import shared.a
        try:
            import shared.b
        except ModuleNotFoundError:
            pass
        assert modules.install(root="/other/").root == "/other/"
        with Modules(sys.argv[1]) as others:
            others.install()
        assert len([f for f in sys.meta_path if isinstance(f, Finder)]) == 1
    """
    run(START + _dedent(script), redis_server.url)


def test_a_root_that_could_be_a_disk_s_is_refused(tmp_path: Path) -> None:
    for root in ("bifrost/", "/bifrost", "/", "", f"{tmp_path}/"):
        with pytest.raises(InvalidConfig, match="root"):
            Modules("redis://localhost:1").install(root=root)


def test_python_m(redis_server: Redis, tmp_path: Path) -> None:
    files = {
        "shared/__init__.py": "",
        "shared/__main__.py": "print('package', __package__)",
        "shared/tool.py": "import sys, shared\nprint(__name__, __spec__.name, __file__, sys.argv[0])",
    }
    publish(redis_server.url, files)
    # As a platform's image would install it.
    site = "from bifrost_module_cache import Modules\nModules().install()\n"
    (tmp_path / "sitecustomize.py").write_text(site)
    environment = os.environ | {"REDIS_URL": redis_server.url, "PYTHONPATH": str(tmp_path)}

    def output(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *arguments], env=environment, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    tool = "/bifrost/shared/tool.py"
    assert output("shared.tool") == f"__main__ shared.tool {tool} {tool}\n"
    assert output("shared") == "package shared\n"
    assert "No module named shared.nothing" in output("shared.nothing")


def test_an_execution_keeps_what_runs_as_main(redis_server: Redis) -> None:
    publish(redis_server.url, {"shared/__init__.py": "", "shared/tool.py": "import sys\nx = 1\n"})
    script = """
        import importlib.util
        main = sys.modules["__main__"]
        main.__spec__ = importlib.util.find_spec("shared.tool")
        with modules.execution():
            import shared
        ModuleWriter(sys.argv[1]).set(CachedModule("new = 1", "shared/__init__.py"))
        with modules.execution():
            assert sys.modules["__main__"] is main
            import shared
            assert shared.new == 1
    """
    run(START + _dedent(script), redis_server.url)


def test_what_differs_from_a_disk(redis_server: Redis) -> None:
    """The list of docs/python.md."""
    publish(redis_server.url, {"ns/a.py": "", "shared/__init__.py": "", "shared/data.txt": "text"})
    script = """
        import importlib.resources as resources, ns, os, shared
        assert not hasattr(shared, "__cached__") and shared.__spec__.cached is None
        assert not os.path.exists(shared.__file__)
        assert type(ns.__path__) is list
        try:
            resources.files(ns)
        except (NotADirectoryError, ValueError, FileNotFoundError):
            pass
        else:
            raise AssertionError
        assert resources.files(shared).joinpath("data.txt").read_text() == "text"
        assert shared.__content_hash__
    """
    run(START + _dedent(script), redis_server.url)


def test_the_quick_start_of_the_guide_runs(redis_server: Redis) -> None:
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    block = page.split("```python\n")[1].split("```")[0]
    assert len(block.splitlines()) == 10
    end = "assert ticket() == 42\n"
    run(block + "    " + end, env=os.environ | {"REDIS_URL": redis_server.url})


def test_importing_the_package_starts_nothing() -> None:
    script = """
        import os, sys, threading
        tasks = len(os.listdir("/proc/self/task"))
        import bifrost_module_cache
        modules = bifrost_module_cache.Modules("redis://localhost:1")
        modules.install()
        import json
        assert len(os.listdir("/proc/self/task")) == tasks
        assert not any(os.readlink(f"/proc/self/fd/{fd}").startswith("socket") for fd in (3, 4, 5) if os.path.exists(f"/proc/self/fd/{fd}"))
        assert "asyncio" not in sys.modules and "bifrost_module_cache.aio" not in sys.modules
        assert bifrost_module_cache.aio.ModuleReader
        from bifrost_module_cache import aio
        try:
            bifrost_module_cache.nothing
        except AttributeError:
            pass
    """
    run(script)


def test_everything_has_a_docstring_and_no_secret_in_its_repr() -> None:
    import inspect

    import bifrost_module_cache as package
    from bifrost_module_cache import aio
    from bifrost_module_cache.compat import module_cache, module_cache_sync

    for module in (package, aio, module_cache, module_cache_sync):
        assert module.__doc__
        for name in getattr(module, "__all__", []):
            thing = getattr(module, name)
            if inspect.isclass(thing) or inspect.isfunction(thing):
                assert inspect.getdoc(thing), name
            if inspect.isclass(thing) and thing.__module__.startswith("bifrost"):
                for member, value in vars(thing).items():
                    if not member.startswith("_") and callable(value):
                        assert inspect.getdoc(value), f"{name}.{member}"
    url = "redis://user:hunter2@localhost:1/0"
    things = [Modules(url), package.ModuleReader(url), package.ModuleWriter(url)]
    things += [aio.ModuleReader(url), aio.ModuleWriter(url)]
    assert not any("hunter2" in repr(thing) or "user" in repr(thing) for thing in things)


def _dedent(text: str) -> str:
    import textwrap

    return textwrap.dedent(text)
