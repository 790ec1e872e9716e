"""The interpreter goes on while Redis does not: threads, signals, its end, and its copies."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from textwrap import dedent

from support.servers import Redis
from support.workspaces import publish, run

START = """
import os, signal, sys, threading, time
# A shell starts what runs in the background with this signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from bifrost_module_cache import *
url = sys.argv[1]
"""


def test_other_threads_run_while_one_waits(own_redis: Redis) -> None:
    publish(own_redis.url, {"shared/a.py": "", "shared/__init__.py": ""})
    script = """
        import signal, asyncio
        from bifrost_module_cache import aio
        short = Config(bulk_deadline=0.5)
        modules = Modules(url, config=short)
        modules.preload()
        reader, writer = ModuleReader(url, config=short), ModuleWriter(url, config=short)
        module = CachedModule("", "a.py")
        reader.get("a.py"); writer.reader.get("a.py"); aio
        os.kill(int(sys.argv[2]), signal.SIGSTOP)
        time.sleep(2.2)
        calls = [
            lambda: reader.get("a.py"), lambda: reader.get_many(["a.py"]), reader.paths,
            lambda: reader.resolve("a"), lambda: reader.resolve_many(["a"]), reader.status,
            lambda: reader.explain("a.py"), lambda: reader.explain_name("a"),
            lambda: writer.set(module), lambda: writer.invalidate("a.py"),
            lambda: writer.rename("b.py", module), lambda: writer.publish([module]),
            lambda: writer.publish_exact([module]), writer.clear,
            lambda: writer.refresh(["a.py"], lambda paths: []),
            lambda: modules.get("shared/b.py"), lambda: modules.resolve("shared.b"),
            modules.snapshot, modules.preload, lambda: modules.explain_name("x"),
            lambda: load_snapshot(url, config=short),
        ]
        ticks, stop = [0], threading.Event()
        def count():
            while not stop.is_set():
                ticks[0] += 1
                time.sleep(0.001)
        threading.Thread(target=count, daemon=True).start()
        for number, call in enumerate(calls):
            begin, before = time.monotonic(), ticks[0]
            try:
                call()
            except (Unavailable, Refused) as error:
                pass
            else:
                raise AssertionError(number)
            took = time.monotonic() - begin
            assert took < 7, (number, took)
            # A call that the open breaker rejects takes no time. Were the interpreter held, there would
            # be one tick at most; on a busy machine there are fewer than a thousand a second.
            assert took < 0.05 or ticks[0] - before > 3 + took * 5, (number, took, ticks[0] - before)
        stop.set()
    """
    assert own_redis.process is not None
    run(START + dedent(script), own_redis.url, str(own_redis.process.pid), timeout=120)


def test_a_keyboard_interrupt_is_heard_during_a_wait(own_redis: Redis) -> None:
    publish(own_redis.url, {"shared/a.py": ""})
    script = """
        modules = Modules(url, config=Config(bulk_deadline=30, response_timeout=30, lookup_deadline=30))
        reader = ModuleReader(url, config=Config(bulk_deadline=30))
        reader.paths()
        print("frozen now", flush=True)
        sys.stdin.readline()
        what = {"snapshot": modules.snapshot, "paths": reader.paths, "preload": modules.preload,
                "load": lambda: load_snapshot(url, config=Config(bulk_deadline=30)),
                "execution": lambda: modules.execution().__enter__()}[sys.argv[2]]
        begin = time.monotonic()
        print("waiting", flush=True)
        try:
            what()
        except KeyboardInterrupt:
            print("heard", time.monotonic() - begin < 10, flush=True)
            os._exit(0)
        print("missed")
    """
    for what in ("snapshot", "paths", "preload", "load", "execution"):
        process = subprocess.Popen(
            [sys.executable, "-c", START + dedent(script), own_redis.url, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "frozen now\n"
        with own_redis.frozen():
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "waiting\n"
            time.sleep(0.3)
            process.send_signal(signal.SIGINT)
            rest, _ = process.communicate(timeout=20)
        assert rest == "heard True\n", (what, rest)


def test_an_execution_that_waits_hears_it_too(redis_server: Redis) -> None:
    publish(redis_server.url, {"shared/a.py": ""})
    script = """
        import signal
        modules = Modules(url, config=Config(bulk_deadline=60))
        inside = threading.Event()
        def hold():
            with modules.execution():
                inside.set(); time.sleep(60)
        threading.Thread(target=hold, daemon=True).start(); inside.wait()
        ModuleWriter(url).set(CachedModule("new", "shared/a.py"))
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            with modules.execution():
                raise AssertionError
        except KeyboardInterrupt:
            os._exit(0)
    """
    run(START + dedent(script), redis_server.url, timeout=30)


def test_the_interpreter_ends_with_a_live_near_cache(own_redis: Redis) -> None:
    publish(own_redis.url, {"shared/a.py": "", "shared/__init__.py": ""})
    endings = {
        "plain": "",
        "in an execution": "modules.execution().__enter__(); import shared.a",
        "with a writer in a thread": """
def write():
    while True:
        ModuleWriter(url).set(CachedModule("", "shared/b.py"))
threading.Thread(target=write, daemon=True).start()
time.sleep(0.1)""",
        "with a reader in a thread": """
def read():
    while True:
        modules.snapshot(); modules.get("nothing.py")
threading.Thread(target=read, daemon=True).start()
time.sleep(0.1)""",
        "an exit": "sys.exit(0)",
        "an exit hook": "import atexit\natexit.register(lambda: modules.get('shared/a.py'))",
        "an import at the end": """
class Late:
    def __del__(self):
        try:
            import shared.a
        except BaseException:
            pass
sys.late = Late()""",
    }
    for name, ending in endings.items():
        script = f"modules = Modules(url)\nmodules.install()\nmodules.preload()\n{ending}\n"
        for _ in range(3):
            begin = time.monotonic()
            done = run(START + script, own_redis.url, timeout=20)
            assert done.stderr == "" and time.monotonic() - begin < 10, name
    with own_redis.frozen():
        run(START + "modules = Modules(url)\nmodules.is_live()\n", own_redis.url, timeout=20)


def test_a_sub_interpreter_is_refused(redis_server: Redis, tmp_path: Path) -> None:
    inner = """
try:
    import bifrost_module_cache
except ImportError as error:
    text = str(error)
else:
    text = "it was imported"
open(PLACE, "w").write(text)
"""
    script = """
try:
    import _interpreters as interpreters
    run = interpreters.exec
except ImportError:
    try:
        import _xxsubinterpreters as interpreters
    except ImportError:
        import _xxinterpreters as interpreters
    run = interpreters.run_string
run(interpreters.create(), sys.argv[2])
# The main one goes on.
assert ModuleReader(url).paths() == set()
"""
    place = tmp_path / "text"
    run(START + script, redis_server.url, inner.replace("PLACE", repr(str(place))))
    text = place.read_text()
    assert "subinterpreter" in text, text


def test_threads_import_while_others_save(redis_server: Redis) -> None:
    publish(redis_server.url, {f"shared/m{n}.py": f"import shared.m{n + 1}" for n in range(30)})
    script = """
        import importlib
        ModuleWriter(url).set(CachedModule("", "shared/m30.py"))
        modules = Modules(url); modules.install()
        failures = []
        def load(first):
            try:
                for n in range(30):
                    importlib.import_module(f"shared.m{(first + n) % 30}")
            except BaseException as error:
                failures.append(error)
        threads = [threading.Thread(target=load, args=(n,)) for n in range(0, 30, 3)]
        for thread in threads: thread.start()
        for n in range(50): ModuleWriter(url).set(CachedModule(f"x = {n}", "other.py"))
        for thread in threads: thread.join()
        assert not failures, failures
    """
    run(START + dedent(script), redis_server.url)
