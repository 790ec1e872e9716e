"""Plain redis-py and psycopg writers that do everything wrong, beside `bifrost-modules guard`: how long did
each wrong entry live? `guard.py TOOL`; the end of `make demo`."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import psycopg  # noqa: E402
from support.servers import Postgres, Redis, wait_until  # noqa: E402
from workspace import files  # noqa: E402

KEY, INDEX = "bifrost:module:", "bifrost:module:index"
POLL_MS = 200
EACH = 40


class Services:
    """Services as they should not be."""

    def __init__(self, redis: Redis, database: str) -> None:
        self.redis = redis.client()
        self.table = psycopg.connect(database, autocommit=True)
        self.paths: list[str] = []
        self.undone = 0

    def fill(self, modules: dict[str, str]) -> None:
        self.paths = list(modules)
        with self.table.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO workspace_files (path, content, content_hash, entity_type) VALUES (%s, %s, '', 'module')",
                list(modules.items()),
            )

    def row(self, path: str) -> str | None:
        found = self.table.execute(
            "SELECT content FROM workspace_files WHERE path = %s AND NOT is_deleted", [path]
        ).fetchone()
        return found and found[0]

    def entry(self, path: str) -> str | None:
        value = self.redis.get(KEY + path)
        return json.loads(value)["content"] if value else None

    def is_right(self, path: str) -> bool:
        row = self.row(path)
        listed = bool(self.redis.sismember(INDEX, path))
        return self.entry(path) == row and listed == (row is not None)

    def save(self, path: str, content: str) -> None:
        self.table.execute("UPDATE workspace_files SET content = %s WHERE path = %s", [content, path])

    def set(self, path: str, content: str) -> None:
        self.redis.set(KEY + path, json.dumps({"content": content, "path": path, "hash": ""}))
        self.redis.sadd(INDEX, path)

    # Each does something wrong with a path; how long that lives is measured from its end on.

    def forget_the_cache(self, path: str) -> None:
        self.save(path, f"# saved {random.random()}\n")

    def write_an_older_one(self, path: str) -> None:
        self.set(path, "# an older version\n")

    def commit_then_set_too_late(self, path: str) -> None:
        self.save(path, f"# newer {random.random()}\n")
        self.set(path, "# older, and later\n")

    def set_then_roll_back(self, path: str) -> None:
        with self.table.transaction(force_rollback=True):
            self.save(path, "# never committed\n")
            self.set(path, "# never committed\n")

    def set_long_before_the_commit(self, path: str) -> None:
        """Not wrong, but it looks so for a while: it must not be undone."""
        content = f"# early {random.random()}\n"
        with self.table.transaction():
            self.save(path, content)
            self.set(path, content)
            end = time.monotonic() + 0.05
            while time.monotonic() < end:
                self.undone += self.entry(path) != content

    def delete_the_key(self, path: str) -> None:
        self.redis.delete(KEY + path)

    def forget_the_index(self, path: str) -> None:
        self.redis.srem(INDEX, path)

    def let_it_expire(self, path: str) -> None:
        self.redis.set(KEY + path, json.dumps({"content": "# soon gone\n", "path": path, "hash": ""}), ex=1)

    def write_nonsense(self, path: str) -> None:
        self.redis.set(KEY + path, "{not json")

    def delete_the_row(self, path: str) -> None:
        self.table.execute("UPDATE workspace_files SET is_deleted = TRUE WHERE path = %s", [path])

    def flush(self, path: str) -> None:
        self.redis.flushall()


def lives(services: Services, wrong: Callable[[str], None], path: str) -> float:
    wrong(path)
    start = time.monotonic()
    while True:
        try:
            if services.is_right(path):
                return (time.monotonic() - start) * 1_000
        except json.JSONDecodeError:
            pass
        assert time.monotonic() - start < 30, f"{wrong.__name__}: {path} is still wrong"


def main(tool: str) -> None:
    redis, postgres = Redis(), Postgres()
    guard = None
    try:
        services = Services(redis, postgres.url)
        services.table.execute(Postgres.TABLE)
        modules = {f"{copy}/{path}": content for copy in range(20) for path, content in files().items()}
        services.fill(modules)
        command = [tool, "--redis-url", redis.url, "--database-url", postgres.url]
        guard = subprocess.Popen([*command, "guard", "--poll", f"{POLL_MS}ms", "--quiet"])
        wait_until("the guard guards", lambda: services.redis.exists("bifrost:module-cache:guard") == 1)
        print(f"guard      {len(modules)} modules, the database asked for changed rows each {POLL_MS} ms, no triggers")
        told: dict[str, list[float]] = defaultdict(list)
        kinds = [getattr(services, name) for name in vars(Services) if name in KINDS]
        turns = [(kind, number) for kind in kinds for number in range(1 if kind.__name__ == "flush" else EACH)]
        random.seed(1)
        random.shuffle(turns)
        for path, (kind, _) in zip(random.sample(services.paths, len(turns)), turns, strict=True):
            told[kind.__name__].append(lives(services, kind, path))
        for name, times in sorted(told.items(), key=lambda item: statistics.median(item[1])):
            times.sort()
            print(
                f"           {name.replace('_', ' '):<28} {len(times):>3} times, wrong for {statistics.median(times):>7.1f} ms,"
                f" at worst {times[-1]:>7.1f} ms"
            )
        print(f"           what was set before its commit was undone {services.undone} times")
        assert services.undone == 0
        guard.terminate()
        assert guard.wait(timeout=30) == 0, "SIGTERM ends it cleanly"
        subprocess.run([*command, "verify", "--quiet"], check=True)
        print("           and in the end the cache equals the database")
    finally:
        if guard is not None and guard.poll() is None:
            guard.kill()
        redis.close()
        postgres.close()


KINDS = {
    "forget_the_cache",
    "write_an_older_one",
    "commit_then_set_too_late",
    "set_then_roll_back",
    "set_long_before_the_commit",
    "delete_the_key",
    "forget_the_index",
    "let_it_expire",
    "write_nonsense",
    "delete_the_row",
    "flush",
}

if __name__ == "__main__":
    main(sys.argv[1])
