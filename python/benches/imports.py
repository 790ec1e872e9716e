"""What importing a workspace costs, in CPU time and as ratios: `make bench-python`.

Each variant is a process of its own that forks a child on demand; children of all variants take turns,
so that they meet the same moments of a machine that others use too.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import types
from importlib.machinery import ModuleSpec
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from workspace import PACKAGE, files, names  # noqa: E402

ROUNDS = int(os.environ.get("ROUNDS", "60"))
FRESH_ROUNDS = int(os.environ.get("FRESH_ROUNDS", "12"))

DISK = "disk, warm .pyc"
SPECIFICATION = "fresh process: the specification's Python"
FORKED = {
    DISK: "disk",
    "code objects inherited": "inherited",
    "the same, gc.freeze() in the parent": "frozen",
    "floor: executing code objects, nothing else": "floor",
    "the same through a finder that has nothing else": "importlib",
    "a new snapshot in the child": "snapshot",
    "a changed module compiled in the child": "changed",
    "everything compiled in the child": "compile",
}
FRESH = {
    SPECIFICATION: "specification",
    "fresh process: Modules, an execution": "fresh",
    "fresh process: Modules, a plain import": "plain",
    "fresh process: disk, warm .pyc": "fresh_disk",
}


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def load(wanted: list[str]) -> None:
    for name in wanted:
        importlib.import_module(name)


def serve(variant: str, directory: str, url: str) -> None:
    """Forks a child for each line of the input, and tells what it took."""
    wanted = names(files())
    # What the workspace imports itself is there already, as in a worker that has run before.
    sys.path.insert(0, directory)
    load(wanted)
    for name in wanted:
        del sys.modules[name]
    sys.path.remove(directory)
    sys.path_importer_cache.clear()
    before, inside = prepare(variant, directory, url, wanted)
    print("ready", flush=True)
    for _ in sys.stdin:
        with before():
            reading, writing = os.pipe()
            if os.fork() == 0:
                start = cpu()
                inside()
                took = cpu() - start
                assert variant == "floor" or wanted[-1] in sys.modules
                os.write(writing, repr(took).encode())
                os._exit(0)
            os.close(writing)
            print(os.read(reading, 100).decode(), flush=True)
            os.close(reading)
            os.wait()


class Bare:
    """A finder and a loader that do as little as can be done."""

    def __init__(self, codes: dict[str, types.CodeType]) -> None:
        self.codes = codes

    def find_spec(self, name, path=None, target=None):  # type: ignore[no-untyped-def]
        if name in self.codes:
            return ModuleSpec(name, self, origin=name, is_package=name == PACKAGE)
        return None

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        exec(self.codes[module.__name__], module.__dict__)


def prepare(variant: str, directory: str, url: str, wanted: list[str]):  # type: ignore[no-untyped-def]
    from contextlib import nullcontext

    from bifrost_module_cache import CachedModule, Modules, ModuleWriter

    if variant == "disk":
        sys.path.insert(0, directory)
        return nullcontext, lambda: load(wanted)
    modules = Modules(url)
    modules.install()
    if variant == "compile":
        modules.snapshot()
        return modules.execution, lambda: load(wanted)
    modules.preload()
    if variant in ("floor", "importlib"):
        # The very code objects that the others inherit, in a process of the same history.
        pairs = []
        for name, (path, source) in zip(wanted, files().items(), strict=True):
            digest = CachedModule(source, path).sha256
            code = modules._codes.get(f"/bifrost/{path}", digest)
            pairs.append((name, path, code))

        def execute() -> None:
            for name, path, code in pairs:
                module = types.ModuleType(name)
                module.__file__ = f"/bifrost/{path}"
                sys.modules[name] = module
                exec(code, module.__dict__)

        modules.uninstall()
        if variant == "floor":
            return modules.execution, execute
        sys.meta_path.insert(0, Bare({name: code for name, _, code in pairs}))
        return modules.execution, lambda: load(wanted)
    if variant == "frozen":
        gc.collect()
        gc.freeze()
    if variant == "snapshot":

        def begin() -> None:
            with modules.execution():
                load(wanted)

        return nullcontext, begin
    if variant == "changed":
        writer = ModuleWriter(url)
        turn = iter(range(1_000_000))

        def save():  # type: ignore[no-untyped-def]
            writer.set(CachedModule(f"x = {next(turn)}\n", "library/bench_changed.py"))
            return modules.execution()

        return save, lambda: load([*wanted, "library.bench_changed"])
    return modules.execution, lambda: load(wanted)


def fresh(variant: str, directory: str, url: str) -> None:
    """Imports the workspace in a process that has just started."""
    wanted = names(files())
    start = cpu()
    if variant == "specification":
        import specification_hook

        specification_hook.install(url)
        load(wanted)
    elif variant == "fresh_disk":
        sys.path.insert(0, directory)
        load(wanted)
    else:
        from bifrost_module_cache import Modules

        modules = Modules(url)
        modules.install()
        if variant == "fresh":
            with modules.execution():
                load(wanted)
        else:
            load(wanted)
    print(cpu() - start)


def miss(url: str) -> None:
    """What a name that no finder has costs the finder, beside what CPython's own takes for it."""
    import timeit
    from importlib.machinery import PathFinder

    from bifrost_module_cache import Modules

    modules = Modules(url)
    finder = modules.install()
    with modules.execution():
        number = 20_000
        times = [
            timeit.timeit(lambda: finder.find_spec("nothing_at_all", None), number=number)
            for _ in range(7)
        ]
        hits = [
            timeit.timeit(lambda: finder.find_spec("library.bisect", ["/bifrost/library"]), number=number)
            for _ in range(7)
        ]
        paths = [
            timeit.timeit(lambda: PathFinder.find_spec("nothing_at_all", None), number=2_000)
            for _ in range(7)
        ]
    print(json.dumps([min(times) / number, min(hits) / number, min(paths) / 2_000]))


def main() -> None:
    from support.servers import Redis
    from support.workspaces import publish, write

    workspace = files()
    server = Redis()
    with tempfile.TemporaryDirectory() as directory:
        try:
            publish(server.url, workspace)
            write(Path(directory), workspace)
            # Writes the .pyc files.
            subprocess.run(
                [sys.executable, "-m", "compileall", "-q", directory], check=True
            )
            size = sum(len(source.encode()) for source in workspace.values())
            print(f"{len(workspace)} modules, {size / 1e6:.2f} MB, CPython {sys.version.split()[0]}")
            run_all(directory, server.url)
        finally:
            server.close()


def run_all(directory: str, url: str) -> None:
    # From 3.12 on, a fork beside the thread that follows Redis warns.
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", __file__]
    servers = {
        name: subprocess.Popen(
            [*arguments, "serve", variant, directory, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name, variant in FORKED.items()
    }
    for server in servers.values():
        assert server.stdout and server.stdout.readline() == "ready\n"
    times: dict[str, list[float]] = {name: [] for name in [*FORKED, *FRESH]}
    for turn in range(ROUNDS):
        order = list(servers.items())
        order = order[turn % len(order) :] + order[: turn % len(order)]
        for name, server in order:
            assert server.stdin and server.stdout
            server.stdin.write("\n")
            server.stdin.flush()
            times[name].append(float(server.stdout.readline()))
    for server in servers.values():
        assert server.stdin
        server.stdin.close()
        server.wait()
    for _ in range(FRESH_ROUNDS):
        for name, variant in FRESH.items():
            done = subprocess.run(
                [*arguments, "fresh", variant, directory, url],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            times[name].append(float(done.stdout))
    show(times)
    done = subprocess.run([*arguments, "miss", url], check=True, stdout=subprocess.PIPE, text=True)
    of_miss, of_hit, of_path = json.loads(done.stdout)
    print(f"a miss of the finder {of_miss * 1e6:.2f} µs, a hit {of_hit * 1e6:.2f} µs; PathFinder's miss {of_path * 1e6:.0f} µs")


def show(times: dict[str, list[float]]) -> None:
    floor_name = next(name for name, variant in FORKED.items() if variant == "floor")
    print(f"{'forked child, imports everything':50} {'ms':>7} {'× disk':>7} {'× floor':>8}")
    for name in FORKED:
        disk = ratio(times[name], times[DISK])
        floor = ratio(times[name], times[floor_name])
        print(f"{name:50} {statistics.median(times[name]) * 1e3:7.1f} {disk:7.2f} {floor:8.2f}")
    print(f"{'fresh process':50} {'ms':>7} {'× spec.':>7}")
    for name in FRESH:
        part = ratio(times[name], times[SPECIFICATION])
        print(f"{name:50} {statistics.median(times[name]) * 1e3:7.1f} {part:7.2f}")


def ratio(times: list[float], others: list[float]) -> float:
    """The median of the ratios of the same rounds."""
    return statistics.median(one / other for one, other in zip(times, others, strict=True))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    elif sys.argv[1] == "miss":
        miss(sys.argv[2])
    elif sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    else:
        fresh(*sys.argv[2:])
