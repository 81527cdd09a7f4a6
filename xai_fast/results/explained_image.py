"""One image and what several methods said of it: its panels side by side, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor

from xai_fast.core.scores import probabilities
from xai_fast.report import Failure, Item, Map, Panel, Row, Scale, figure, save_png

from .explanation import Explanation


@dataclass(frozen=True)
class Label:
    """What a method is called in one run, where another of its name may stand beside it.

    Attributes:
        file: part of its files' names, unique in the run.
        title: for people; with the settings that tell it apart.
    """

    file: str
    title: str


def suffixes_of(labels: tuple[Label, ...], n_targets: int) -> list[str]:
    """What `ExplainedImage.save` puts behind the stem, for maps of at most that many targets."""
    pictures = ["", *(f".{k}" for k in range(n_targets if n_targets > 1 else 0))]
    maps = [f".{label.file}{end}" for label in labels for end in (*(f"{k}.png" for k in pictures), ".safetensors")]
    return [".png", ".photo.png", *maps]


@dataclass(frozen=True, eq=False)
class ExplainedImage:
    """One image and what the methods said of it.

    Attributes:
        name: the file's stem, or "image-1" and so on.
        view: the picture that the model saw.
        explanations: one per method that did not fail, in the order asked for.
        failures: methods that failed on this image, with the reason.
        seconds: wall-clock of all methods together, preparation included.
        labels: one per explanation.
        source: the file it came from; None for what came otherwise.
    """

    name: str
    view: Image.Image
    explanations: tuple[Explanation, ...]
    failures: tuple[Failure, ...]
    seconds: float
    labels: tuple[Label, ...]
    source: Path | None = None

    @property
    def evaluations(self) -> int:
        """Model rows used by all methods together."""
        return sum(int(explanation.evaluations.sum()) for explanation in self.explanations)

    @property
    def n_targets(self) -> int:
        """The most targets that any of its maps has."""
        return max((e.score[0].numel() for e in self.explanations), default=1)

    @property
    def prediction(self) -> tuple[str, float | None]:
        """The predicted class and its probability; ("", None) where the model has no classes.

        One logit is the sigmoid's; several outputs that already are probabilities are taken as they are.
        """
        outputs = next((e.outputs for e in self.explanations if e.outputs is not None), None)
        if outputs is None or not outputs.shape[1]:
            return "", None
        likely = _probabilities(outputs[0].double())
        best = int(likely.argmax())
        classes = self.explanations[0].classes
        return (classes[best] if classes and best < len(classes) else f"class {best}"), float(likely[best])

    def panels(self) -> list[Panel]:
        """The photo and every map, titled, for a side-by-side picture."""
        name, probability = self.prediction
        said = f"{name}, p = {probability:.2f}" if probability is not None else name
        maps = [
            panel
            for explanation, label in zip(self.explanations, self.labels, strict=True)
            for panel in explanation.panels([self.view], label.title)[0]
        ]
        return [Panel(self.view, self.name, said), *maps]

    def save(self, directory: Path, stem: str, *, side_by_side: bool = True) -> Item:
        """Writes the view, each map as picture and values, and the side-by-side picture; returns the page's entry.

        Whatever goes wrong, what was written of this image until then is removed again.
        """
        written: list[Path] = []
        try:
            if side_by_side:
                written.append(save_png(figure([Row(self.panels())]), directory / f"{stem}.png"))
            return self._save(directory, stem, written)
        except BaseException:
            for path in written:
                path.unlink(missing_ok=True)
            raise

    def _save(self, directory: Path, stem: str, written: list[Path]) -> Item:
        written.append(save_png(self.view, directory / f"{stem}.photo.png"))
        maps = []
        for explanation, label in zip(self.explanations, self.labels, strict=True):
            values = explanation.save(directory, name=f"{stem}.{label.file}.safetensors")
            written.append(values)
            drawn, targets = explanation.drawn([self.view]), explanation.target_names(0)
            scores = explanation.score[0].reshape(-1).tolist()
            for k, (one, target, score) in enumerate(zip(drawn, targets, scores, strict=True)):
                suffix = f".{k}" if len(drawn) > 1 else ""
                written.append(save_png(one.picture, directory / f"{stem}.{label.file}{suffix}.png"))
                maps.append(
                    Map(
                        method=label.title,
                        picture=written[-1].name,
                        target=target,
                        score=score,
                        layer=", ".join(explanation.layer),
                        seconds=explanation.seconds,
                        evaluations=int(explanation.evaluations.sum()),
                        note=_note(one.scale, explanation.units_in_words()),
                        values=values.name,
                    )
                )
        prediction, probability = self.prediction
        return Item(self.name, f"{stem}.photo.png", prediction, probability, maps)


def _probabilities(outputs: Tensor) -> Tensor:
    given = len(outputs) > 1 and bool((outputs >= 0).all()) and abs(float(outputs.sum()) - 1) < 1e-3
    return outputs if given else probabilities(outputs)


def _note(scale: Scale, units: str) -> str:
    low, _, high = scale.ticks()
    limits = "" if low == high else f"{low} to {high}"
    return ", ".join(part for part in (limits, units if limits else "", scale.note()) if part)
