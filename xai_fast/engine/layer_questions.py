"""What the model answers when a layer's output is changed: through a tail, through a closed form, or as a whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from xai_fast.core.layers import Reading
from xai_fast.core.prepared import Prepared

from .evaluate import Response, by_own_forward
from .replay.tail import Tail, with_layer
from .samplers.layer import LayerChange


class LayerQuestions:
    """What the model answers when one layer's output is changed, for the rows of one chunk.

    Args:
        prepared: the model.
        layer: whose output is changed.
        tail: what follows it; None runs the whole model for every change.
        change: the changes.
        response: of the layer to the chunk.
        reading: how its activation is a grid.
    """

    def __init__(
        self,
        prepared: Prepared,
        layer: str,
        tail: Tail | None,
        change: LayerChange,
        response: Response,
        reading: Reading,
    ) -> None:
        self.together = 1
        self._prepared, self.layer, self._tail = prepared, layer, tail
        self._change, self._response, self._reading = change, response, reading
        self.count = change.count(response.activation, reading)
        none = torch.arange(1)
        by_channel = change.silenced(none, response.activation, reading) is not None
        self.closed = tail is not None and tail.closed is not None and by_channel

    @torch.no_grad()
    def __call__(self, numbers: Tensor, position: int, batch_of: Callable[[int], Tensor]) -> Any:
        """The raw output under the changes `numbers`.

        Args:
            numbers: which changes.
            position: of the row within the chunk.
            batch_of: that row of the input, as often as it is told.
        """
        kept = self._response.kept
        if self._tail is None or kept is None:
            change = self._changed(numbers)
            with by_own_forward(self._prepared):
                return with_layer(self._prepared, self.layer, batch_of(len(numbers)), change)
        if self.closed and self._tail.closed is not None:
            channels = self._change.silenced(numbers, self._response.activation, self._reading)
            assert channels is not None
            return self._tail.closed.ablated(kept.activation[position : position + 1], channels)
        activation = self._response.activation[position : position + 1]
        return self._tail.replaced(kept, position, self._changed(numbers)(activation))

    def _changed(self, numbers: Tensor) -> Callable[[Tensor], Tensor]:
        def change(activation: Tensor) -> Tensor:
            layout = torch.channels_last if _is_channels_last(activation) else torch.contiguous_format
            shape = (len(numbers), *activation.shape[1:])
            out = torch.empty(shape, dtype=activation.dtype, device=activation.device, memory_format=layout)
            out.copy_(activation)
            self._change.write(numbers, out, self._reading)
            return out

        return change


def _is_channels_last(activation: Tensor) -> bool:
    return activation.ndim == 4 and activation.is_contiguous(memory_format=torch.channels_last)
