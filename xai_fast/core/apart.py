"""Rows that depend on each other, told to whoever cannot use what each says alone: libraries ask about whole batches.

Whoever needs to know asks about a model before a call of the engine. Where that prepares the model, or has prepared it,
the answer is known anyway; on a plain copy, which runs rows one by one, it has to be found out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Question:
    """Whether rows of a model's batches are apart.

    Attributes:
        model: that is asked about.
        shape: of an input, (C, *S).
        find_out: says why they are not, or None, by running the model.
        take: is told what was found, and raises where that will not do.
    """

    model: Any
    shape: tuple[int, ...]
    find_out: Callable[[], str | None]
    take: Callable[[str | None], None]


@dataclass
class Questions:
    """Those of one call that have no answer yet."""

    left: list[Question] = field(default_factory=list)

    def settle(self) -> None:
        """Finds out what nothing has told."""
        while self.left:
            question = self.left.pop()
            question.take(question.find_out())


_QUESTIONS: ContextVar[Questions | None] = ContextVar("questions", default=None)


@contextmanager
def asking() -> Iterator[Questions]:
    """Inside of it questions may wait for the engine; those that are left in the end are settled."""
    questions = Questions()
    token = _QUESTIONS.set(questions)
    try:
        yield questions
        questions.settle()
    finally:
        _QUESTIONS.reset(token)


def ask(question: Question) -> None:
    """Asks the engine, which runs next, or finds out at once where nobody waits."""
    questions = _QUESTIONS.get() or Questions()
    questions.left.append(question)
    if questions is not _QUESTIONS.get():
        questions.settle()


def tell(model: Any, shape: tuple[int, ...], found: Callable[[Question], str | None]) -> None:
    """Answers what is asked about a model and inputs of a shape; whatever `take` raises leaves the engine."""
    questions = _QUESTIONS.get()
    if questions is None or not questions.left:
        return
    meant = [one for one in questions.left if one.model is model and one.shape == shape]
    questions.left = [one for one in questions.left if one not in meant]
    for question in meant:
        question.take(found(question))
