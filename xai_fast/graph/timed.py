"""What is found out by timing is written into the record in force, and read from it where it was written before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class Record:
    """Answers by question and case: numbers, truth values, words, and lists and dicts of them.

    Attributes:
        entries: by question, by case.
        given: whether they come from another run, which this one is to repeat: nothing is timed then, and what they do
            not hold is settled by fixed rules.
    """

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    given: bool = False

    def get(self, question: str, case: str) -> Any:
        """An answer; None where there is none."""
        return self.entries.get(question, {}).get(case)

    def put(self, question: str, case: str, answer: Any) -> None:
        """Writes an answer down."""
        self.entries.setdefault(question, {})[case] = answer


_IN_FORCE: ContextVar[Record | None] = ContextVar("timed", default=None)


@contextmanager
def recording(record: Record) -> Iterator[None]:
    """Puts a record in force, in this thread."""
    token = _IN_FORCE.set(record)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


def record() -> Record:
    """The record in force, or one that nobody keeps."""
    found = _IN_FORCE.get()
    return Record() if found is None else found


def decided(question: str, case: str, find_out: Callable[[], T], rule: Callable[[], T]) -> T:
    """The recorded answer; where there is none it is found out now, or by the rule in a given record, and written down.

    Args:
        question: what is asked.
        case: of what.
        find_out: times it.
        rule: settles it without timing, in the same way in every process.
    """
    known = record()
    answer = known.get(question, case)
    if answer is None:
        answer = rule() if known.given else find_out()
        known.put(question, case, answer)
    return answer
