"""The contract that every registered method signs, one test per line of it, over all methods and their settings."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
import weakref
from functools import cache, lru_cache, partial
from pathlib import Path

import pytest
import torch
from subjects import Small, global_state, model_state, shared, signals
from table import CASES, CLOSED_FORMS, FIRST, OF_EACH_PASS, OF_ONE_PASS, Parts

import xai_fast as xf
from xai_fast import ops
from xai_fast.core.memory import give_back
from xai_fast.core.sharing import held
from xai_fast.engine import tiers

TARGETS = [1, 3, 0]
every = pytest.mark.parametrize("case", CASES, ids=str)
first = pytest.mark.parametrize("case", FIRST, ids=lambda case: case.method)
of_each_pass = pytest.mark.parametrize("case", OF_EACH_PASS, ids=lambda case: case.method)


def attribute(case, model, inputs, target=None, **call):
    target = case.target(inputs) if target is None else target
    return case.on(model).attribute(inputs, target, **case.call, **call)


def skip_uncopyable(case, lock):
    if lock and case.needs_graph:
        pytest.skip("the method refuses what cannot be captured, see test_models")


def largest_score(model, inputs):
    with torch.no_grad():
        return model(inputs).abs().max().item()


def assert_near(actual, expected, bound):
    """The largest error is at most `bound`; NaN is an error."""
    assert actual.shape == expected.shape
    error = (actual.double() - expected.double()).abs().max().item()
    assert error <= bound, f"off by {error:.2e}, allowed {bound:.2e}"


def test_every_method_has_cases_and_a_closed_form():
    registered = {name for name, info in xf.methods().items() if info.attributes}
    assert {case.method for case in CASES} == registered
    assert set(CLOSED_FORMS) == registered


def test_formulas_of_one_pass_have_nothing_else_of_their_own():
    assert {case.method for case in OF_EACH_PASS} >= {"GradCAM", "EigenCAM"}
    own = {"recipe", "asked", "_change", "_objective", "_draw", "_fuse"}
    for name in OF_ONE_PASS:
        assert not own & set(vars(getattr(xf, name))), name
        assert getattr(xf, name).recipe is xf.GradCAM.recipe is xf.EigenCAM.recipe


# 1. Equals its replica.


@cache
def told(case):
    """What the replica says, in float64 whatever the model's dtype."""
    return case.expected(shared(torch.float64), signals(dtype=torch.float64), TARGETS)


@pytest.mark.numbers
@every
def test_equals_its_replica_in_float64(case, poison):
    model, inputs, expected = shared(torch.float64), signals(dtype=torch.float64), told(case)
    assert expected.abs().max() > 1e-4, "the case tells nothing"
    assert_near(attribute(case, model, inputs, TARGETS), expected, 1e-10 * expected.abs().max().item())


@pytest.mark.numbers
@of_each_pass
def test_equals_its_replica_on_the_plain_tier(case, poison):
    model, inputs, expected = shared(torch.float64), signals(dtype=torch.float64), told(case)
    with tiers.assuming("plain"):
        actual = attribute(case, model, inputs, TARGETS)
    assert_near(actual, expected, 1e-10 * expected.abs().max().item())


@pytest.mark.numbers
@every
def test_equals_its_replica_in_float32(case, poison):
    model, inputs, expected = shared(), signals(), told(case)
    actual = attribute(case, model, inputs, TARGETS)
    assert actual.dtype is torch.float32
    assert_near(actual, expected, 1e-5 * max(expected.abs().max().item(), largest_score(model, inputs)))


@pytest.mark.numbers
@pytest.mark.parametrize("axes", [1, 3])
@first
def test_signals_and_volumes(case, axes):
    model, inputs = shared(torch.float64, axes), signals(2, (3, 9, 7, 8)[: axes + 1], torch.float64)
    expected = case.expected(model, inputs, TARGETS[:2])
    assert_near(attribute(case, model, inputs, TARGETS[:2]), expected, 1e-10 * expected.abs().max().item())


# 2. Closed form on a linear model.


@pytest.mark.numbers
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("method", CLOSED_FORMS)
def test_closed_form(method, dtype):
    inputs = signals(2, (3, 6, 5))
    model, settings, expected = CLOSED_FORMS[method](inputs, 2)
    actual = getattr(xf, method)(model.to(dtype), **settings).attribute(inputs.to(dtype), 2)
    assert_near(actual, expected, 1e-5 * expected.abs().max().item())


# 3. One row, three rows, all rows at once.


@pytest.mark.numbers
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@every
def test_batch_size_changes_nothing(case, dtype):
    model, inputs = shared(dtype), signals(dtype=dtype)
    bound = (1e-12 if dtype is torch.float64 else 1e-5) * largest_score(model, inputs)
    expected = attribute(case, xf.Engine(model, batch_size=10_000), inputs, TARGETS)
    for batch_size in (1, 3, "auto"):
        assert_near(attribute(case, xf.Engine(model, batch_size=batch_size), inputs, TARGETS), expected, bound)


@pytest.mark.numbers
@first
def test_memory_limit_changes_the_chunks_only(case):
    model, inputs = shared(), signals(8)
    expected = attribute(case, model, inputs)
    model.record.chunks.clear()
    actual = attribute(case, xf.Engine(model, memory_limit=1), inputs)
    assert max(model.record.chunks[-8:]) == (2 if case.needs_graph else 1)  # a pair is two rows
    assert_near(actual, expected, 1e-5 * largest_score(model, inputs))


# 4. A batch equals its samples one by one.


@pytest.mark.numbers
@every
def test_a_batch_equals_its_samples(case):
    model, inputs = shared(), signals()
    together = attribute(case, model, inputs)
    apart = torch.cat([attribute(case, model, inputs[n : n + 1]) for n in range(len(inputs))])
    assert_near(together, apart, 1e-5 * largest_score(model, inputs))


# 5. Everything is left as it was found.


class Interruption(Exception):
    pass


def as_a_user_leaves_it(lock):
    """A model in the middle of somebody's work: mixed flags, gradients, hooks, frozen parts."""
    model = Small(lock=lock, dropout=0.5)
    model.train()
    model.body_norm.eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, number) if number % 2 else None
        parameter.requires_grad_(number % 3 != 0)
    model.head.register_forward_hook(lambda module, args, output: None)
    model.stem.register_forward_pre_hook(lambda module, args: None)
    model.body.register_full_backward_hook(lambda module, grad_input, grad_output: None)
    return model


@lru_cache(maxsize=1)
def at_work(case, lock):
    """Such a model, a method on it for one test after the other, its state, the map that goes with it, and a bound."""
    model = as_a_user_leaves_it(lock)
    method, before, twin = case.on(xf.Engine(model, batch_size=1)), model_state(model), _twin(model)
    return model, method, before, case.expected(twin, signals(), [1] * 3), 1e-5 * largest_score(twin, signals())


@pytest.mark.parametrize("error", [None, Interruption, KeyboardInterrupt], ids=["success", "exception", "ctrl-c"])
@pytest.mark.parametrize("lock", [False, True], ids=["copied", "uncopyable"])
@of_each_pass
def test_leaves_everything_as_found(case, lock, error):
    skip_uncopyable(case, lock)
    (model, method, before, expected, bound), inputs = at_work(case, lock), signals()
    kept, world = inputs.clone(), global_state()

    def react(x):
        torch.rand(1)  # a forward that draws
        if error is not None and model.record.rows >= 3:
            raise error

    method.attribute(inputs, 1, **case.call)
    assert model_state(model) == before
    assert global_state() == world
    model.record.chunks.clear()
    model.record.react = react
    if error is None:
        method.attribute(inputs, 1, **case.call)
    else:
        with pytest.raises(error):
            method.attribute(inputs, 1, **case.call)
        assert model.record.rows == 3
    assert model_state(model) == before
    assert global_state() == world
    assert torch.equal(inputs, kept)
    model.record.react = None
    assert_near(method.attribute(inputs, 1, **case.call), expected, bound)


def _twin(model):
    """The same weights in a model that can be copied, and in eval mode."""
    twin = Small()
    twin.load_state_dict(model.state_dict())
    return twin


@of_each_pass
def test_global_modes_come_back_as_the_caller_set_them(case):
    model, inputs = shared(), signals()
    expected = attribute(case, model, inputs)
    modes = (torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16), torch.enable_grad)
    for mode in modes:
        with mode():
            world = global_state()
            actual = attribute(case, model, inputs)
            assert global_state() == world
        assert torch.equal(actual, expected)


@of_each_pass
def test_deterministic_mode_is_the_callers(case):
    model, inputs = Small(), signals()
    for engine in (xf.Engine(model), xf.Engine(model, deterministic=True)):
        for debug in (0, 1):
            torch.set_deterministic_debug_mode(debug)
            try:
                seen = set()
                model.record.react = lambda x, seen=seen: seen.add(torch.get_deterministic_debug_mode())
                attribute(case, engine, inputs)
                assert torch.get_deterministic_debug_mode() == debug
                assert 2 in seen if engine.settings.deterministic else seen == {debug}
            finally:
                torch.set_deterministic_debug_mode(0)


# 6. Device, dtype and shape come back.


@pytest.mark.numbers
@every
def test_shape_comes_back(case):
    model, inputs = shared(), signals(2)
    info, values = xf.methods()[case.method], attribute(case, model, inputs)
    given = {*case.settings, *case.call, *(case.wraps.settings if case.wraps is not None else ())}
    if not {"layer", "resolution"} & given or (info.kind == "map" and not case.call):
        assert values.shape[2:] == inputs.shape[2:]
        assert values.shape[1] in (1, 3)
    if not case.settings and info.kind == "pixels":
        assert values.shape == inputs.shape
    assert values.dtype is inputs.dtype
    assert values.device == inputs.device
    assert not values.requires_grad
    assert values.isfinite().all()
    if not case.on(model).signed:
        if case.averages_scores:
            values = attribute(case, model, inputs, xf.targets.probability())
        assert values.min() >= 0


@pytest.mark.numbers
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@first
def test_dtype_of_the_inputs_comes_back(case, dtype):
    model, inputs = shared(), signals().to(dtype)
    values = attribute(case, model, inputs, TARGETS)
    assert values.dtype is dtype
    expected = attribute(case, model, inputs.float(), TARGETS)
    assert_near(values, expected.to(dtype), 1e-6 * expected.abs().max().item())


@pytest.mark.numbers
@first
def test_a_half_precision_model(case):
    model, inputs = shared(torch.bfloat16), signals().bfloat16()
    values = attribute(case, model, inputs, TARGETS)
    assert values.dtype is torch.bfloat16
    expected = attribute(case, shared(), inputs.float(), TARGETS)
    assert torch.corrcoef(torch.stack([values.flatten().float(), expected.flatten()]))[0, 1] > 0.9


@pytest.mark.numbers
@every
def test_memory_layout_changes_nothing(case):
    model, inputs = shared(), signals()
    expected = attribute(case, model, inputs)
    holes = torch.full((3, 3, 26, 11), torch.nan)
    holes[:, :, ::2] = inputs
    layouts = {
        "channels last": inputs.contiguous(memory_format=torch.channels_last),
        "transposed": inputs.transpose(2, 3).contiguous().transpose(2, 3),
        "every second row": holes[:, :, ::2],
        "expanded": inputs[:1].expand(3, -1, -1, -1),
        "needs a gradient": inputs.clone().requires_grad_(),
    }
    for name, given in layouts.items():
        actual = attribute(case, model, given)
        wanted = expected[:1].expand_as(expected) if name == "expanded" else expected
        assert_near(actual, wanted, 1e-6 * largest_score(model, inputs))
        assert not actual.requires_grad, name
        assert given.grad is None or not given.requires_grad, name


# 7. The model runs exactly the rows that were announced.


@every
def test_the_model_runs_the_rows_that_cost_announced(case):
    model, inputs = shared(), signals()
    method = case.on(xf.Engine(model, plan="dense"))
    method.attribute(inputs, TARGETS, **case.call)
    model.record.chunks.clear()
    explanation = method(inputs, TARGETS, **case.call)
    cost = method.cost(inputs.shape)
    assert model.record.rows <= cost.forwards if case.shares_rows else model.record.rows == cost.forwards
    if case.repeats:
        assert explanation.evaluations.sum() == model.record.rows
        assert (explanation.evaluations <= method.cost(inputs.shape[1:]).forwards).all()
    else:
        assert explanation.evaluations.tolist() == [method.cost(inputs.shape[1:]).forwards] * 3
        assert explanation.evaluations.sum() == cost.forwards
    assert cost == method.cost(inputs.shape[1:]) * 3


@pytest.mark.parametrize("case", [case for case in CASES if not case.needs_graph], ids=str)
def test_the_rows_run_backward_are_announced_too(case):
    """Where gradients pass modules; multipliers do not."""
    model, inputs = Small(), signals()
    behind = []  # a gradient that reaches the head's input counts a row

    def count(_module, args):
        if args[0].requires_grad:
            args[0].register_hook(lambda gradient: behind.append(len(gradient)))

    model.head.register_forward_pre_hook(count)
    method = case.on(model)
    method.attribute(inputs, TARGETS, **case.call)
    behind.clear()
    method.attribute(inputs, TARGETS, **case.call)
    announced = method.cost(inputs.shape).backwards * case.scores_per_row
    assert sum(behind) == (announced // 2 if case.takes_curvature else announced)


# 8. Every backend agrees.


@pytest.mark.parametrize("backend", [name for name in ops.backends() if name != "reference"])
@every
def test_backends_agree(case, backend):
    if reason := ops.backends()[backend]:
        pytest.skip(reason)
    model, inputs = shared(), signals()
    with ops.using("reference"):
        expected = attribute(case, model, inputs, TARGETS)
    with ops.using(backend):
        actual = attribute(case, model, inputs, TARGETS)
    assert_near(actual, expected, 2e-6 * max(expected.abs().max().item(), largest_score(model, inputs)))


@pytest.mark.numbers
@first
def test_plans_agree(case):
    model, inputs = shared(torch.float64), signals(dtype=torch.float64)
    dense = attribute(case, xf.Engine(model, plan="dense"), inputs)
    assert_near(attribute(case, xf.Engine(model), inputs), dense, 1e-10 * dense.abs().max().item())
    for plan in ("local", "tail"):
        try:
            forced = attribute(case, xf.Engine(model, plan=plan), inputs)
        except ValueError as refused:
            assert "`plan`" in str(refused)  # noqa: PT017 - a plan may also apply
        else:
            assert_near(forced, dense, 1e-10 * dense.abs().max().item())


# 9. `repr` rebuilds it.


@every
def test_repr_rebuilds_the_method(case):
    model, inputs = shared(), signals()
    method = case.on(xf.Engine(model, batch_size=4))  # sums over rows are rounded as the rows are chunked
    names = {name: getattr(xf, name) for name in xf.methods()}
    again = eval(repr(method), {"engine": method.engine, "tensor": torch.tensor, "Parts": Parts, **names})
    assert type(again) is type(method)
    assert repr(again) == repr(method)
    assert again.engine is method.engine
    target = case.target(inputs)
    assert torch.equal(again.attribute(inputs, target, **case.call), method.attribute(inputs, target, **case.call))
    assert all(f"{key}=" in repr(method) for key in case.settings)


@first
def test_methods_are_frozen_and_compare_by_identity(case):
    model = shared()
    method = case.on(model)
    for name in (*case.settings, "model", "engine"):
        with pytest.raises(AttributeError):
            setattr(method, name, None)
    assert method != case.on(model)
    assert len({method, case.on(model)}) == 2
    with pytest.raises(TypeError):
        getattr(xf, case.method)(model, 3)


# 10. Bad arguments are in test_refusals.py.


# 11. Nothing piles up.


def resident():
    """Bytes of this process that are in memory, without those that glibc holds free for later."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The caller's own model, which is used where none can be copied, is the engine's affair: one of each kind of question.
OF_EACH_KIND = ("Occlusion", "GradCAM", "IntegratedGradients", "KernelShap")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
@pytest.mark.parametrize(
    ("case", "lock"),
    [*((case, False) for case in OF_EACH_PASS), *((case, True) for case in FIRST if case.method in OF_EACH_KIND)],
    ids=lambda value: ("uncopyable" if value else "copied") if isinstance(value, bool) else value.method,
)
def test_calls_leave_memory_flat(case, lock, request):
    model, inputs = Small(lock=lock), signals(2, (3, 40, 40))  # 38 KiB a call, twice what is allowed if all were kept
    method = case.on(model)
    if case.method == "Occlusion":
        method = xf.Occlusion(model, window=20)
    elif case.method == "ReciproCAM":
        method = xf.ReciproCAM(model, layer="cells")  # four positions and not four hundred
    elif case.method == "PartitionShap":
        method = xf.PartitionShap(model, n_evaluations=8, baseline=0.7)
    elif case.method == "KernelShap":
        method = xf.KernelShap(model, segments=Parts(4))

    def calls(count):
        for _ in range(count):
            method.attribute(inputs, 1, **case.call)
        gc.collect()
        objects = len(gc.get_objects())
        give_back()  # else what counts is how much of what earlier tests freed is in use again
        return resident(), objects

    count = 200 if request.config.getoption("--slow") else 50
    calls(10)
    (memory, objects), (later_memory, later_objects) = calls(10), calls(count)
    assert later_objects - objects < count
    assert later_memory - memory < count * (20 << 10)


@pytest.mark.parametrize("method", ["GradCAM", "Saliency"])
def test_shapes_and_layers_leave_memory_flat(method):
    """The limit holds a few shapes, so that later ones push the first out; what libraries cache is not counted."""
    engine = xf.Engine(Small(), memory_limit=1 << 20)

    def calls(sizes):
        for size in sizes:
            x = signals(1, (3, size, size))
            for layer in ("stem", "cells") if method == "GradCAM" else (None,):
                getattr(xf, method)(engine, layer=layer).attribute(x, 1)
        gc.collect()
        objects = gc.get_objects()
        tensors = [item for item in objects if type(item) in (torch.Tensor, torch.nn.Parameter)]
        return len(objects), sum(held(*tensors).values())

    calls(range(20, 40, 2))
    objects, tensors = calls(range(40, 50, 2))
    later_objects, later_tensors = calls(range(50, 80, 3))
    assert later_objects < 1.05 * objects
    assert later_tensors - tensors < 1 << 20


def refer_to(model, module, args, output):
    """A hook that keeps its model alive as long as somebody keeps the hook."""


@pytest.mark.parametrize("lock", [False, True], ids=["copied", "uncopyable"])
@pytest.mark.parametrize("hooked", [False, True], ids=["plain", "hooked"])
@of_each_pass
def test_the_model_can_die(case, lock, hooked):
    skip_uncopyable(case, lock)
    model, inputs = Small(lock=lock), signals()
    if hooked:
        model.head.register_forward_hook(partial(refer_to, model))
    method = case.on(model)
    explanation = method(inputs, case.target(inputs), **case.call)
    dead = [weakref.ref(model), weakref.ref(method), weakref.ref(method.engine), weakref.ref(model.stem.weight)]
    del model, method
    gc.collect()
    assert [reference() for reference in dead] == [None] * 4
    assert explanation.values.isfinite().all()


@of_each_pass
def test_the_model_dies_without_the_collector(case):
    """Nobody waits for a garbage collection to get their memory back."""
    gc.collect()
    gc.disable()
    try:
        model, inputs = Small(), signals()
        attribute(case, model, inputs)
        dead = weakref.ref(model)
        del model
        assert dead() is None
    finally:
        gc.enable()


@of_each_pass
def test_an_engine_is_shared_and_two_threads_may_use_it(case):
    model, inputs = shared(), signals()
    method = case.on(model)
    assert method.engine is xf.Engine.of(model)
    target = case.target(inputs)
    method.attribute(inputs, target, **case.call)  # settles the batch size, and with it the order of sums
    expected = method.attribute(inputs, target, **case.call)
    results = []

    def call():
        results.append(method.attribute(inputs, target, **case.call))

    threads = [threading.Thread(target=call) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    assert all(torch.equal(result, expected) for result in results)
