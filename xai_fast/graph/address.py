"""Names of places in a forward: a module's path, which of its calls, and whether what goes in is meant."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from torch import nn

_PLACE = re.compile(r"(?P<module>.*?)(?::(?P<call>\d+))?(?P<input>:input)?")


@dataclass(frozen=True)
class Address:
    """Where in a forward an activation is looked at: "relu", its second call "relu:2", what goes in "norm:input".

    Attributes:
        module: path of the module.
        call: which of its calls, from 1; None: the only one.
        input: whether it is what the module is given, not what it returns.
    """

    module: str
    call: int | None = None
    input: bool = False

    def __str__(self) -> str:
        call = "" if self.call is None else f":{self.call}"
        return f"{self.module}{call}{':input' if self.input else ''}"


def address(layer: str) -> Address:
    """The parts of a layer's name."""
    found = _PLACE.fullmatch(layer)
    assert found is not None  # the pattern takes any text on one line
    call = found["call"]
    return Address(found["module"], None if call is None else int(call), found["input"] is not None)


def refuse_absent(layer: str, count: int) -> None:
    """Raises ValueError where a layer did not run, or not as often as its name says."""
    place = address(layer)
    if count == 0:
        raise ValueError(f"`layer` {layer!r} runs never: this model's forward does not run it; choose another")
    if place.call is not None and place.call > count:
        raise ValueError(f"`layer` {layer!r} is a call that does not run: {place.module!r} runs {count} times")


def refuse_again(layer: str) -> NoReturn:
    """Raises ValueError for a layer that runs more than once where the name does not say which call is meant."""
    name = address(layer).module
    raise ValueError(
        f"`layer` {layer!r} runs more than once in a forward; "
        f"name the call, as {str(Address(name, 2))!r} for the second, or choose a layer that runs once"
    )


def wrapper(model: nn.Module) -> str | None:
    """The name under which a wrapper holds the module that computes; None for any other module."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return "module"
    return "_orig_mod" if isinstance(getattr(model, "_orig_mod", None), nn.Module) else None
