"""The examples for workers: each way to run executions, as a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest
from support.servers import Redis, free_port, wait_until
from support.workspaces import publish

from bifrost_module_cache import CachedModule, ModuleWriter

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = {
    "shared/__init__.py": "",
    "shared/value.py": "value = 1\n",
    "workflows/__init__.py": "",
    "workflows/good.py": "from shared.value import value\ndef main():\n    return value\n",
    "workflows/also.py": "def main():\n    import shared.value\n    return shared.value.value * 10\n",
    "workflows/bad.py": "import shared.nothing\n",
}
JOBS = ["workflows.good", "workflows.also"] * 3


@pytest.fixture
def program(redis_server: Redis, tmp_path: Path) -> Callable[[str], str]:
    publish(redis_server.url, FILES)

    def run(script: str) -> str:
        file = tmp_path / "program.py"
        # spawn imports it again.
        file.write_text(f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n" + dedent(script))
        environment = os.environ | {"REDIS_URL": redis_server.url}
        done = subprocess.run(
            [sys.executable, str(file)], env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_fork(program: Callable[[str], str]) -> None:
    output = program("""
        import worker_fork
        print(worker_fork.main(["workflows.good", "workflows.bad", "workflows.also"]))
    """)
    assert output.endswith("[0, 1, 0]\n") and "No module named 'shared.nothing'" in output


@pytest.mark.parametrize("how", ["forked", "spawned"])
def test_multiprocessing(program: Callable[[str], str], how: str) -> None:
    output = program(f"""
        import worker_multiprocessing as worker
        if __name__ == "__main__":
            print(worker.{how}({JOBS!r}))
    """)
    assert output == f"{[1, 10] * 3}\n"


def test_executor(program: Callable[[str], str]) -> None:
    output = program(f"""
        import worker_executor
        if __name__ == "__main__":
            print(worker_executor.main({JOBS!r}))
    """)
    assert output == f"{[1, 10] * 3}\n"


def test_threads(program: Callable[[str], str]) -> None:
    output = program(f"import worker_threads\nprint(worker_threads.main({JOBS!r}))")
    assert output == f"{[1, 10] * 3}\n"


def test_a_long_lived_worker_sees_what_is_saved(program: Callable[[str], str]) -> None:
    output = program("""
        import worker_long_lived
        from bifrost_module_cache import CachedModule, ModuleWriter
        runs = worker_long_lived.main(["workflows.good"] * 3)
        print(next(runs))
        ModuleWriter().set(CachedModule("value = 2", "shared/value.py"))
        print(next(runs), next(runs))
    """)
    assert output == "1\n2 2\n"


def test_gunicorn_with_preload(redis_server: Redis) -> None:
    publish(redis_server.url, FILES)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--preload", "--workers", "2", "--bind"]
        + [f"127.0.0.1:{port}", "--log-level", "error", "gunicorn_preload:application"],
        cwd=EXAMPLES,
        env=os.environ | {"REDIS_URL": redis_server.url},
    )

    def get(path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}") as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except (urllib.error.URLError, ConnectionError):
            return 0, ""

    try:
        wait_until("gunicorn answers", lambda: get("workflows/good")[0] != 0)
        assert {get("workflows/good") for _ in range(10)} == {(200, "1")}
        ModuleWriter(redis_server.url).set(CachedModule("value = 2", "shared/value.py"))
        assert {get("workflows/good") for _ in range(10)} == {(200, "2")}
        status, text = get("workflows/typo")
        assert status == 404 and "check the spelling" in text
    finally:
        process.terminate()
        process.wait(30)
