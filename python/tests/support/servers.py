"""Redis and Postgres on free ports, killed at the end. No test touches a server that it has not
started, and none is skipped when a program is missing: it fails and says what to install."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

PATIENCE = 30.0

# The two users of docs/security.md.
ACL_PAGE = Path(__file__).parents[3] / "docs" / "security.md"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(what: str, condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"in vain waited until {what}"
        time.sleep(0.01)


class Redis:
    """A Redis server."""

    def __init__(self) -> None:
        program = os.environ.get("BIFROST_TEST_REDIS_SERVER", "redis-server")
        assert shutil.which(program), f"{program} is missing: apt-get install redis-server"
        self.program = program
        self.directory = tempfile.mkdtemp(prefix="bifrost-redis-")
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
            + ["--dir", self.directory, "--loglevel", "warning"],
            stdout=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,
        )
        wait_until("redis answers", self._answers)

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except redis.RedisError:
            return False

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def url_of(self, user: str) -> str:
        return f"redis://{user}:hunter2@127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, decode_responses=True)

    def calls(self) -> dict[str, int]:
        """How often each command was called since the counters were reset."""
        stats = self.client().info("commandstats")
        return {name.removeprefix("cmdstat_"): stat["calls"] for name, stat in stats.items()}

    def reset_calls(self) -> None:
        self.client().config_resetstat()

    def add_users(self) -> None:
        """The reader and the writer of the documentation."""
        is_old = self.client().info("server")["redis_version"].startswith("6.")
        for line in ACL_PAGE.read_text().splitlines():
            if line.startswith("ACL SETUSER"):
                # As the page says for Redis 6.2.
                line = line.replace("%R~", "~") if is_old else line
                self.client().execute_command(*line.replace(">PASSWORD", ">hunter2").split())

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP: it is there, and says nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


class Postgres:
    """A Postgres server, with the superuser postgres, no password, and no care for durability."""

    TABLE = """
        CREATE TABLE workspace_files (
            id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
            path varchar(1000) UNIQUE NOT NULL,
            content text,
            content_hash varchar(64),
            entity_type varchar(20),
            is_deleted boolean NOT NULL DEFAULT FALSE,
            updated_at timestamp NOT NULL DEFAULT now()
        )
    """

    def __init__(self) -> None:
        binaries = os.environ.get("BIFROST_TEST_PG_BIN") or _newest_postgres()
        self.directory = tempfile.mkdtemp(prefix="bifrost-postgres-")
        self.port = free_port()
        # It refuses to run as root.
        user = _other_user() if os.geteuid() == 0 else None
        if user is not None:
            shutil.chown(self.directory, user)
        subprocess.run(
            [f"{binaries}/initdb", "-D", f"{self.directory}/data", "-U", "postgres"]
            + ["-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            user=user,
        )
        settings = ["fsync=off", "synchronous_commit=off", "listen_addresses=127.0.0.1"]
        settings += [f"port={self.port}", f"unix_socket_directories={self.directory}"]
        self.process = subprocess.Popen(
            [f"{binaries}/postgres", "-D", f"{self.directory}/data"]
            + [word for setting in settings for word in ("-c", setting)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
        )
        wait_until("postgres answers", self._answers)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"

    def empty_table(self) -> None:
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("DROP TABLE IF EXISTS workspace_files")
            connection.execute(self.TABLE)

    def close(self) -> None:
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Proxy:
    """Stands before a server, and counts the requests: each piece that a client sends."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.pieces = 0
        self.connections = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self.open += [client, server]
            for source, sink, counts in ((client, server, True), (server, client, False)):
                arguments = (source, sink, counts)
                threading.Thread(target=self._pump, args=arguments, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, counts: bool) -> None:
        try:
            while data := source.recv(65536):
                self.pieces += counts
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for end in self.open:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()


def _newest_postgres() -> str:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: float(path.split("/")[4]))
    if found:
        return found[-1]
    program = shutil.which("postgres")
    assert program, "postgres is missing: apt-get install postgresql"
    return os.path.dirname(program)


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("postgres needs a user that is not root")


def _die_with_parent() -> None:
    """So that no server outlives a test run that was killed."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
