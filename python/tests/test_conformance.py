"""What Python answers over the cache is what it answers over a disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conformance.statements import STATEMENTS
from conformance.workspace import FILES
from support.servers import Redis
from support.workspaces import publish, write

RUNNER = Path(__file__).parent / "conformance" / "runner.py"
Answers = dict[str, dict[str, str]]


def answers_of(mode: str, place: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, str(RUNNER), mode, place],
        input=json.dumps(STATEMENTS),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


@pytest.fixture(scope="module")
def answers(_shared_redis: Redis, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    directory = tmp_path_factory.mktemp("workspace").resolve()
    write(directory, FILES)
    publish(_shared_redis.url, FILES)
    return {
        "disk": answers_of("disk", str(directory)),
        "execution": answers_of("execution", _shared_redis.url),
        "live": answers_of("live", _shared_redis.url),
    }


@pytest.mark.parametrize("mode", ["execution", "live"])
@pytest.mark.parametrize("statement", STATEMENTS)
def test_the_answer_is_that_of_a_disk(answers: Answers, statement: str, mode: str) -> None:
    assert answers[mode][statement] == answers["disk"][statement]


def test_the_statements_do_say_something(answers: Answers) -> None:
    assert all(answers["disk"].values())
    assert "at import" in answers["disk"]["a_traceback_of_an_import"]
    assert "importlib" not in answers["disk"]["a_traceback_of_an_import"]
