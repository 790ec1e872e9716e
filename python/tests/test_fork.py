"""Forks: a worker forks for each execution, whatever its other threads do."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest
from support.servers import Redis
from support.workspaces import publish, run

START = """
import os, sys, threading, time, warnings
from bifrost_module_cache import *
url = sys.argv[1]
modules = Modules(url)
finder = modules.install()

def forked(call, seconds=20):
    '''Runs a call in a child. Returns its exit status; None if it hung.'''
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            call()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.001)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return None
"""

FILES = {f"shared/m{n}.py": f"value = {n}\n" for n in range(20)} | {"shared/__init__.py": ""}


def test_a_child_inherits_workspace_and_code(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    script = """
        modules.preload()
        with modules.execution():
            ModuleWriter(url).set(CachedModule("value = 'new'", "shared/m1.py"))
            def child():
                before = modules._codes.stats()["misses"]
                import shared.m1, shared.m2
                assert shared.m1.value == 1 and modules._codes.stats()["misses"] == before
                with modules.execution() as snapshot:
                    import shared.m3
                assert not os.path.exists("/bifrost")
            assert forked(child) == 0
        def next_child():
            import shared.m1
            assert shared.m1.value == "new"
        with modules.execution():
            assert forked(next_child) == 0
    """
    run(START + dedent(script), redis_server.url)


def test_a_child_may_begin_an_execution_itself(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    script = """
        modules.preload()
        ModuleWriter(url).set(CachedModule("value = 'new'", "shared/m1.py"))
        def child():
            with modules.execution():
                import shared.m1, shared.m2
                assert shared.m1.value == "new" and shared.m2.value == 2
            stats = modules._codes.stats()
            assert stats["hits"] >= 2, stats
        for _ in range(3):
            assert forked(child) == 0
    """
    run(START + dedent(script), redis_server.url)


def test_a_child_of_a_thread_in_an_execution(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    script = """
        inside, go_on = threading.Event(), threading.Event()
        def hold():
            with modules.execution():
                inside.set(); go_on.wait(30)
        holder = threading.Thread(target=hold); holder.start(); inside.wait(30)
        # The child has no such thread, and must not wait for it.
        ModuleWriter(url).set(CachedModule("value = 'new'", "shared/m1.py"))
        def child():
            with modules.execution():
                import shared.m1
                assert shared.m1.value == "new"
        assert forked(child) == 0
        go_on.set(); holder.join()
    """
    run(START + dedent(script), redis_server.url)


def test_no_thread_is_left_where_none_may_be(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    script = """
        warnings.simplefilter("error")
        def threads():
            return len(os.listdir("/proc/self/task"))
        def fork():
            '''Warns, from 3.12 on, if there is another thread.'''
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        assert threads() == 1
        for _ in range(20):
            snapshot = load_snapshot(url)
            fork()
            assert threads() == 1
        assert snapshot.get("shared/m1.py").content == "value = 1\\n"
        for _ in range(10):
            modules = Modules(url)
            modules.preload()
            assert threads() > 1
            modules.close()
            fork()
            assert threads() == 1
            with modules.execution():
                fork()
    """
    run(START + dedent(script), redis_server.url)


STORM = """
    import random
    modules.preload()
    stop = threading.Event()
    def lookups():
        while not stop.is_set():
            modules.get(f"shared/m{random.randrange(20)}.py"); modules.resolve("nothing.at.all")
    def executions():
        writer = ModuleWriter(url)
        while not stop.is_set():
            try:
                with modules.execution():
                    import shared.m5
            except Busy:
                pass
            writer.set(CachedModule(f"value = {random.random()}", "shared/m19.py"))
    busy = [threading.Thread(target=lookups), threading.Thread(target=executions)]
    for thread in busy: thread.start()
    hung, failed = 0, 0
    def inherits():
        snapshot.resolve("shared.m1")
        import shared.m1, shared.m2, shared.m3
        assert shared.m3.value == 3
    def asks():
        assert modules.get("shared/m1.py").content == "value = 1\\n"
        import shared.m4
        try:
            with modules.execution():
                import shared.m6
                assert shared.m6.value == 6
        except Unavailable as error:
            assert "handed a snapshot" in str(error) or "did not answer" in str(error) or "no connection" in str(error), error
    for turn in range(int(sys.argv[2])):
        if turn % 4:
            with modules.execution() as snapshot:
                status = forked(inherits)
        else:
            status = forked(asks)
        hung += status is None
        failed += bool(status)
    stop.set()
    for thread in busy: thread.join()
    print(hung, failed)
    assert (hung, failed) == (0, 0), (hung, failed)
"""


def test_forks_with_two_busy_threads(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    run(START + dedent(STORM), redis_server.url, "100")


@pytest.mark.long
def test_two_thousand_forks_with_two_busy_threads(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    run(START + dedent(STORM), redis_server.url, "2000", timeout=1200)
    print(sys.version)
