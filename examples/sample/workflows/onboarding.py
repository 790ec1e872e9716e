"""A workflow: imports are served from the cache."""

from shared.halopsa import open_ticket
from shared.texts import greet


def run(name: str, language: str = "en") -> str:
    ticket = open_ticket(1, f"Account for {name}")
    return f"{greet(language, name)} (#{ticket.number})"
