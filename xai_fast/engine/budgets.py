"""How many rows go through the model at once in a call: what the user asked for, what fits, what was timed before."""

from __future__ import annotations

from torch import Tensor

from xai_fast.core.prepared import Prepared
from xai_fast.graph.timed import record

from .decisions import BATCH_SIZE
from .evaluate import Evaluate
from .layer_questions import LayerQuestions
from .plan import RowBudget, first_size, repeatable, rows_that_fit, rows_worth_trying
from .settings import Settings

_CLOSED_SIZE = 512  # rows of a closed form at once: each is one row of a product


def budget_for(
    settings: Settings, prepared: Prepared, inputs: Tensor, question: Evaluate | LayerQuestions
) -> RowBudget:
    """What decides the rows per forward for one kind of question about inputs of this shape."""
    if isinstance(question, LayerQuestions) and question.closed:
        return RowBudget("cpu", fixed=_CLOSED_SIZE)  # a product, not a run of the model
    if prepared.alone:
        return RowBudget("cpu", fixed=1)
    shape = tuple(inputs.shape[1:])
    device = prepared.device or inputs.device
    graph = not isinstance(question, LayerQuestions) and question.backwards > 0
    footprint = prepared.footprints.get(shape)
    most = rows_that_fit(footprint, device, settings.memory_limit, graph=graph)
    most = None if most is None else max(1, most // question.together)
    fixed = None if settings.rows is None else max(1, settings.rows // question.together)
    first = first_size(device.type, footprint)
    if fixed is None and prepared.compiled is not None:
        fixed = first  # every other size would be compiled anew
    known = record()
    settled = known.get(BATCH_SIZE, _case(prepared, shape, question))
    if settled is None and known.given:
        settled = first  # a run that repeats another tries nothing
    return RowBudget(device.type, fixed, most, settled, rows_worth_trying(footprint, device, graph=graph), first)


def remember(
    settings: Settings, prepared: Prepared, inputs: Tensor, question: Evaluate | LayerQuestions, budget: RowBudget
) -> None:
    """Keeps the batch size that a call has settled."""
    closed = isinstance(question, LayerQuestions) and question.closed
    if record().given or repeatable():
        return
    if settings.rows is None and not prepared.alone and budget.settled is not None and not closed:
        record().put(BATCH_SIZE, _case(prepared, tuple(inputs.shape[1:]), question), budget.settled)


def _case(prepared: Prepared, shape: tuple[int, ...], question: Evaluate | LayerQuestions) -> str:
    """Changes of a layer are timed apart per layer: the later it is, the more rows are fast."""
    asked = f"changes of {question.layer}" if isinstance(question, LayerQuestions) else type(question).__name__
    return f"{shape}, {asked}, {prepared.dtype}, layers {sorted(prepared.anchors)}"
