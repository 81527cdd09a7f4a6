"""What was timed or fixed for a model, in one record: printed, saved, and given back so that a run can be repeated."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import torch

from xai_fast.graph.timed import Record

BATCH_SIZE = "rows per forward"
PLAN = "plan"
TIER = "tier"
RATES = "seconds of steps"
MEMORY = "memory"
_VERSION = 1


@dataclass
class Decisions(Record):
    """Everything that could send a model down another way in another run: one record per model.

    `entries` holds, by question and case: the rows per forward of each kind of question and input shape, whether half
    precision and packed linear layers are faster, on which tier calls ran, the seconds of every step from which local
    plans choose after which step whole maps are cheaper, and plans that turned out slower than estimated. Whether a
    step runs by minimal filtering depends on its sizes alone. An engine that is given a record times nothing: what does
    not stand in it is settled by fixed rules from model, shape and device, so that an empty record makes every process
    decide alike. That memory ran out, and batches were halved, is noted as well.
    """

    def to_json(self) -> str:
        """As text, with the version of torch and the number of threads for which it was made."""
        made = {"torch": str(torch.__version__), "threads": torch.get_num_threads()}
        return json.dumps({"version": _VERSION, "made": made, "entries": self.entries}, indent=1, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Decisions:
        """The record of a text that `to_json` wrote.

        Raises:
            ValueError: it is none.
        """
        try:
            found = json.loads(text)
        except (TypeError, ValueError):
            found = None
        if not isinstance(found, dict) or found.get("version") != _VERSION or not _fits(found.get("entries")):
            raise ValueError("`text` holds no decisions of this version; give what `Decisions.to_json` returned")
        return Decisions(found["entries"])

    def repeated(self) -> Decisions:
        """A copy of its own for a run that is to repeat it."""
        return Decisions(copy.deepcopy(self.entries), given=True)

    def lines(self, shape: tuple[int, ...]) -> list[str]:
        """What is decided for inputs of shape (C, *S), and for all shapes, for people."""
        found = []
        for question, answers in sorted(self.entries.items()):
            for case, answer in sorted(answers.items()):
                if case.startswith("(") and not case.startswith(str(shape)):
                    continue
                found.append(f"{question}, {case}: {_in_words(question, answer)}")
        return found

    def __str__(self) -> str:
        count = sum(map(len, self.entries.values()))
        return f"Decisions({count} answers{', given' if self.given else ''})"


def checked_decisions(decisions: Decisions | None) -> Decisions | None:
    """The argument, if it is a record.

    Raises:
        TypeError: it is none.
    """
    if decisions is not None and not isinstance(decisions, Decisions):  # type: ignore[reportUnnecessaryIsInstance]
        came = type(decisions).__name__
        raise TypeError(f"`decisions` came as {came}; give `engine.decisions`, or `Decisions.from_json(text)`")
    return decisions


def _fits(entries: Any) -> bool:
    return isinstance(entries, dict) and all(isinstance(answers, dict) for answers in entries.values())


def _in_words(question: str, answer: Any) -> str:
    if question == RATES:
        return f"{sum(answer['steps'].values()) * 1e3:.1f} ms a row in {len(answer['steps'])} steps"
    return {True: "yes", False: "no"}.get(answer, str(answer)) if isinstance(answer, bool) else str(answer)
