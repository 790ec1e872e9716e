"""Tells the user of a failed execution why a module was not found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .errors import CacheError

if TYPE_CHECKING:
    from ._native import Diagnosis, Snapshot

__all__ = ["add_notes"]

_MEMBER = re.compile(r"cannot import name '(\w+)' from ")


def add_notes(
    error: BaseException, snapshot: Snapshot, explain: Callable[[str], Diagnosis]
) -> None:
    """Adds a note to each ``ImportError`` for a name of the workspace, along causes and contexts.

    A finder that raised it instead would break ``importlib.util.find_spec`` and optional imports.
    """
    for failure in chain(error):
        if not isinstance(failure, ImportError) or isinstance(failure, CacheError):
            continue
        name = failure.name
        if not name or snapshot.resolve(name.partition(".")[0]) is None:
            continue
        note = note_for(name, failure, snapshot, explain)
        if note is not None and note not in getattr(failure, "__notes__", ()):
            failure.add_note(note)


def note_for(
    name: str, failure: ImportError, snapshot: Snapshot, explain: Callable[[str], Diagnosis]
) -> str | None:
    """What there is to say; None if the cache has nothing to do with it."""
    why = snapshot.explain_name(name)
    if why.is_fine:
        # ``from shared import missing``: it is neither a module nor defined by one.
        member = getattr(failure, "name_from", None)
        found = _MEMBER.match(str(failure))
        member = member or (found and found.group(1))
        if not member:
            return None
        name = f"{name}.{member}"
        why = snapshot.explain_name(name)
        if why.is_fine:
            return None  # A circular import, and CPython says so itself.
    try:
        now = explain(name)
    except (CacheError, ValueError):
        return str(why)
    if now.is_fine:
        return f'"{name}" is newer than this execution: run it again'
    return str(now)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception with its causes, its contexts, and the members of groups."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        failure = waiting.pop()
        if failure is None or id(failure) in seen:
            continue
        seen.add(id(failure))
        yield failure
        waiting += [failure.__cause__, failure.__context__]
        if isinstance(failure, BaseExceptionGroup):
            waiting += failure.exceptions
