"""The methods of an audit on one engine: what they share is run once, and every answer repeats to the byte."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xai_fast.core.memory import out_of_memory
from xai_fast.engine import Engine, Recipe
from xai_fast.engine.evaluate import LayerActivation
from xai_fast.engine.finite import NonFiniteError
from xai_fast.engine.plan import HALVINGS, halved
from xai_fast.engine.reducers.clean import clean_scores
from xai_fast.images.preprocess import Preprocess
from xai_fast.methods.base import AbstractMethod
from xai_fast.methods.registry import methods as registered

from .answers import NOT_FINITE, Answer
from .decoding.pool import Decoded
from .identity import identity
from .inputs import input_of
from .noise import Noise
from .noting import keep, note
from .settling import settled
from .store.schema import OK
from .together import Together

_PER_CALL = {"cpu": 32, "cuda": 128}  # images whose rows share the model's batches


@dataclass(frozen=True)
class _Group:
    """Methods that take one pass; none where only predictions and embeddings are asked for."""

    members: tuple[tuple[str, AbstractMethod], ...]
    together: bool = True  # on clean inputs that are run once for all of them; else a method's own run
    truth: bool = False  # whether the target is the label


class EngineAttributor:
    """Methods on an engine; see `Attributor`.

    Args:
        engine: of the model, which times nothing (see `Decisions`) and does not look whether the model changes.
        methods: by their labels, made for that engine.
        labels: class indices by the names of labels.
        target: a class, "label" (the label where there is one, else the prediction), or None (the prediction).
        example: (1, C, H, W) an input, on which the model is made ready and "auto" layers are settled.
        fixed_size: whether all inputs have the example's shape.
        noise: of copies on which some maps are made once more; None for none.
        masks: whether masks are kept beside the maps; said in the plan.
    """

    def __init__(
        self,
        engine: Engine,
        methods: Mapping[str, AbstractMethod],
        labels: Mapping[str, int],
        target: int | str | None,
        example: Tensor,
        *,
        fixed_size: bool,
        noise: Noise | None = None,
        masks: bool = False,
    ) -> None:
        self._engine, self._labels, self._target, self._fixed_size = engine, labels, target, fixed_size
        self._noise, self._masks = noise, masks
        self._methods = {label: settled(method, engine, example) for label, method in methods.items()}
        self._embeds = self._embedded(example)
        self._groups = self._grouped(example)
        self._device = str(engine.adopt(example).device)
        self.example = tuple(example.shape[1:])
        labelled = next(iter(labels.values()), 0)
        self._first = self._answer_about(example[0], labelled)
        self.rows_per_image = sum(method.cost(self.example).forwards for method in self._methods.values())

    def _answer_about(self, example: Tensor, label: int) -> Answer:
        """What an answer looks like, with as many rows at once as fit."""
        for halvings in range(HALVINGS):
            try:
                (answer,) = self([example], [0], [label], halvings)
                return answer
            except MemoryError:
                continue
        raise ValueError("memory runs out on the first image, however few rows run together; give smaller images")

    def measure(self, example: Tensor) -> None:
        """Runs a full batch twice, so that the engine finds out what is fast."""
        count = _PER_CALL.get(torch.device(self._device).type, _PER_CALL["cuda"])
        label = next(iter(self._labels.values()), 0)
        for _ in range(2):
            self([example[0]] * count, list(range(count)), [label] * count)

    def described(self) -> dict[str, Any]:
        """See `Attributor`."""
        first, engine = self._first, self._engine
        return {
            "model": identity(engine.model),
            "outputs": None if first.outputs is None else len(first.outputs),
            "input": list(self.example) if self._fixed_size else None,
            "methods": [
                {
                    "label": label,
                    "method": repr(method),
                    "map": list(first.maps[label].shape) if self._fixed_size and label in first.maps else None,
                    "signed": method.signed,
                    "class_specific": method.class_specific,
                    "units": method.units,
                }
                for label, method in self._methods.items()
            ],
            "shared_passes": [[label for label, _ in group.members] for group in self._groups],
            "embedding": None if first.embedding is None else len(first.embedding),
            "embedding_layer": self._embeds,
            "target": self._target,
            "labels": dict(self._labels),
            "images_per_call": _PER_CALL.get(torch.device(self._device).type, _PER_CALL["cuda"]),
            "mode": engine.settings.mode,
            "plan": engine.settings.plan,
            "batch_size": engine.settings.batch_size,
            "deterministic": engine.settings.deterministic,
            "preprocess": self.preprocess or "a callable",
            "device": torch.device(self._device).type,
            **({"noise": dataclasses.asdict(self._noise)} if self._noise is not None else {}),
            **({"masks": True} if self._masks else {}),
        }

    @property
    def preprocess(self) -> dict[str, Any] | None:
        """See `Attributor`."""
        found = self._engine.preprocess
        return json.loads(json.dumps(dataclasses.asdict(found))) if isinstance(found, Preprocess) else None

    def input_of(self, photo: Decoded) -> Tensor:
        """See `Attributor`."""
        return input_of(photo.pixels, self._engine.preprocess)

    def __call__(
        self, inputs: Sequence[Tensor], ids: Sequence[int], labels: Sequence[int | None], halvings: int = 0
    ) -> list[Answer]:
        """See `Attributor`."""
        try:
            with halved(halvings):
                answers = self._each(inputs, ids, labels)
                if self._noise is not None:
                    self._ask_noisy(self._noise, inputs, ids, labels, answers)
                return answers
        except Exception as error:
            if not out_of_memory(error):
                raise
        # Outside the handler: the traceback of the error held on to the batch.
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        raise MemoryError("memory ran out")

    def _each(
        self,
        inputs: Sequence[Tensor],
        ids: Sequence[int],
        labels: Sequence[int | None],
        targets: Sequence[int | None] | None = None,
    ) -> list[Answer]:
        """Answers, about `targets` or the run's; where the model answers NaN, the others are asked again."""
        answers, left = [Answer() for _ in inputs], self._parts(labels)
        batch, keys = torch.stack(list(inputs)), torch.tensor(ids)
        while left:
            part = left.pop(0)
            try:
                asked = None if targets is None else [targets[n] for n in part]
                found = self._answered(batch[part], keys[part], [labels[n] for n in part], asked)
                for n, answer in zip(part, found, strict=True):
                    answers[n] = answer
            except NonFiniteError as error:
                broken = {part[sample] for sample in error.samples}
                for n in broken:
                    answers[n] = Answer(status=NOT_FINITE, error="the model answered NaN or Inf")
                left += [again] if (again := [n for n in part if n not in broken]) else []
        return answers

    def _parts(self, labels: Sequence[int | None]) -> list[list[int]]:
        """Places of images that are asked about together: where labels count, apart from those that have none."""
        counts = self._target == "label" or any(group.truth for group in self._groups)
        known = [n for n, label in enumerate(labels) if label is not None or not counts]
        unknown = [n for n, label in enumerate(labels) if label is None and counts]
        return [part for part in (known, unknown) if part]

    def _ask_noisy(
        self,
        noise: Noise,
        inputs: Sequence[Tensor],
        ids: Sequence[int],
        labels: Sequence[int | None],
        answers: Sequence[Answer],
    ) -> None:
        """Adds to answers what noisy copies of their images give, about the same classes; nothing where that is NaN."""
        places = [n for n in noise.chosen(ids) if answers[n].status == OK]
        if not places:
            return
        keys = [ids[n] for n in places]
        copies = list(noise.added(torch.stack([inputs[n] for n in places]), torch.tensor(keys)))
        targets = [answers[n].target for n in places]
        found = self._each(copies, keys, [labels[n] for n in places], None if None in targets else targets)
        for n, copy in zip(places, found, strict=True):
            answers[n].noisy_maps = {label: one for label, one in copy.maps.items() if label in answers[n].maps}
            if copy.outputs is not None:
                scores = copy.outputs if len(copy.outputs) > 1 else np.array([0.0, copy.outputs[0]])
                answers[n].noisy_prediction = int(scores.argmax())

    def _answered(
        self, inputs: Tensor, ids: Tensor, labels: Sequence[int | None], targets: Sequence[int | None] | None = None
    ) -> list[Answer]:
        answers = [Answer() for _ in inputs]
        target: Any = self._target if self._target != "label" else None
        if targets is not None:
            target = torch.tensor(targets)
        elif self._target == "label" and None not in labels:
            target = torch.tensor(labels)
        for group in self._groups:
            if group.together:
                target = self._together(group, inputs, ids, target, answers)
            elif not group.truth or None not in labels:  # what is asked of the truth has no map where that is unknown
                asked = torch.tensor(labels) if group.truth else target
                explained = self._alone(group, inputs, ids, asked, answers)
                target = target if group.truth else explained
        return answers

    def _together(self, group: _Group, inputs: Tensor, ids: Tensor, target: Any, answers: list[Answer]) -> Any:
        """One clean pass for several methods; returns the classes that were explained."""
        shared: list[Together] = []

        def recipe_of(adopted: Tensor) -> Recipe:
            recipes = [method.recipe(adopted, "native", ids) for _, method in group.members] or [self._plain()]
            shared.append(Together(recipes, self._embeds if self._embeds in recipes[0].clean.layers else None))
            return dataclasses.replace(recipes[0], reduce=shared[0])

        outcome, objective = self._engine.run(recipe_of, inputs, target)
        embedding = torch.cat(shared[0].embedding).numpy() if shared[0].embedding else None
        for n, answer in enumerate(answers):
            answer.embedding = embedding[n] if embedding is not None and answer.embedding is None else answer.embedding
        maps = [outcome.values, *(maps[:, 0] for maps in shared[0].maps[1:])]
        for (label, method), values in zip(group.members, maps[: len(group.members)], strict=True):
            keep(answers, label, values.sum(1) if method.signed else values.amax(1), outcome.evaluations)
        return note(answers, outcome.outputs, objective.record)

    def _alone(self, group: _Group, inputs: Tensor, ids: Tensor, target: Any, answers: list[Answer]) -> Any:
        """A method's own run; returns the classes that were explained."""
        ((label, method),) = group.members
        found = method(inputs, target, resolution="native", sample_ids=ids)
        keep(answers, label, found.heatmap(), found.evaluations)
        return note(answers, found.outputs, found.target)

    def _plain(self) -> Recipe:
        """The scores, and the layer that is embedded."""
        assert self._embeds is not None
        return Recipe(clean_scores(), clean=LayerActivation((self._embeds,)))

    def _embedded(self, example: Tensor) -> str | None:
        """The layer whose mean over positions is kept: the deepest that a method looks at, else that "auto" means."""
        looked = [layer for method in self._methods.values() for layer in method.layers(example)]
        if looked:
            return looked[-1]
        if not isinstance(self._engine.model, nn.Module):
            return None
        try:
            return self._engine.layers("auto", example)[-1]
        except (ValueError, TypeError):  # no layer of it is a grid
            return None

    def _grouped(self, example: Tensor) -> list[_Group]:
        """Methods in the order of their passes; the one that embeds comes first."""
        adopted, ids = self._engine.adopt(example), torch.zeros(1, dtype=torch.long)
        shared: dict[Any, list[tuple[str, AbstractMethod]]] = {}
        alone = []
        for label, method in self._methods.items():
            info = registered().get(type(method).__name__)
            truth = info is not None and info.asks_truth
            with self._engine.turn():
                recipe = method.recipe(adopted, "native", ids)
            more = recipe.variants is not None or recipe.change is not None or recipe.then is not None
            if truth or more or recipe.unfolded or not method.asks_the_target:
                alone.append(_Group(((label, method),), together=False, truth=truth))
            else:
                shared.setdefault(recipe.clean, []).append((label, method))
        first = [clean for clean in shared if self._embeds in clean.layers]
        plain = [_Group(())] if self._embeds is not None and not first else []
        ordered = [*first, *(clean for clean in shared if clean not in first)]
        return [*plain, *(_Group(tuple(shared[clean])) for clean in ordered), *alone]
