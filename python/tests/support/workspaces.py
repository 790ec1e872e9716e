"""Workspaces on a disk and in the cache, with the same files."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

from bifrost_module_cache import CachedModule, ModuleWriter

PYTHON = sys.executable


def publish(url: str, files: Mapping[str, str]) -> None:
    """Makes a Redis hold exactly these files."""
    modules = [CachedModule(content, path) for path, content in files.items()]
    ModuleWriter(url).publish_exact(modules, allow_empty=True, max_prune=1.0)


def write(directory: Path, files: Mapping[str, str]) -> None:
    """The same on a disk."""
    for path, content in files.items():
        file = directory / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode())


def run(
    script: str,
    *arguments: str,
    python: str = PYTHON,
    flags: tuple[str, ...] = (),
    timeout: float = 60,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a script in a Python of its own: what it imports is nobody else's."""
    done = subprocess.run(
        [python, "-W", "error", *flags, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=env,
        cwd=cwd,
    )
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done
