"""What was found out about a text: a weight per word or character, and the ways to read and keep it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, final

from torch import Tensor

from .result import AbstractResult
from .text_pieces import Pieces


@final
@dataclass(frozen=True, eq=False, repr=False)
class TextExplanation(AbstractResult):
    """The weights of the words (or characters) of one text, for one target.

    Attributes:
        pieces: the text and its features: `pieces.text`, `pieces.names`, `pieces.spans`.
        weights: (features,) float64, in units of the score; positive speaks for the target. 0 where a method selects.
        target: the class, or the name of the callable that was explained.
        score: of the whole text.
        outputs: (K,) all class scores of the whole text.
        method: the method with its settings, as it prints itself.
        evaluations: texts that the classifier was asked about.
        top_k: how many features `as_list` gives unless told otherwise.
        standard_error: (features,) of the weights, for estimators; None otherwise.
        fit: weighted R² of the surrogate; None where none is fitted.
        completeness_gap: sum of the weights minus what it should sum to; None where nothing is promised.
        seconds: wall-clock of the call.
        classes: names of the outputs; None where they have none.
    """

    _file: ClassVar[str] = "text_explanation.safetensors"
    _main: ClassVar[str] = "weights"

    pieces: Pieces
    weights: Tensor
    target: int | str
    score: float
    outputs: Tensor | None
    method: str
    evaluations: int
    top_k: int
    standard_error: Tensor | None = None
    fit: float | None = None
    completeness_gap: float | None = None
    seconds: float = 0.0
    classes: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """The text that was explained."""
        return self.pieces.text

    @property
    def target_name(self) -> str:
        """What was explained, in words."""
        if isinstance(self.target, str):
            return self.target
        return self.classes[self.target] if self.classes else f"class {self.target}"

    def __repr__(self) -> str:
        return f"<TextExplanation by {self.method}: {len(self.pieces)} features, {self.target_name} {self.score:.3g}>"

    def as_list(self, top_k: int | None = None) -> list[tuple[str, float]]:
        """The features with the largest weights, either way, as (word, weight): at most `top_k`, largest first.

        None takes as many as the method was made for; features of weight 0 are left out.
        """
        weights = self.weights.tolist()
        order = sorted(range(len(weights)), key=lambda i: -abs(weights[i]))
        return [(self.pieces.names[i], weights[i]) for i in order[: top_k or self.top_k] if weights[i]]

    def as_html(self) -> str:
        """The text as one static page, coloured by the weights of all its features; asks nothing of the network."""
        from xai_fast.report.text import Passage, text_page

        weights = self.weights.tolist()
        passages = sorted(
            Passage(start, end, weight)
            for spans, weight in zip(self.pieces.spans, weights, strict=True)
            for start, end in spans
        )
        facts = {"score": f"{self.score:.4g}", "fit (R²)": None if self.fit is None else f"{self.fit:.3f}"}
        return text_page(
            self.text,
            passages,
            title=self.target_name,
            method=self.method,
            strongest=self.as_list(),
            facts={name: fact for name, fact in facts.items() if fact is not None},
        )

    def _repr_html_(self) -> str:
        return self.as_html()

    def save(self, directory: str | Path, *, name: str | None = None) -> Path:
        """Writes everything into `directory`/text_explanation.safetensors, and the page beside it as .html.

        Returns the path of the former. Files are complete or absent, never half-written.
        """
        from xai_fast.report import write_atomically

        page = self.as_html().encode()
        write_atomically((Path(directory) / (name or self._file)).with_suffix(".html"), lambda file: file.write(page))
        return super().save(directory, name=name)
