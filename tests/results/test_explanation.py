"""The record that methods return: drawn as suits it, honest about maps of zeros, the same after saving and loading."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xai_fast import Explanation, Preprocess


def made(values: torch.Tensor, **others) -> Explanation:
    several = values.ndim == 5
    defaults = {
        "target": torch.zeros(values.shape[: 1 + several], dtype=torch.long),
        "score": torch.ones(values.shape[: 1 + several]),
        "method": "Method(engine)",
        "layer": (),
        "evaluations": torch.ones(len(values), dtype=torch.long),
    }
    return Explanation(values, **{**defaults, **others})


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8))


def test_a_map_of_pixels_is_smoothed_and_printed_on_a_faded_photo(photo: Image.Image) -> None:
    pixels = made(torch.randn(1, 3, 100, 100), per_pixel=True, units="score")
    kept = pixels.values.clone()
    (shown,) = pixels.overlay([photo])
    assert shown.tobytes() == pixels.overlay([photo], style="faded", smoothing=0.01)[0].tobytes()
    assert shown.tobytes() != pixels.overlay([photo], smoothing=0)[0].tobytes()
    assert shown.tobytes() != pixels.overlay([photo], style="alpha")[0].tobytes()
    assert torch.equal(pixels.values, kept)
    (drawn,) = pixels.drawn([photo])
    assert drawn.scale.high < float(pixels.heatmap().abs().quantile(0.99))  # of what is drawn
    assert pixels.units_in_words() == "units of the score, smoothed"


def test_other_maps_are_drawn_as_they_are(photo: Image.Image) -> None:
    signed, unsigned = made(torch.randn(1, 1, 7, 7)), made(torch.rand(1, 1, 7, 7), signed=False)
    assert signed.overlay([photo])[0].tobytes() == signed.overlay([photo], style="faded", smoothing=0)[0].tobytes()
    assert unsigned.overlay([photo])[0].tobytes() == unsigned.overlay([photo], style="alpha", alpha=0.6)[0].tobytes()
    assert signed.units_in_words() == ""


def test_the_colour_bar_is_of_the_colours_that_were_used(photo: Image.Image) -> None:
    unsigned = made(torch.rand(1, 1, 7, 7), signed=False, per_pixel=True)
    (panel,) = unsigned.panels([photo], "title")[0]
    assert panel.bar is not None
    assert panel.bar.table().name == "reds"
    assert panel.title == "title"


def test_maps_of_zeros_are_told(photo: Image.Image) -> None:
    values = torch.zeros(2, 2, 1, 8, 8)
    assert "zero everywhere" in repr(made(values))
    values[1, 0, 0, 3, 3] = -1
    partly = made(values)
    assert partly.blank.tolist() == [[True, True], [False, True]]
    assert "3 of 4 maps zero everywhere" in repr(partly)
    assert "zero" not in repr(made(torch.ones(1, 1, 8, 8)))
    first, _, third, _ = partly.overlay([photo, photo], style="opacity")
    assert np.asarray(first)[-6].max() > 240  # words on a light strip
    assert np.asarray(third)[:30].tobytes() == np.asarray(photo)[:30].tobytes()


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    found = made(
        torch.randn(2, 3, 4, 4),
        snapshots={5: torch.randn(2, 3, 4, 4), 10: torch.randn(2, 3, 4, 4)},
        standard_error=torch.rand(2, 3, 4, 4),
        classes=("a", "b"),
        layer=("layer4",),
        per_pixel=True,
        units="score",
        preprocess=Preprocess(resize=8, crop=(4, 4)),
        seconds=1.5,
    )
    path = found.save(tmp_path / "new")
    assert path.name == "explanation.safetensors"
    for again in (Explanation.load(path), Explanation.load(path.parent), found.to("cpu")):
        assert repr(again) == repr(found)
        assert len(again) == 2
        for key in ("values", "target", "score", "evaluations", "standard_error"):
            assert torch.equal(getattr(again, key), getattr(found, key))
        assert again.outputs is None
        assert sorted(again.snapshots) == [5, 10]
        assert torch.equal(again.snapshots[10], found.snapshots[10])
        for key in ("classes", "layer", "per_pixel", "units", "preprocess", "seconds", "signed"):
            assert getattr(again, key) == getattr(found, key)
        assert np.array_equal(again.numpy(), found.numpy())


def test_a_function_as_target_is_kept_by_name(tmp_path: Path) -> None:
    def brightness(output: torch.Tensor) -> torch.Tensor:
        return output.sum(1)

    again = Explanation.load(made(torch.randn(1, 1, 4, 4), target=brightness).save(tmp_path))
    assert again.target == "brightness"
    assert again.target_names(0) == ["brightness"]


def test_a_notebook_shows_pictures_of_maps_only() -> None:
    shown = made(torch.randn(1, 1, 4, 4))._repr_png_()
    assert shown is not None
    assert shown.startswith(b"\x89PNG")
    assert made(torch.randn(1, 1, 16))._repr_png_() is None


def test_the_box_of_a_detection_is_drawn_saved_and_named(tmp_path: Path) -> None:
    black = Image.new("RGB", (200, 100))
    boxes = torch.tensor([[[0.1, 0.2, 0.5, 0.9], [0.6, 0.0, 1.3, 0.5]]])
    both = made(torch.ones(1, 2, 1, 10, 20), boxes=boxes, target=torch.tensor([[0, 5]]), classes=("cat",))
    first, second = (np.array(one)[..., 0] for one in both.overlay([black], style="alpha", alpha=0.0))
    for seen, (x1, y1, x2, y2) in ((first, (20, 20, 99, 89)), (second, (119, 0, 199, 50))):
        for row, column in ((y1, x1 + 8), (y2, x1 + 8), (y1 + 8, x1), (y1 + 8, x2)):
            around = seen[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
            assert around.max() == 255, (row, column)
    first[18:93, 18:103] = 0
    assert not first.any()
    both.save(tmp_path)
    back = Explanation.load(tmp_path)
    assert back.boxes is not None
    assert torch.equal(back.boxes, boxes)
    assert back.target_names(0) == ["cat", "class 5"]  # a detector may have classes without a name


def test_slices_of_volumes_are_pictures() -> None:
    values = torch.randn(2, 1, 9, 20, 30)
    target = torch.zeros(2, dtype=torch.long)
    volumes = made(
        values[:, None], target=target[:, None], score=torch.ones(2, 1), standard_error=values[:, None].abs()
    )
    middle = volumes.slice(4)
    assert torch.equal(middle.values, values[:, None, :, 4])
    assert middle.standard_error is not None
    assert torch.equal(middle.standard_error, values[:, None, :, 4].abs())
    assert torch.equal(volumes.slice(3, axis=2).values, values[:, None, ..., 3])
    inputs = torch.rand(2, 1, 9, 20, 30)
    assert len(middle.overlay(inputs[:, :, 4])) == 2
    shown, alone = volumes.figure(inputs), volumes.figure()
    assert shown.height > 1.5 * alone.height
    assert volumes._repr_png_() is not None
    with pytest.raises(ValueError, match="are no pictures; take one `slice`"):
        volumes.overlay(inputs[:, :, 4])
    with pytest.raises(ValueError, match=r"`images` came as \(2, 1, 20, 30\)"):
        volumes.figure(inputs[:, :, 4])
    with pytest.raises(ValueError, match="`axis` came as 3"):
        volumes.slice(0, axis=3)
    with pytest.raises(ValueError, match="none of volumes"):
        middle.slice(0)
