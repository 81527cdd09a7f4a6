"""`load`: every form of a model's name, what it returns, and what it says when it cannot."""

import gc
import subprocess
import sys
import weakref

import pytest
import torch
from torch import nn

from xai_fast.images.known import known, register
from xai_fast.images.preprocess import Preprocess
from xai_fast.models import load
from xai_fast.models.demo import CLASSES, PREPROCESS

MODULE = """
from dataclasses import dataclass
import torch
from torch import nn
from beside import WIDTH
from xai_fast.images.preprocess import Preprocess

PRE = Preprocess(mean=(0.5,), std=(0.2,))

def net():
    import later_beside
    layers = nn.Conv2d(1, WIDTH, 3), nn.Dropout(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 2)
    return nn.Sequential(*layers)

def pair(): return net(), PRE
def triple(): return net(), PRE, ["a", "b"]
def mapping(): return {"model": net(), "classes": ("a", "b")}
def torchvisions():
    from torchvision.transforms._presets import ImageClassification
    return net(), ImageClassification(crop_size=96)
def plain_callable(): return lambda x: x.mean((2, 3))
def number(): return 3
def a_class(): return nn.Identity
def four(): return net(), PRE, ("a",), 1
def typo(): return {"model": net(), "class": ("a",)}
def bad_preprocess(): return net(), "resize"
def bad_classes(): return net(), None, [1, 2]
def needs(width): return net()
not_a_function = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("WIDTH = 3\n")
    (tmp_path / "later_beside.py").write_text("")
    path = tmp_path / "my_net.py"
    path.write_text(MODULE)
    yield path
    for name in ("beside", "later_beside"):
        sys.modules.pop(name, None)


def test_demo():
    model, preprocess, classes = load("demo")
    assert not model.training
    assert (preprocess, classes) == (PREPROCESS, CLASSES)
    assert known(model) == (PREPROCESS, CLASSES)
    assert load("demo").model is not model


def test_demo_with_random_weights_and_with_a_file(tmp_path):
    random = load("demo", weights="none").model
    torch.save(random.state_dict(), tmp_path / "w.pth")
    again = load("demo", weights=tmp_path / "w.pth").model
    assert all(torch.equal(a, b) for a, b in zip(random.parameters(), again.parameters(), strict=True))


def test_torchvision_with_random_weights():
    model, preprocess, classes = load("torchvision:resnet18", weights="none")
    assert not model.training
    assert preprocess == Preprocess(resize=256, crop=224)
    assert classes is not None
    assert (len(classes), classes[281]) == (1000, "tabby")
    assert known(model) == (preprocess, classes)


def test_torchvision_bicubic_preset():
    _, preprocess, _ = load("torchvision:efficientnet_b0", weights="none")
    assert preprocess == Preprocess(resize=256, crop=224, interpolation="bicubic")


def test_torchvision_detectors_and_videos_have_their_own_preprocessing_or_none():
    from torchvision.models import get_model_weights

    from xai_fast.models.torchvision_zoo import preprocess_of

    detector = get_model_weights("fasterrcnn_resnet50_fpn").DEFAULT.transforms()
    assert preprocess_of(detector) == Preprocess(resize=None, crop=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert preprocess_of(get_model_weights("mvit_v1_b").DEFAULT.transforms()) is None
    segmenter = preprocess_of(get_model_weights("deeplabv3_resnet50").DEFAULT.transforms())
    assert segmenter is not None
    assert (segmenter.resize, segmenter.crop) == (520, None)


def test_torchvision_file_leaves_the_global_generator_alone(tmp_path):
    torch.save(load("torchvision:squeezenet1_1", weights="none").model.state_dict(), tmp_path / "w.pth")
    before = torch.get_rng_state()
    classes = load("torchvision:squeezenet1_1", weights=tmp_path / "w.pth").classes
    assert torch.equal(before, torch.get_rng_state())
    assert classes is not None
    assert len(classes) == 1000


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_torchvision_head_of_another_size(tmp_path, name):
    from torchvision import models

    trained = models.get_model(name, weights=None, num_classes=7).eval()
    torch.save({"epoch": 3, "model_state_dict": trained.state_dict()}, tmp_path / "w.pth")
    model, preprocess, classes = load(f"torchvision:{name}", weights=tmp_path / "w.pth")
    assert classes is None
    assert preprocess is not None
    inputs = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(inputs), trained(inputs), rtol=0, atol=0)


def test_torchvision_download_that_fails(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(ValueError, match=r'`weights`: the download of http.* failed .*no route.*weights="none"'):
        load("torchvision:squeezenet1_1")


def test_torchvision_default_weights_come_through_its_own_download(monkeypatch):
    from torchvision import models

    trained = models.get_model("squeezenet1_1", weights=None).state_dict()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *a, **k: trained)
    model = load("torchvision:squeezenet1_1").model
    assert torch.equal(model.state_dict()["classifier.1.weight"], trained["classifier.1.weight"])


def test_unknown_torchvision_name_lists_close_ones():
    with pytest.raises(ValueError, match=r"`model`: torchvision has no 'resnet5'; .*resnet50.*list_models"):
        load("torchvision:resnet5")


@pytest.mark.parametrize("spec", ["timm:resnet50", "hf:google/vit"])
def test_kinds_to_come_say_so(spec):
    with pytest.raises(ValueError, match=r"`model` is .* cannot be loaded by name yet"):
        load(spec)


@pytest.mark.parametrize(
    ("spec", "hint"), [("resnet50", "torchvision:NAME"), ("net.py", "net.py:FUNCTION"), ("", "demo")]
)
def test_no_model_at_all(spec, hint):
    with pytest.raises(ValueError, match=f"`model` is .*{hint}"):
        load(spec)


def test_a_module_is_no_name():
    with pytest.raises(TypeError, match="`model` is a Identity"):
        load(nn.Identity())


@pytest.mark.parametrize(
    ("function", "has_preprocess", "classes"),
    [
        ("net", False, None),
        ("pair", True, None),
        ("triple", True, ("a", "b")),
        ("mapping", False, ("a", "b")),
        ("torchvisions", True, None),
    ],
)
def test_python_file(file, function, has_preprocess, classes):
    path_before = list(sys.path)
    loaded = load(f"{file}:{function}")
    assert sys.path == path_before
    assert "my_net" not in sys.modules
    assert not any(module.training for module in loaded.model.modules())
    assert loaded.model(torch.zeros(1, 1, 8, 8)).shape == (1, 2)
    assert isinstance(loaded.preprocess, Preprocess) == has_preprocess
    assert loaded.classes == classes
    assert known(loaded.model) == (loaded.preprocess, loaded.classes)


def test_python_file_may_return_any_callable(file):
    assert load(f"{file}:plain_callable").model(torch.ones(1, 3, 2, 2)).shape == (1, 3)
    with pytest.raises(TypeError, match=r"`weights` can be loaded into a torch\.nn\.Module"):
        load(f"{file}:plain_callable", weights="w.pth")


def test_python_file_takes_weights(file, tmp_path):
    trained = load(f"{file}:net").model
    torch.save(trained.state_dict(), tmp_path / "w.pth")
    model = load(f"{file}:net", weights=tmp_path / "w.pth").model
    assert torch.equal(model[4].weight, trained[4].weight)


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("number", TypeError, "returned a int where the model belongs; return a torch"),
        ("a_class", TypeError, "returned the class Identity"),
        ("four", TypeError, "a tuple of 4"),
        ("typo", TypeError, r"keys \['class', 'model'\]"),
        ("bad_preprocess", TypeError, "a str where the preprocessing belongs"),
        ("bad_classes", TypeError, "a list where the classes belong"),
        ("needs", TypeError, "called without arguments .*width"),
        ("nett", ValueError, "no function 'nett'; it defines net, pair"),
        ("not_a_function", ValueError, "no function 'not_a_function'"),
        ("", ValueError, "no function ''"),
    ],
)
def test_python_file_errors(file, function, error, message):
    with pytest.raises(error, match=f"`model`.*{message}"):
        load(f"{file}:{function}")


def test_python_file_that_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"`model`: there is no file .*gone\.py"):
        load(f"{tmp_path / 'gone.py'}:net")


def test_python_file_that_raises_leaves_nothing_behind(tmp_path):
    (tmp_path / "broken.py").write_text("raise ZeroDivisionError\n")
    path_before = list(sys.path)
    with pytest.raises(ZeroDivisionError):
        load(f"{tmp_path / 'broken.py'}:net")
    assert sys.path == path_before
    assert not any(name.startswith("_xai_fast_file_broken") for name in sys.modules)


def test_what_is_known_dies_with_the_model():
    model = nn.Linear(1, 1)
    register(model, preprocess=PREPROCESS, classes=("a",))
    assert known(model) == (PREPROCESS, ("a",))
    reference = weakref.ref(model)
    del model
    gc.collect()
    assert reference() is None


def test_strangers_are_not_known():
    assert known(nn.Linear(1, 1)) == (None, None)
    assert known([]) == (None, None)


def test_importing_models_is_light():
    code = "import sys, xai_fast.models; print({'torchvision', 'skimage', 'safetensors'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
