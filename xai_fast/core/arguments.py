"""Further inputs of a model, which nobody explains: passed with every batch, tensors of N rows sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from .copies import unwrapped


@dataclass
class _Call:
    """What the batches of the call at hand are made of."""

    samples: int = 1
    sample: Tensor | None = None  # of each row of the batch that runs


# Beside the arguments and not in them: they are seen from the model, which has not changed when another batch runs.
_CALLS: WeakKeyDictionary[Arguments, _Call] = WeakKeyDictionary()


@dataclass(eq=False)
class Arguments:
    """What a model gets beside the batch, as it was when the engine was made.

    Tensors of as many rows as the call has samples follow their sample: a row of a batch meets the row of the sample
    that it is a variant of. Everything else is passed as it is.

    Args:
        args, kwargs: behind the batch, by position and by name; tensors inside lists, tuples and dicts count too.

    Raises:
        TypeError: they are no sequence and no mapping of names.
    """

    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    _leaves: list[Any] = field(init=False, repr=False)
    _form: TreeSpec = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.args, tuple | list):
            raise TypeError(f"`args` came as {type(self.args).__name__}; give a tuple of what follows the batch")
        if not isinstance(self.kwargs, Mapping) or not all(isinstance(name, str) for name in self.kwargs):
            raise TypeError(f"`kwargs` came as {type(self.kwargs).__name__}; give a dict from names to values")
        leaves, self._form = tree_flatten((tuple(self.args), dict(self.kwargs)))
        self._leaves = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]

    def __bool__(self) -> bool:
        return bool(self.args or self.kwargs)

    def begin(self, samples: int) -> None:
        """A call of so many samples begins; rows are the first's until `of` says otherwise."""
        _CALLS[self] = _Call(samples)

    def of(self, sample: Tensor | None) -> None:
        """The rows that run next are variants of these samples; None: of the first."""
        _CALLS.setdefault(self, _Call()).sample = sample

    @property
    def following(self) -> tuple[int, ...]:
        """Which of the tensors follow their sample in the call at hand."""
        samples = _CALLS.setdefault(self, _Call()).samples
        return tuple(
            number
            for number, leaf in enumerate(self._leaves)
            if isinstance(leaf, Tensor) and leaf.ndim and len(leaf) == samples
        )

    def beside(self, batch: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What the model gets beside a batch."""
        leaves = list(self._leaves)
        for number in self.following:
            samples = self._samples(batch.shape[0])
            leaves[number] = leaves[number].index_select(0, samples.to(leaves[number].device))
        return tree_unflatten(leaves, self._form)

    def _samples(self, rows: int) -> Tensor:
        """The sample of each row of a batch; where a batch holds the asked rows several times, one after the other."""
        sample = _CALLS[self].sample
        if sample is None:
            return torch.zeros(rows, dtype=torch.long)
        if rows % len(sample) == 0:
            return sample.repeat(rows // len(sample))
        raise RuntimeError(f"{rows} rows run for {len(sample)} that were asked for, so `args` cannot follow them")


def with_arguments(model: Callable[..., Any], arguments: Arguments) -> Callable[[Tensor], Any]:
    """The model as a function of the batch alone.

    A module stays one, with the same layers, attributes and hooks: what is later done to the caller's is done to it.
    """
    if not arguments:
        return model
    if not isinstance(model, nn.Module) or isinstance(model, torch.jit.ScriptModule):

        def call(batch: Tensor) -> Any:
            args, kwargs = arguments.beside(batch)
            return model(batch, *args, **kwargs)

        return call
    inner = unwrapped(model)
    kind: Any = type(inner)
    own = vars(inner).get("forward")

    def forward(self: nn.Module, batch: Tensor) -> Any:
        args, kwargs = arguments.beside(batch)
        return kind.forward(self, batch, *args, **kwargs) if own is None else own(batch, *args, **kwargs)

    return reshaped(inner, forward, xai_fast_arguments=arguments)


def reshaped(module: nn.Module, forward: Callable[..., Any], **members: Any) -> nn.Module:
    """The module with another forward: the same layers, attributes and hooks, which it shares, without holding it.

    Args:
        module: the caller's.
        forward: takes the place of its class's; its first argument is the new module.
        members: further members of the new module's class.
    """
    kind: Any = type(module)
    made: Any = type(kind)(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__, **members})
    bound = made.__new__(made)
    own = {name: part for name, part in vars(module).items() if name != "forward"}
    object.__setattr__(bound, "__dict__", own if "forward" in vars(module) else vars(module))
    return bound


def arguments_of(model: Any) -> Arguments | None:
    """What a model made by `with_arguments`, or a copy of it, gets beside the batch."""
    return getattr(type(model), "xai_fast_arguments", None)
