"""What the engine runs: a model made ready, with everything that is known about it."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from xai_fast.graph.captured import Captured
from xai_fast.graph.fused import Implementation, implementation_for
from xai_fast.graph.layout import LAYOUTS, ExactStatistics

from .apart import tell
from .borrowed import read_only
from .copies import copied, traits
from .draws import drawn_by, note
from .guard import own_model
from .layers import Recorded
from .rows import unlike
from .scores import named_parts
from .shelf import Shelves
from .snapshot import Path
from .verify import Footprint

HALVES = {"cpu": torch.bfloat16, "cuda": torch.float16}  # what "fast" computes in, by the device of a float32 model


def reducible(module: nn.Module) -> bool:
    """Whether "fast" may run a module in half precision: it has numbers, and all are float32.

    Where some are float64 somebody wanted their digits; halves cannot be halved, and go from one kind to another only
    with a loss.
    """
    tensors = (*module.parameters(), *module.buffers())
    return {tensor.dtype for tensor in tensors if tensor.is_floating_point() or tensor.is_complex()} == {torch.float32}


@dataclass
class Prepared:
    """What the engine runs. Call it with a batch in its dtype, device and layout; it answers as the model would.

    Attributes:
        module: the copy, or the caller's own object where that cannot be copied.
        compiled: the same through `torch.compile`, where that was asked for.
        copied: whether `module` is a copy.
        alone: whether every row runs by itself, because rows of a batch depend on each other.
        mixed: why they do; "" where they do not.
        dtype: of the batches it takes; None follows the inputs (a plain callable).
        device: of the batches it takes; None follows the inputs.
        channels_last: whether batches of images are laid out channels-last.
        folded: number of batch normalisations folded away.
        short_sums: whether long sums are kept exact at some cost (see `core.layout`).
        reducible: whether "fast" may use half precision: the model's numbers and what it returns are float32.
        reduced: whether it runs in half precision for speed.
        takes_statistics: whether it normalises by statistics of what it is given, which err in a channels-last layout.
        captured: per input shape, the model as a graph that was seen to give the same; absent where it resists.
        resists: why it is not captured; "" where it is.
        notes: why something faster was not done, one sentence each.
        seconds: what preparing cost, verification included.
        footprints: per input shape (C, *S) that was verified.
        outputs: per function that finds the scores, and input shape, how many a row has, once known. Held weakly: such
            a function may refer to the model, beside which this is kept.
        made: per input shape, what the engine has made of it: tails behind layers, plans, backward passes.
        draws: the global random generators that it was seen to draw from.
        exempt: where Python attributes of the caller's model may change, and what is prepared still is that model:
            what the forward leaves behind on every call, and what the copy shares with it and looks up when it runs.
        anchors: names of the layers that somebody looks at.
        borrows: whether the weights of `module` are the caller's own, to which its first forward must not write.
        recorded: a forward that has run, whose row is the only one to be asked about.
    """

    module: Callable[[Tensor], Any]
    copied: bool
    dtype: torch.dtype | None
    device: torch.device | None
    alone: bool = False
    mixed: str = ""
    channels_last: bool = False
    folded: int = 0
    short_sums: bool = False
    reducible: bool = False
    reduced: bool = False
    takes_statistics: bool = False
    captured: dict[tuple[int, ...], Captured] = field(default_factory=dict)
    resists: str = ""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    footprints: dict[tuple[int, ...], Footprint] = field(default_factory=dict)
    exempt: frozenset[Path] = frozenset()
    outputs: WeakKeyDictionary[Callable[..., Any], dict[tuple[int, ...], int]] = field(
        default_factory=WeakKeyDictionary, repr=False
    )
    made: dict[tuple[int, ...], Shelves] = field(default_factory=dict)
    anchors: frozenset[str] = frozenset()
    draws: set[str] = field(default_factory=set)
    compiled: Callable[[Tensor], Any] | None = None
    borrows: bool = False
    recorded: Recorded | None = None
    _unseen: bool = False

    def __call__(self, batch: Tensor, begin: Callable[[], None] = lambda: None) -> Any:
        """The model's raw output for a batch that `empty` or `adopt` made; `begin` as for `by_itself`."""
        if self._unseen:
            return self.by_itself(batch, begin)
        # A compiled module has no length and so no truth value.
        if self.compiled is not None:
            return self.compiled(batch)
        captured = self.captured.get(tuple(batch.shape[1:]))
        if captured is not None and captured.fuses and not torch.is_grad_enabled():
            return captured(batch)
        return self.module(batch)

    def by_itself(self, batch: Tensor, begin: Callable[[], None] = lambda: None) -> Any:
        """The same by the module's own forward, whatever was captured or compiled; `begin` comes before each run."""

        def run() -> Any:
            begin()
            return self.module(batch.clone(memory_format=torch.preserve_format) if unseen else batch)

        unseen, self._unseen = self._unseen, False
        if not unseen:
            return run()
        # It may write into its batch, which then has to be there once more.
        with read_only(self.module) if self.borrows and isinstance(self.module, nn.Module) else nullcontext():
            raw, draws = drawn_by(run)
        self.draws |= draws
        return raw

    def already(self, row: Tensor, layers: Sequence[str]) -> tuple[Any, list[Tensor]] | None:
        """The raw output for a row (1, C, *S), and what layers returned, parts of one graph, where it has run already.

        Only once, since a backward may free the graph.
        """
        recorded, self.recorded = self.recorded, None
        shown = None if recorded is None else recorded.answers(row, layers)
        return None if recorded is None or shown is None else (recorded.raw, shown)

    def say_whether_apart(self, model: Any, inputs: Tensor, *, new: bool) -> None:
        """Tells who asked about rows of the caller's model, and the user where every row of it runs by itself by now.

        Args:
            model: the caller's.
            inputs: (N, C, *S) that this is ready for.
            new: whether it was made for this call.
        """
        tell(model, tuple(inputs.shape[1:]), lambda _question: self.mixed or None)
        if new and self.mixed:
            warnings.warn(
                f"rows of a batch depend on each other in this `model`: {self.mixed}. So every row runs alone and "
                "unfolded, which is slow, and answers what the model says to that row alone",
                stacklevel=2,
            )

    def shelves(self, shape: Sequence[int]) -> Shelves:
        """What was made for inputs of shape (C, *S)."""
        return self.made.setdefault(tuple(shape), Shelves())

    def forget(self, shape: tuple[int, ...]) -> None:
        """Lets go of everything that is kept for inputs of shape (C, *S)."""
        for kept in (self.captured, self.footprints, self.made):
            kept.pop(shape, None)

    def empty(self, rows: int, like: Tensor) -> Tensor:
        """An uninitialised batch of `rows` variants of `like` (N, C, *S)."""
        return torch.empty(
            (rows, *like.shape[1:]),
            dtype=self.dtype or like.dtype,
            device=self.device or like.device,
            memory_format=self._layout(like.ndim),
        )

    def trial(self, example: Tensor, dtype: torch.dtype | None) -> list[Tensor]:
        """The two rows (1, C, *S) on which a model is verified: the first of `example`, and one unlike it."""
        row = self.adopt(example[:1]).to(dtype or example.dtype)
        return [row, unlike(row)]

    def adopt(self, inputs: Tensor) -> Tensor:
        """The caller's inputs on the model's device, detached; each batch takes its own dtype as it is written."""
        return inputs.detach().to(self.device or inputs.device)

    def outputs_seen(self, scores_of: Callable[..., Any], shape: tuple[int, ...]) -> int | None:
        """How many scores that function found for an input of this shape; None where that is not known."""
        try:
            return self.outputs.get(scores_of, {}).get(shape)
        except TypeError:  # it cannot be referred to weakly, and nothing is remembered of it
            return None

    def saw_outputs(self, scores_of: Callable[..., Any], shape: tuple[int, ...], count: int) -> None:
        """Remembers how many scores that function finds."""
        with suppress(TypeError):
            self.outputs.setdefault(scores_of, {})[shape] = count

    @property
    def single_on_cpu(self) -> bool:
        """Whether it runs in float32 on the CPU."""
        return self.dtype is torch.float32 and self.device is not None and self.device.type == "cpu"

    @property
    def fused_by(self) -> Implementation | None:
        """What runs its fused steps; None where none are fused."""
        if self.device is None or self.dtype is None or not self.channels_last:
            return None
        return implementation_for(self.device, self.dtype, reduced=self.reduced)

    @property
    def fuses(self) -> bool:
        """Whether steps may be fused."""
        return self.fused_by is not None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The context in which one call runs the model: the caller's own object needs its state put back."""
        note(self.draws)
        self._unseen = self.borrows or not self.copied  # nothing but the call's own rows shows whether it draws
        own = own_model(self.module) if not self.copied and isinstance(self.module, nn.Module) else nullcontext()
        exact = ExactStatistics() if self.takes_statistics and self.channels_last else nullcontext()
        with own, exact:
            yield

    def layer(self, name: str) -> nn.Module:
        """The copy's module of that name."""
        assert isinstance(self.module, nn.Module)
        return self.module.get_submodule(name)

    def _layout(self, ndim: int) -> torch.memory_format:
        return LAYOUTS.get(ndim, torch.contiguous_format) if self.channels_last else torch.contiguous_format


def plain_copy(model: nn.Module, recorded: Recorded | None = None) -> Prepared:
    """A copy that borrows the caller's weights, of which nothing is known: rows run alone. Anything may raise.

    With `recorded` it is the copy that has run, for nothing but the row that it ran on.
    """
    dtype, device = traits(model)
    note = "on the plain tier the model's own forward runs"
    module = copied(model, borrowing=True) if recorded is None else recorded.module
    made = Prepared(module, copied=True, dtype=dtype, device=device, alone=True, resists=note, borrows=True)
    made.recorded = recorded
    return made


def widened(output: Any) -> Any:
    """The model's output with every half-precision tensor in float32: what callable targets get."""
    return each_tensor(output, lambda leaf: leaf.float() if leaf.dtype in (torch.bfloat16, torch.float16) else leaf)


def each_tensor(output: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The model's output with what a function makes of every tensor in its place."""

    def made(leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return function(leaf)
        # An object of the user's own class, a dataclass perhaps, of which the caller's is left as it is.
        parts = {name: each_tensor(part, function) for name, part in named_parts(leaf).items()}
        changed = {name: part for name, part in parts.items() if part is not getattr(leaf, name)}
        if not changed:
            return leaf
        leaf = copy.copy(leaf)
        for name, part in changed.items():
            object.__setattr__(leaf, name, part)  # frozen dataclasses refuse any other way
        return leaf

    return tree_map(made, output)
