"""A Python worker at work: one execution after the other in a child of its own imports a workspace, while
a service saves. `demo.py [DIRECTORY]`; the last part of `make demo`."""

from __future__ import annotations

import compileall
import importlib
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from support.servers import Redis  # noqa: E402
from support.workspaces import publish, write  # noqa: E402
from workspace import files, names  # noqa: E402

from bifrost_module_cache import CachedModule, Modules, ModuleWriter  # noqa: E402

EXECUTIONS = 60


def workspace(directory: str | None) -> dict[str, str]:
    """The modules of a directory, or those of the benchmark."""
    if directory is None:
        return files()
    found = {}
    for file in sorted(Path(directory).rglob("*.py")):
        try:
            found[file.relative_to(directory).as_posix()] = file.read_bytes().decode()
        except UnicodeDecodeError:
            continue  # is no module's source for the cache
    return found


def execution(wanted: list[str]) -> tuple[float, int, int]:
    """Imports everything. How long it took, how many modules failed, and which version it saw."""
    start = time.process_time()
    failed = 0
    for name in wanted:
        try:
            importlib.import_module(name)
        except BaseException:
            failed += 1  # as it would on a disk
    took = time.process_time() - start
    one, other = (importlib.import_module(f"demo_pair.{name}").version for name in ("one", "other"))
    return took, failed, one if one == other else -1


def in_child(work: Callable[[], tuple[float, int, int]]) -> tuple[float, int, int]:
    reading, writing = os.pipe()
    if os.fork() == 0:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os.dup2(devnull, 2)
        os.write(writing, repr(work()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        took, failed, version = pipe.read().strip("()").split(",")
    os.wait()
    return float(took), int(failed), int(version)


def pair(version: int) -> dict[str, str]:
    """Two modules that belong together."""
    return {f"demo_pair/{name}.py": f"version = {version}\n" for name in ("one", "other")}


def main() -> None:
    directory = sys.argv[1] if len(sys.argv) > 1 else None
    modules_of = workspace(directory)
    wanted = names(modules_of)
    server = Redis()
    with tempfile.TemporaryDirectory() as disk:
        try:
            publish(server.url, modules_of | pair(0))
            write(Path(disk), modules_of | pair(0))
            run(server, disk, wanted, sum(map(len, modules_of.values())))
        finally:
            server.close()


def run(server: Redis, disk: str, wanted: list[str], size: int) -> None:
    compileall.compile_dir(disk, quiet=2)
    modules = Modules(server.url)
    modules.install()
    report = modules.preload()
    print(
        f"python     {report.modules} modules, {size / 1e6:.1f} MB, compiled once in {report.seconds:.2f} s"
        f" ({len(report.failed)} can't be)"
    )
    stop = threading.Event()
    saved = [0]

    def save() -> None:
        writer = ModuleWriter(server.url)
        while not stop.is_set():
            saved[0] += 1
            changes = [CachedModule(text, path) for path, text in pair(saved[0]).items()]
            writer.publish(changes)
            stop.wait(0.02)

    service = threading.Thread(target=save)
    service.start()
    ours, disks, versions = [], [], []
    try:
        for _ in range(EXECUTIONS):
            with modules.execution():
                known = saved[0]
                took, failed, version = in_child(lambda: execution(wanted))
            ours.append(took)
            versions.append(version)
            assert version != -1, "an execution saw half of a publication"
            assert version >= known - 1, "an execution saw what was old when it began"
            of_disk, failed_on_disk, _ = in_child(lambda: on_disk(disk, wanted))
            disks.append(of_disk)
            assert failed == failed_on_disk, (failed, failed_on_disk)
    finally:
        stop.set()
        service.join()
    ratio = statistics.median(one / other for one, other in zip(ours, disks, strict=True))
    print(
        f"           {EXECUTIONS} executions, a child each, {len(set(versions))} versions seen while a service "
        f"published {saved[0]} times: none mixed, none old"
    )
    print(
        f"           CPU time to import it all: {ratio:.2f} x that from a disk with .pyc files "
        f"({statistics.median(ours) * 1e3:.1f} ms, {statistics.median(disks) * 1e3:.1f} ms)"
    )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"           the worker takes {peak / 1024:.0f} MB; its children share that")


def on_disk(disk: str, wanted: list[str]) -> tuple[float, int, int]:
    sys.meta_path[:] = [finder for finder in sys.meta_path if "bifrost" not in type(finder).__module__]
    sys.path.insert(0, disk)
    return execution(wanted)


if __name__ == "__main__":
    main()
