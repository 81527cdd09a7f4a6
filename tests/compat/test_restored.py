"""Switched on and off again: every class, function, subclass and pickle is what it was before."""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import pickle
import sys
import types

import pytest
import torch
from explainers import CAPTUM, EXPLAINERS, INPUTS, LIBRARIES, Net, explainer, near, of_each_kind

import xai_fast as xf
from xai_fast import accelerate


@pytest.fixture(autouse=True)
def off():
    """Nothing stays on."""
    yield
    accelerate.off()


def everything(package):
    """What the attributes of a package's modules and of its classes are, by name, and in which order."""
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] != package or not isinstance(module, types.ModuleType):
            continue
        for key, value in list(vars(module).items()):
            found[name, key] = value
            if isinstance(value, type) and value.__module__.partition(".")[0] == package:
                found[name, key, "order"] = list(vars(value))
                found.update({(name, key, own): one for own, one in vars(value).items()})
    return found


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.filterwarnings("ignore")
def test_attributes(library):
    pytest.importorskip(LIBRARIES[library], reason=f"{library} is not installed")
    before = everything(library)
    xf.accelerate(library)
    xf.accelerate(library)
    during = everything(library)
    accelerate.off()
    after = everything(library)
    assert any(during[key] is not value for key, value in before.items() if "order" not in key), "nothing was put in"
    assert before.keys() == during.keys() == after.keys()
    for key, value in before.items():
        same = value == after[key] == during[key] if "order" in key else value is after[key]
        assert same, key
    for key, value in during.items():
        ours = getattr(value, "__xai_fast__", None)
        if isinstance(value, types.FunctionType) and ours is not None:
            original = before[key]
            assert inspect.signature(value) == inspect.signature(original)
            for attribute in ("__name__", "__qualname__", "__module__", "__doc__", "__annotations__"):
                assert getattr(value, attribute) == getattr(original, attribute), (key, attribute)


CAPTUM_OBJECTS = [name for name in EXPLAINERS if name.startswith("captum")]
COPIED = [
    *CAPTUM_OBJECTS,
    *("pytorch_grad_cam GradCAM", "pytorch_grad_cam GuidedBackpropReLUModel", "shap GradientExplainer"),
    "quantus PyTorchModel",
]


def outcome(run):
    try:
        return run(), None
    except Exception as error:
        return None, error


def _pickled(one):
    written = io.BytesIO()
    torch.save(one, written)
    written.seek(0)
    return torch.load(written, weights_only=False)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, _pickled], ids=["copy", "deepcopy", "pickle"])
@pytest.mark.parametrize("name", of_each_kind(COPIED))
@pytest.mark.filterwarnings("ignore")
def test_copies_and_pickles_across(name, way):
    """Objects that were made on one side, copied or written there, and asked on the other."""
    library, made, ask = explainer(name)
    if way is copy.copy and name == "pytorch_grad_cam GradCAM":
        pytest.skip("a copy that ends takes the hooks of both out of the model")
    plain, error = outcome(lambda: ask(way(made(Net()))))
    with xf.accelerate(library):
        inside = made(Net())
        ask(inside)
        found, error_too = outcome(lambda: ask(way(inside)))
        assert type(error) is type(error_too), (error, error_too)
        if error is not None:
            return
        near(found, plain)
        within = way(inside)
    near(ask(within), plain)
    outside = made(Net())
    with xf.accelerate(library):
        near(ask(way(outside)), plain)


@pytest.mark.parametrize("name", ["Occlusion", "Saliency"])
@pytest.mark.filterwarnings("ignore")
def test_bytes_are_the_same(name):
    """An object of an accelerated class is written as before, and so is a method bound to it."""
    library, made, _ask = explainer(f"captum {name}")
    one = made(_model_without_weights)
    written = [pickle.dumps(one), pickle.dumps(one.attribute), pickle.dumps(type(one).attribute)]
    with xf.accelerate(library):
        assert [pickle.dumps(one), pickle.dumps(one.attribute), pickle.dumps(type(one).attribute)] == written
        taken = pickle.loads(written[1])
        assert taken.__func__ is type(one).attribute


def _model_without_weights(x):
    return x.flatten(1).sum(1)


@pytest.mark.parametrize("made_within", [False, True])
@pytest.mark.parametrize("name", ["Occlusion", "Saliency", "KernelShap", "LayerGradCam"])
@pytest.mark.filterwarnings("ignore")
def test_subclasses(name, made_within):
    """Those that call the library's own method, made on either side, and asked on both."""
    library, _made, ask = explainer(f"captum {name}")
    attr = importlib.import_module("captum.attr")
    base = getattr(attr, name)

    def define():
        class Louder(base):
            def attribute(self, *args, **kwargs):
                return 2 * super().attribute(*args, **kwargs)

        class Same(base):
            attribute = base.attribute

        return Louder, Same

    def explained(kind):
        model = Net()
        return ask(kind(*([model, model.body] if name.startswith("Layer") else [model])))

    plain = explained(base)
    if made_within:
        with xf.accelerate(library):
            louder, same = define()
    else:
        louder, same = define()
    accelerate.reset()
    with xf.accelerate(library):
        near(explained(louder), 2 * plain)
        near(explained(same), plain)
        served = accelerate.report().accelerated
        assert louder.__mro__[1] is base
        assert served >= 1
    accelerate.reset()
    near(explained(louder), 2 * plain)
    near(explained(same), plain)
    assert not accelerate.report().rows


INSTEAD = {
    "gradient_func": lambda _own: lambda _forward, inputs, *_rest, **_more: tuple(0.5 * one for one in inputs),
    "use_weights": lambda own: not own.use_weights,
    "use_relu_grad_output": lambda own: not own.use_relu_grad_output,
    "compute_convergence_delta": lambda _own: lambda *_args, **_more: torch.zeros(3),
}


@pytest.mark.parametrize("name", CAPTUM)
@pytest.mark.filterwarnings("ignore")
def test_what_an_object_was_given_instead(name):
    """Attributes of one object that stand in for what its class has."""
    library, made, ask = explainer(f"captum {name}")
    own = made(Net())
    replaced = {key: value(own) for key, value in INSTEAD.items() if hasattr(own, key)}
    if not replaced:
        pytest.skip("nothing of the kind")
    for key, value in replaced.items():
        objects = made(Net()), made(Net())
        for one in objects:
            setattr(one, key, value)
        plain, error = outcome(lambda objects=objects: ask(objects[0]))
        with xf.accelerate(library):
            found, error_too = outcome(lambda objects=objects: ask(objects[1]))
        assert type(error) is type(error_too), key
        if error is None:
            near(found, plain)


@pytest.mark.filterwarnings("ignore")
def test_grad_cams_objects_after_their_block():
    """Whose hooks are out of the model: grad-cam finds nothing to explain."""
    library, made, ask = explainer("pytorch_grad_cam GradCAM")
    with made(Net()) as plain:
        ask(plain)
    with pytest.raises(Exception) as error:  # noqa: PT011 - whatever grad-cam raises
        ask(plain)
    with xf.accelerate(library), made(Net()) as ours:
        ask(ours)
    with xf.accelerate(library), pytest.raises(type(error.value)) as error_too:
        ask(ours)
    assert str(error_too.value) == str(error.value)


@pytest.mark.parametrize("name", ["pytorch_grad_cam GradCAM", "pytorch_grad_cam GuidedBackpropReLUModel"])
@pytest.mark.filterwarnings("ignore")
def test_gradients_that_grad_cam_leaves_at_the_input(name):
    """And adds to, where one image is explained twice."""
    library, made, _ask = explainer(name)

    def run():
        one = made(Net())
        image = INPUTS.clone().requires_grad_("Guided" not in name)
        targets = [lambda row: row[2]] * 3 if "Guided" not in name else 2
        found = [one(image, targets) for _ in range(3)]
        return image.grad, found

    plain = run()
    with xf.accelerate(library):
        ours = run()
    near(ours[0], plain[0])
    for one, other in zip(plain[1], ours[1], strict=True):
        near(other, one)
