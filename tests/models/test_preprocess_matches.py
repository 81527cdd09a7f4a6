"""Our `Preprocess` gives what torchvision's preset gives, on photographs of every shape and mode."""

import pytest
import torch
from PIL import Image
from torchvision.models import get_model_weights

from xai_fast.models.demo import photograph
from xai_fast.models.torchvision_zoo import preprocess_of


def with_alpha(photo):
    photo = photo.convert("RGB")
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    return photo.convert("RGBA")


PHOTOS = {
    "landscape": lambda: photograph("cat"),
    "portrait": lambda: photograph("coffee").transpose(Image.Transpose.ROTATE_90),
    "square": lambda: photograph("astronaut"),
    "grey": lambda: photograph("coins"),
    "rgba": lambda: with_alpha(photograph("rocket")),
    "thin": lambda: photograph("motorcycle").crop((10, 3, 341, 114)),
}


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_b0", "inception_v3", "swin_v2_t"])
@pytest.mark.parametrize("kind", PHOTOS)
def test_classifiers(name, kind):
    photo = PHOTOS[kind]()
    preset = get_model_weights(name).DEFAULT.transforms()
    ours = preprocess_of(preset)
    assert ours is not None
    torch.testing.assert_close(ours(photo), preset(photo.convert("RGB")), rtol=0, atol=1e-6)


def test_segmenters_and_detectors():
    photo = photograph("cat")
    for name in ("deeplabv3_resnet50", "fasterrcnn_resnet50_fpn"):
        preset = get_model_weights(name).DEFAULT.transforms()
        ours = preprocess_of(preset)
        assert ours is not None
        torch.testing.assert_close(ours(photo), preset(photo), rtol=0, atol=1e-6)
