"""A client of a ticket system, as small as can be."""

from dataclasses import dataclass


@dataclass
class Ticket:
    number: int
    summary: str


def open_ticket(number: int, summary: str) -> Ticket:
    return Ticket(number, summary.strip())
