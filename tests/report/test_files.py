"""Files are whole or absent, and importing the package is cheap."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from xai_fast.report import save_jpeg, save_png, write_atomically
from xai_fast.report.files import is_ours


def test_a_saved_picture_comes_back(tmp_path):
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    path = save_png(image, tmp_path / "new" / "folder" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(path)), np.asarray(image))


def test_pictures_of_ours_are_known_from_those_of_others(tmp_path):
    image = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    assert is_ours(save_png(image, tmp_path / "a.png"))
    assert is_ours(save_jpeg(image, tmp_path / "a.jpg"))
    image.save(tmp_path / "b.jpg")
    assert not is_ours(tmp_path / "b.jpg")


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def half(file):
        file.write(b"half")
        raise error

    with pytest.raises(error):
        write_atomically(path, half)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]


def test_long_names_and_ordinary_permissions(tmp_path):
    path = write_atomically(tmp_path / ("n" * 250 + ".bin"), lambda file: file.write(b"x"))
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_importing_loads_no_heavy_library():
    code = (
        "import sys, xai_fast.report as r; "
        "heavy = {'torch', 'matplotlib', 'skimage', 'scipy', 'jinja2'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=os.getcwd(), timeout=60)
