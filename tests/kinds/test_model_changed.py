"""The caller's model changed between two calls: the second answers as it now is, and nothing else prepares anew."""

from __future__ import annotations

import argparse
import collections
import copy
import dataclasses
import enum
import functools
import gc
import logging
import threading
import types
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

import xai_fast as xf
from xai_fast import ops
from xai_fast.core import fingerprint, prepare

WINDOW = 6


class Net(nn.Module):
    """A small network whose output is scaled by what `read` finds in it.

    Args:
        read: from this module to a number or a tensor of one.
        held: attributes.
    """

    def __init__(self, read=None, **held):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 4)
            nn.init.uniform_(self.norm.running_mean)
        self.read = read
        for name, value in held.items():
            setattr(self, name, value)
        self.eval()

    def forward(self, x):
        scores = self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return scores if self.read is None else scores * self.read(self)


def inputs():
    return torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def truths(model):
    """What a method that takes gradients, one that hides windows, and scores must give: plain float64, row by row."""
    plain = copy.deepcopy(model).double().eval()
    gradients, falls, scores = [], [], []
    for row in inputs().double().split(1):
        row.requires_grad_()
        score = plain(row)[:, 1]
        gradients.append(torch.autograd.grad(score.sum(), row)[0])
        fall = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
        for top in range(0, 12, WINDOW):
            for left in range(0, 12, WINDOW):
                hidden = row.detach().clone()
                hidden[:, :, top : top + WINDOW, left : left + WINDOW] = 0
                fall[..., top : top + WINDOW, left : left + WINDOW] = (score - plain(hidden)[:, 1]).detach()
        falls.append(fall)
        scores.append(score.detach())
    return [torch.cat(parts) for parts in (gradients, falls, scores)]


def answers(engine):
    dtype = next(p.dtype for p in engine.model.parameters())
    x = inputs().to(dtype)
    return [
        xf.Saliency(engine, absolute=False).attribute(x, 1),
        xf.Occlusion(engine, window=WINDOW, stride=WINDOW).attribute(x, 1),
        engine.scores(x, 1),
    ]


def off(actual, expected):
    return max(
        ((a.double() - b).abs().max() / b.abs().max().clamp_min(1e-12)).item()
        for a, b in zip(actual, expected, strict=True)
    )


@pytest.fixture
def preparations(monkeypatch):
    """Counts how often a model was prepared."""
    done, own = [], prepare.prepare
    monkeypatch.setattr(prepare, "prepare", lambda *args, **kwargs: done.append(1) or own(*args, **kwargs))
    return done


# What models hold


@dataclasses.dataclass
class Options:
    T: float = 2.0
    more: list = dataclasses.field(default_factory=lambda: [1.0, {"deep": 2.0}])


class Slots:
    __slots__ = ("T",)

    def __init__(self):
        self.T = 2.0

    def scale(self):
        return self.T


class Shared:
    T = 2.0


class Namespace:
    """Used as it is, a class and no instance."""

    T = 2.0


class Derived(Net):
    T = 2.0

    def scaled(self):
        return self.T

    def forward(self, x):
        return super().forward(x) * self.scaled()


class Mode(enum.Enum):
    LOUD = 5.0
    LOW = 0.5


class Reals(float):
    pass


class Mine(dict):
    pass


SCALE = 2.0
TABLE = {"T": [2.0]}


def helper():
    return TABLE["T"][0]


def make_cell(number):
    def read(model):
        return number

    def change(value):
        nonlocal number
        number = value

    return read, change


def with_default(model, scale=2.0):
    return scale


def circle():
    ring = Options()
    ring.more.append(ring)
    ring.more.append(types.SimpleNamespace(T=2.0, back=ring))
    return ring


def set_global(value):
    global SCALE
    SCALE = value


def attribute(name, value):
    return lambda model: setattr(model, name, value)


def hugging_face():
    transformers = pytest.importorskip("transformers")
    return transformers.PretrainedConfig(T=2.0, task_specific_params={"scale": [2.0]})


def rebind(target, name, value):
    """Changes a class or function for this test alone."""

    def change(model):
        kept = getattr(target, name)
        setattr(target, name, value)
        UNDO.append(lambda: setattr(target, name, kept))

    return change


UNDO = []


@pytest.fixture(autouse=True)
def undo():
    yield
    while UNDO:
        UNDO.pop()()


def five_times(model, x):
    return Net.forward(model, x) * 5


def cell():
    read, change = make_cell(2.0)
    model = Net(read)
    CELLS[id(model)] = change
    return model


CELLS: dict[int, object] = {}


def table(model):
    TABLE["T"][0] = 5.0
    UNDO.append(lambda: TABLE["T"].__setitem__(0, 2.0))


def outside(model):
    set_global(5.0)
    UNDO.append(lambda: set_global(2.0))


def wrapped(model):
    return nn.DataParallel(model)


Change = collections.namedtuple("Change", ["build", "change"])
IN_PYTHON = {
    "a number": Change(lambda: Net(lambda m: m.T, T=2.0), attribute("T", 5.0)),
    "a whole number": Change(lambda: Net(lambda m: m.T // 2, T=5), attribute("T", 5.0 + 2)),
    "its sign where it is zero": Change(
        lambda: Net(lambda m: torch.tensor(m.T).sign() + np.copysign(2.0, m.T) + 3, T=0.0), attribute("T", -0.0)
    ),
    "a flag": Change(lambda: Net(lambda m: 5.0 if m.loud else 2.0, loud=False), attribute("loud", True)),
    "a string": Change(lambda: Net(lambda m: len(m.how), how="ab"), attribute("how", "abcde")),
    "nothing": Change(lambda: Net(lambda m: 2.0 if m.how is None else 5.0, how=None), attribute("how", "abc")),
    "a new attribute": Change(lambda: Net(lambda m: getattr(m, "T", 2.0)), attribute("T", 5.0)),
    "an attribute less": Change(lambda: Net(lambda m: getattr(m, "T", 2.0), T=5.0), lambda m: delattr(m, "T")),
    "a list": Change(lambda: Net(lambda m: m.o[1][0], o=[1.0, [2.0]]), lambda m: m.o[1].__setitem__(0, 5.0)),
    "a longer list": Change(lambda: Net(lambda m: sum(m.o), o=[1.0]), lambda m: m.o.append(5.0)),
    "a tuple": Change(lambda: Net(lambda m: m.o[1][0], o=(1.0, (2.0,))), attribute("o", (1.0, (5.0,)))),
    "a set": Change(lambda: Net(lambda m: float(len(m.o)), o={1, 2}), lambda m: m.o.update({3, 4, 5})),
    "another member": Change(lambda: Net(lambda m: sum(m.o), o={1, 2}), lambda m: (m.o.remove(2), m.o.add(9))),
    "a dict": Change(lambda: Net(lambda m: m.o["T"], o={"T": 2.0}), lambda m: m.o.update(T=5.0)),
    "a key": Change(lambda: Net(lambda m: m.o.get("T", 2.0), o={"S": 5.0}), lambda m: m.o.update(T=m.o.pop("S"))),
    "a deque": Change(lambda: Net(lambda m: m.o[0], o=collections.deque([2.0])), lambda m: m.o.appendleft(5.0)),
    "a dict of one's own": Change(lambda: Net(lambda m: m.o["T"], o=Mine(T=2.0)), lambda m: m.o.update(T=5.0)),
    "a default dict": Change(
        lambda: Net(lambda m: m.o["T"] + 2, o=collections.defaultdict(float)), lambda m: m.o.update(T=5.0)
    ),
    "a dataclass": Change(lambda: Net(lambda m: m.o.T, o=Options()), lambda m: setattr(m.o, "T", 5.0)),
    "deep in a dataclass": Change(
        lambda: Net(lambda m: m.o.more[1]["deep"], o=Options()), lambda m: m.o.more[1].update(deep=5.0)
    ),
    "in a circle": Change(
        lambda: Net(lambda m: m.o.more[3].back.more[3].T, o=circle()), lambda m: setattr(m.o.more[3], "T", 5.0)
    ),
    "slots": Change(lambda: Net(lambda m: m.o.T, o=Slots()), lambda m: setattr(m.o, "T", 5.0)),
    "a namespace": Change(
        lambda: Net(lambda m: m.o.T, o=types.SimpleNamespace(T=2.0)), lambda m: setattr(m.o, "T", 5.0)
    ),
    "arguments": Change(lambda: Net(lambda m: m.o.T, o=argparse.Namespace(T=2.0)), lambda m: setattr(m.o, "T", 5.0)),
    "a configuration": Change(lambda: Net(lambda m: m.o.T, o=hugging_face()), lambda m: setattr(m.o, "T", 5.0)),
    "deep in a configuration": Change(
        lambda: Net(lambda m: m.o.task_specific_params["scale"][0], o=hugging_face()),
        lambda m: m.o.task_specific_params["scale"].__setitem__(0, 5.0),
    ),
    "an enumeration": Change(lambda: Net(lambda m: m.o.value, o=Mode.LOW), attribute("o", Mode.LOUD)),
    "a float of one's own": Change(lambda: Net(lambda m: m.o * 1.0, o=Reals(2)), attribute("o", Reals(5))),
    "a dtype": Change(lambda: Net(lambda m: torch.tensor(2.6).to(m.o), o=torch.float32), attribute("o", torch.int32)),
    "a size": Change(lambda: Net(lambda m: m.o[0], o=torch.Size([2, 3])), attribute("o", torch.Size([5, 3]))),
    "a numpy number": Change(lambda: Net(lambda m: float(m.o), o=np.float32(2)), attribute("o", np.float32(5))),
    "a numpy array": Change(lambda: Net(lambda m: float(m.o[3]), o=np.full(9, 2.0)), lambda m: m.o.__setitem__(3, 5.0)),
    "an array of objects": Change(
        lambda: Net(lambda m: m.o[1][0], o=np.array([None, [2.0]], dtype=object)), lambda m: m.o[1].__setitem__(0, 5.0)
    ),
    "bytes": Change(lambda: Net(lambda m: float(m.o[0]), o=bytearray([2, 3])), lambda m: m.o.__setitem__(0, 5)),
    "an attribute of the class": Change(Derived, rebind(Derived, "T", 5.0)),
    "a method of the class": Change(Derived, rebind(Derived, "scaled", lambda self: 5.0)),
    "an attribute of an object's class": Change(lambda: Net(lambda m: m.o.T, o=Shared()), rebind(Shared, "T", 5.0)),
    "a class that is held": Change(lambda: Net(lambda m: m.o.T, o=Namespace), rebind(Namespace, "T", 5.0)),
    "the forward": Change(lambda: Net(), lambda m: setattr(m, "forward", types.MethodType(five_times, m))),
    "a function": Change(lambda: Net(lambda m: 2.0), lambda m: setattr(m, "read", lambda m: 5.0)),
    "what a function closes over": Change(cell, lambda m: CELLS.pop(id(m))(5.0)),
    "a function's default": Change(lambda: Net(with_default), rebind(with_default, "__defaults__", (5.0,))),
    "a global number": Change(lambda: Net(lambda m: SCALE), outside),
    "behind another function": Change(lambda: Net(lambda m: helper()), table),
    "a bound method": Change(lambda: Net(lambda m: m.o(), o=Slots().scale), lambda m: setattr(m.o.__self__, "T", 5.0)),
    "a partial function": Change(
        lambda: Net(functools.partial(with_default, scale=2.0)), lambda m: m.read.keywords.update(scale=5.0)
    ),
    "through a wrapper": Change(
        lambda: wrapped(Net(lambda m: m.T, T=2.0)), lambda m: setattr(m.module, "T", 5.0)
    ),
}  # fmt: skip


def data(model):
    model.conv.weight.data[2, 1, 0, 2] += 9.0


def through_numpy(model):
    model.conv.weight.detach().numpy()[2, 1, 0, 2] += 9.0


def swapped(model):
    flat = model.head.weight.data.view(-1)
    flat[[5, 9]] = flat[[9, 5]].clone() + torch.tensor([0.0, 0.0])


def signs(model):
    model.head.weight.data.neg_()


def set_to(model):
    with torch.no_grad():
        model.conv.weight.set_(model.conv.weight.detach() * 3)


def views():
    """Parameters that lie in one piece of memory with gaps between them."""
    model = Net()
    model.memory = torch.zeros(5, 9)
    model.memory[:4, 2:7] = model.head.weight.detach()
    model.head.weight = nn.Parameter(model.memory[:4, 2:7])
    return model


def expanded():
    model = Net()
    model.head.weight = nn.Parameter(torch.linspace(-1, 1, 5).expand(4, 5))
    return model


def transposed():
    model = Net()
    model.head.weight = nn.Parameter(torch.randn(5, 4, generator=torch.Generator().manual_seed(3)).T)
    return model


class Tied(Net):
    def __init__(self):
        super().__init__()
        self.again = nn.Linear(5, 4)
        self.again.weight = self.head.weight
        self.eval()

    def forward(self, x):
        seen = torch.relu(self.norm(self.conv(x))).mean((2, 3))
        return self.head(seen) + self.again(seen).exp()


def buffered(value, read):
    def build():
        model = Net(read)
        model.register_buffer("b", value.clone())
        return model

    return build


def normed():
    model = Net()
    parametrizations.weight_norm(model.head)
    return model.eval()


class Parts(Net):
    """Runs a module that it keeps in a plain list."""

    def __init__(self):
        super().__init__(parts=[nn.Conv2d(3, 3, 1)])

    def forward(self, x):
        return super().forward(self.parts[0].to(x.dtype)(x))


def replace_head(model):
    with torch.random.fork_rng():
        torch.manual_seed(8)
        model.head = nn.Linear(5, 4)


def sparse_values(model):
    model.o._values()[0] = 5.0


def quantised(scale):
    return torch.quantize_per_tensor(torch.tensor([2.0, 4.0]), scale, 0, torch.qint8)


IN_TENSORS = {
    "one weight through data": Change(Net, data),
    "one weight through numpy": Change(Net, through_numpy),
    "two weights that change places": Change(Net, swapped),
    "every sign": Change(Net, signs),
    "set_": Change(Net, set_to),
    "a statistic": Change(Net, lambda m: m.norm.running_mean.data[3:].add_(1.0)),
    "a view with gaps": Change(views, lambda m: m.memory[1, 3].add_(9.0)),
    "an expanded one": Change(expanded, lambda m: m.head.weight.data[0, 2:3].add_(9.0)),
    "a transposed one": Change(transposed, lambda m: m.head.weight.data[1, 2:3].add_(9.0)),
    "other strides over the same bytes": Change(
        lambda: Net(lambda m: m.o[0, 1], o=torch.tensor([[2.0, 3.0], [5.0, 7.0]])), lambda m: setattr(m, "o", m.o.T)
    ),
    "a tied one": Change(Tied, lambda m: m.again.weight.data[1, 2:3].add_(2.0)),
    "a tied one replaced": Change(Tied, lambda m: setattr(m.again, "weight", nn.Parameter(m.head.weight.detach() * 2))),
    "bfloat16": Change(
        buffered(torch.full((3,), 2.0, dtype=torch.bfloat16), lambda m: m.b[1]), lambda m: m.b.data[1:2].fill_(5.0)
    ),
    "bool": Change(
        buffered(torch.tensor([True, False]), lambda m: m.b.sum() + 1), lambda m: m.b.data[1:].fill_(True)
    ),
    "int64": Change(buffered(torch.tensor([2, 3]), lambda m: m.b[0]), lambda m: m.b.data[:1].fill_(5)),
    "complex": Change(
        lambda: Net(lambda m: m.o[1].imag, o=torch.tensor([1 + 1j, 1 + 2j])), lambda m: m.o.data[1:].imag.fill_(5.0)
    ),
    "conjugate": Change(
        lambda: Net(lambda m: m.o[1].imag + 9, o=torch.tensor([1 + 1j, 1 + 2j])), lambda m: setattr(m, "o", m.o.conj())
    ),
    "quantised": Change(lambda: Net(lambda m: m.o.dequantize()[0], o=quantised(0.1)), attribute("o", quantised(0.9))),
    "sparse": Change(
        lambda: Net(lambda m: m.o.to_dense()[1], o=torch.tensor([0.0, 2.0]).to_sparse()), sparse_values
    ),
    "a parametrised one": Change(normed, lambda m: m.head.parametrizations.weight.original1.data[1, 2:3].add_(9.0)),
    "a plain attribute": Change(
        lambda: Net(lambda m: m.o[1], o=torch.tensor([1.0, 2.0])), lambda m: m.o.data[1:].fill_(5.0)
    ),
    "in a list": Change(
        lambda: Net(lambda m: m.o[0]["t"], o=[{"t": torch.tensor(2.0)}]), lambda m: m.o[0]["t"].data.fill_(5.0)
    ),
    "of a module in a list": Change(Parts, lambda m: m.parts[0].weight.data[1, 2:3].add_(9.0)),
    "a module": Change(Net, replace_head),
    "a module of a container": Change(
        lambda: nn.Sequential(nn.Identity(), Net()), lambda m: m.__setitem__(0, nn.AvgPool2d(3, 1, 1))
    ),
    "a hook": Change(Net, lambda m: m.head.register_forward_hook(lambda module, args, out: out * 5)),
    "the dtype": Change(Net, lambda m: (m.double(), m.head.weight.data[1].add_(1.0))),
}  # fmt: skip


@pytest.mark.parametrize("name", [*IN_PYTHON, *IN_TENSORS])
def test_the_next_call_answers_as_the_model_now_is(name, preparations):
    built, change = (IN_PYTHON | IN_TENSORS)[name]
    model = built()
    engine = xf.Engine(model)
    assert off(answers(engine), truths(model)) < 1e-4
    before, count = truths(model), len(preparations)
    change(model)
    after = truths(model)
    assert off(after, before) > 1e-2, "the change must matter"
    assert off(answers(engine), after) < 1e-4
    assert len(preparations) > count
    assert off(answers(engine), after) < 1e-4


# What is no change


class Counting(Net):
    """Changes itself on every call: a counter, a list, the last activation, a dict of what was seen."""

    def __init__(self):
        super().__init__(calls=0, log=[], last=None, seen={"rows": 0})

    def forward(self, x):
        self.calls += 1
        self.log.append(len(x))
        self.seen["rows"] += len(x)
        self.last = super().forward(x)
        return self.last


class Shares:
    """Is not copied with the model that holds it, and so counts the rows of copies as well."""

    def __init__(self):
        self.rows = 0

    def __deepcopy__(self, memo):
        return self


class Watch(nn.Module):
    def __init__(self):
        super().__init__()
        self.shares = Shares()

    def forward(self, x):
        self.shares.rows += 1
        return x


class Proud:
    """Nothing of it may run but its making."""

    def __init__(self):
        self.T = 2.0

    def forbidden(self, *_):
        raise AssertionError("this is the user's")

    __eq__ = __len__ = __bool__ = __iter__ = __getattr__ = __repr__ = forbidden
    __hash__ = object.__hash__
    shape = property(forbidden)

    def __deepcopy__(self, memo):
        return self


def uncopyable():
    model = Counting()
    model.lock = threading.Lock()
    return model


def hooked():
    model = Net(kept=Shares())
    model.head.register_forward_hook(lambda module, args, out: setattr(model.kept, "rows", model.kept.rows + 1))
    return model


def parent():
    model = Net()
    model.box = [model, {"again": model}]
    return model


def trained(model):
    model(inputs()).sum().backward()


def run(model):
    with torch.no_grad():
        model(inputs())


def flags(model):
    model.train()
    model.requires_grad_(False)
    model.eval()


UNCHANGED = {
    "nothing": Change(Net, lambda m: None),
    "the same number": Change(lambda: Net(lambda m: m.T, T=2000.5), lambda m: setattr(m, "T", float("2000.5"))),
    "no number": Change(lambda: Net(nothing=float("nan")), lambda m: setattr(m, "nothing", float("nan"))),
    "an equal list": Change(lambda: Net(o=[1.0, {"a": (2, [3])}]), lambda m: setattr(m, "o", [1.0, {"a": (2, [3])}])),
    "an equal tensor": Change(
        lambda: Net(o=torch.ones(3)), lambda m: (setattr(m, "o", torch.ones(3)), m.head.weight.data.mul_(1))
    ),
    "the same state": Change(Net, lambda m: m.load_state_dict(copy.deepcopy(m.state_dict()))),
    "flags": Change(Net, flags),
    "gradients": Change(Net, trained),
    "a run of what counts itself": Change(Counting, run),
    "a run of what cannot be copied": Change(uncopyable, run),
    "a watch": Change(lambda: nn.Sequential(Watch(), Net()), run),
    "what a hook keeps": Change(hooked, run),
    "a circle": Change(parent, run),
    "a logger": Change(lambda: Net(log=logging.getLogger("a")), lambda m: logging.getLogger("a.b").setLevel(10)),
    "a generator": Change(lambda: Net(random=np.random.default_rng(0)), lambda m: m.random.normal(size=3)),
    "an object of the user's": Change(lambda: Net(o=Proud(), more=[Proud()]), lambda m: None),
    "memory without a tensor": Change(lambda: Net(o=torch.empty(3, device="meta")), lambda m: None),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_what_is_no_change_prepares_nothing_anew(name, preparations):
    built, change = UNCHANGED[name]
    model = built()
    engine = xf.Engine(model)
    for _ in range(2):  # every kind of question is prepared for
        first = answers(engine)
    count = len(preparations)
    for _ in range(3):
        change(model)
        again = answers(engine)
        assert off(again, [part.double() for part in first]) < 1e-6
    assert len(preparations) == count


# When it is asked


@pytest.fixture
def readings(monkeypatch):
    """Counts how often it was asked what all tensors contain."""
    done, own = [], fingerprint.TensorBytes.same
    monkeypatch.setattr(fingerprint.TensorBytes, "same", lambda self, found: done.append(1) or own(self, found))
    return done


def questions(engine):
    x = inputs()
    return {
        "attribute": lambda: xf.GradCAM(engine).attribute(x, 1),
        "call": lambda: xf.GradCAM(engine)(x, 1),
        "variants": lambda: xf.Occlusion(
            xf.Engine(engine.model, batch_size=1, frozen=engine.settings.frozen), window=4
        )(x, 1),
        "wrapped": lambda: xf.SmoothGrad(xf.Saliency(engine), n_samples=3).attribute(x, 1),
        "scores": lambda: engine.scores(x, 1),
        "plan": lambda: engine.explain_plan(xf.GradCAM(engine), x),
    }


@pytest.mark.parametrize("question", questions(xf.Engine(Net())))
def test_a_call_reads_the_model_once_and_a_frozen_engine_never(question, readings):
    model = Net()
    engine = xf.Engine(model)
    ask = questions(engine)[question]
    ask()
    readings.clear()
    ask()
    assert len(readings) == 1
    promised = questions(xf.Engine(model, frozen=True))[question]
    if question == "variants":
        return  # an engine of its own, whose first call reads
    promised()
    readings.clear()
    promised()
    assert not readings


def test_frozen_is_a_promise_until_refresh():
    model = Net(lambda m: m.T, T=2.0)
    xf.Engine(model).scores(inputs(), 1)
    model.T = 3.0  # before the promise
    engine = xf.Engine(model, frozen=True)
    assert off(answers(engine), truths(model)) < 1e-4
    kept = truths(model)
    model.T = 5.0
    model.head.weight.data[1] += 1
    assert off(answers(engine), kept) < 1e-4
    engine.refresh()
    assert off(answers(engine), truths(model)) < 1e-4


def test_frozen_takes_a_flag():
    with pytest.raises(ValueError, match="`frozen` came as 'yes'"):
        xf.Engine(Net(), frozen="yes")


@pytest.mark.parametrize("build", [lambda m: lambda x: m(x), lambda m: m.forward], ids=["lambda", "method"])
def test_a_function_is_asked_as_it_is(build):
    """Nothing that was learnt of what it refers to outlives the call, the number of outputs neither."""
    model = Net()
    engine = xf.Engine(build(model))
    engine.scores(inputs(), 3)
    model.head = nn.Linear(5, 9)
    model.eval()
    expected = model(inputs())[:, 7].detach().double()
    assert off([engine.scores(inputs(), 7)], [expected]) < 1e-5


def test_nothing_is_kept_alive():
    model = Net(lambda m: m.o[0].T, o=[Options(), np.ones(3)])
    model.box = [model]
    xf.Engine(model).scores(inputs(), 1)
    gone = [weakref.ref(part) for part in (model, model.head, model.o[0], model.o[1], model.head.weight)]
    del model
    gc.collect()
    assert [ref() for ref in gone] == [None] * 5


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_a_weight_shows_with_and_without_a_compiler(backend):
    if reason := ops.backends()[backend]:
        pytest.skip(reason)
    model = Net()
    with ops.using(backend):
        taken = fingerprint.Fingerprint(model)
        assert taken.matches(model)
        for place in range(0, model.conv.weight.numel(), 17):
            flat = model.conv.weight.data.view(-1)
            kept = flat[place].item()
            flat[place] = np.nextafter(np.float32(kept), np.float32(9)).item()
            assert not taken.matches(model)
            flat[place] = kept
            assert taken.matches(model)
