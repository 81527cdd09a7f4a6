"""What `xai-fast explain` leaves on the disk: nothing of others overwritten, nothing half, whatever stops it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import picture, run, write_models
from typer.testing import CliRunner

import xai_fast as xf
from xai_fast import Explanation
from xai_fast.cli.app import app
from xai_fast.cli.folder import LOCK, Folder


@pytest.fixture
def model(tmp_path: Path) -> list[str]:
    return ["--method", "GradCAM", "--model", f"{write_models(tmp_path)}:good"]


def contents(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def places(*names: str) -> list[str]:
    """Paths of inputs, in folders of their own where two would meet."""
    return [f"{n}/{name}" for n, name in enumerate(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("cat.png", "cat.png", "cat.png"),
        ("cat.png", "CAT.png", "cat.jpg"),
        ("cat.png", "cat.GradCAM.png"),
        ("cat.GradCAM.png", "cat.png"),
        ("cat.png", "cat.photo.png", "cat-2.png", "cat.png"),
        ("stra\N{LATIN SMALL LETTER SHARP S}e.png", "STRASSE.png"),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}.png", "cafe\N{COMBINING ACUTE ACCENT}.png"),
        ("n" * 245 + ".png", "n" * 245 + ".jpg"),
    ],
)
def test_each_image_has_files_of_its_own(tmp_path: Path, model: list[str], names: tuple[str, ...]) -> None:
    paths = [tmp_path / "in" / place for place in places(*names)]
    for seed, path in enumerate(paths):
        path.parent.mkdir(parents=True)
        picture(seed).save(path, format="PNG")
    result = run(*paths, *model, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    written = contents(tmp_path / "out")
    assert len(written) == 1 + 4 * len(names)
    assert len({name.casefold() for name in written}) == len(written)
    maps = [xf.Explanation.load(path).values for path in (tmp_path / "out").glob("*.safetensors")]
    assert len({values.numpy().tobytes() for values in maps}) == len(names)


def test_an_out_that_holds_the_inputs_keeps_them(tmp_path: Path, model: list[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed, name in enumerate(("cat.png", "cat.GradCAM.png", "cat-2.png")):
        picture(seed).save(photos / name)
    (photos / "cat.photo.png").write_text("notes of mine")
    before = contents(photos)
    inputs = [photos / "cat.png", photos / "cat.GradCAM.png"]
    for _ in range(2):  # a second run replaces the files of the first, and no others
        result = run(*inputs, *model, "--out", photos)
        assert result.exit_code == 0, result.output
        after = contents(photos)
        assert {name: after[name] for name in before} == before
        assert len(after) == len(before) + 1 + 4 * len(inputs)
    ours = photos / "cat-3.png"  # of the first run; as an input it is to be kept as well
    kept = ours.read_bytes()
    assert run(ours, *inputs, *model, "--out", photos).exit_code == 0
    assert ours.read_bytes() == kept


def refused_folders(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<html>mine</html>")
    return {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "out",
        "a link to nothing": tmp_path / "dangling",
        "a device": Path("/dev/full"),
        "a page of others": tmp_path / "site",
        "no folder can be made": Path("/proc/out"),
    }


def test_out_is_checked_before_the_model(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w').close()\n")
    for kind, out in refused_folders(tmp_path).items():
        result = run("missing.png", "--model", f"{tmp_path / 'late.py'}:f", "--out", out)
        assert result.exit_code == 2, (kind, result.output)
        assert "`--out`" in result.stderr
        assert not (tmp_path / "loaded").exists()
    assert (tmp_path / "site" / "index.html").read_text() == "<html>mine</html>"


@pytest.mark.parametrize("command", [["explain", "missing.png"], ["demo"], ["audit", "run", "--data", "missing"]])
def test_an_empty_out_is_not_the_current_folder(command: list[str], tmp_path: Path) -> None:
    with contextlib.chdir(tmp_path):
        result = CliRunner().invoke(app, [*command, "--out", ""])
    assert result.exit_code == 2, result.output
    assert "it came empty" in result.stderr
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written_cost_their_image(tmp_path: Path, model: list[str]) -> None:
    """As on a full disk: at 4 KB not even the page fits, at 60 KB the picture of noise does not, the flat one does."""
    picture(0, (600, 600)).save(tmp_path / "noise.png")
    picture(0, (1, 1)).resize((60, 60)).save(tmp_path / "flat.png")
    arguments = [tmp_path / "noise.png", tmp_path / "flat.png", *model[:-1], model[-1].replace(":good", ":whole")]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    results = []
    try:
        for limit in (4096, 60_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            results.append(run(*arguments, "--out", tmp_path / f"out{limit}"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused, partly = results
    assert refused.exit_code == 2
    assert "`--out`" in refused.stderr
    assert not (tmp_path / "out4096").exists()
    assert partly.exit_code == 3
    (line,) = partly.stderr.splitlines()
    assert "noise.png: " in line
    assert "File too large" in line
    assert "noise.png" in (tmp_path / "out60000" / "index.html").read_text()
    names = sorted(contents(tmp_path / "out60000"))
    assert names == ["flat.GradCAM.png", "flat.GradCAM.safetensors", "flat.photo.png", "flat.png", "index.html"]


def test_a_drawing_that_fails_costs_its_image(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, calls = Explanation.drawn, []

    def fails_first(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise KeyError("no such colour")
        return drawn(*args, **kwargs)

    monkeypatch.setattr(Explanation, "drawn", fails_first)
    for n in range(2):
        picture(n).save(tmp_path / f"{n}.png")
    result = run(tmp_path / "0.png", tmp_path / "1.png", *model, "--out", tmp_path / "out")
    assert result.exit_code == 3, result.output
    assert result.stderr.count("error: ") == 1
    assert "1 of 2 images explained" in result.stdout
    assert sorted(contents(tmp_path / "out")) == ["1.GradCAM.png", "1.GradCAM.safetensors", "1.photo.png", "1.png",
                                                  "index.html"]  # fmt: skip


def test_one_run_at_a_time(tmp_path: Path, model: list[str]) -> None:
    picture().save(tmp_path / "a.png")
    out = tmp_path / "out"
    with Folder(out):
        result = run(tmp_path / "a.png", *model, "--out", out)
        assert result.exit_code == 2, result.output
        assert "another run" in result.stderr
    assert not out.exists()  # nothing was put into it
    out.mkdir()
    (out / LOCK).write_text("12345")  # of a process that was killed
    assert run(tmp_path / "a.png", *model, "--out", out).exit_code == 0
    assert not (out / LOCK).exists()
    (tmp_path / "victim").write_text("mine")
    (out / LOCK).symlink_to(tmp_path / "victim")
    assert run(tmp_path / "a.png", *model, "--out", out).exit_code == 2
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.fixture
def heeded() -> Iterator[None]:
    """Signals as a terminal leaves them: what runs in a shell's background is born ignoring SIGINT, and so are we."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heeded")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_the_page_of_what_is_done(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    """Twice, as impatient people and systems send them: during the second image, and while the page is written."""
    from xai_fast.cli import explain

    explain_one, write_page, calls = explain.explain_one, explain.write_page, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            os.kill(os.getpid(), sent)
        return explain_one(*args)

    def interrupted_page(*args, **kwargs):
        os.kill(os.getpid(), sent)
        return write_page(*args, **kwargs)

    monkeypatch.setattr(explain, "explain_one", interrupted)
    monkeypatch.setattr(explain, "write_page", interrupted_page)
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    picture().save(tmp_path / "a.png")
    result = run(*[tmp_path / "a.png"] * 5, *model, "--out", tmp_path / "out")
    assert result.exit_code == 130, result.output
    assert "interrupted: 1 of 5 images" in result.stdout
    assert "1 of 5 images" in (tmp_path / "out" / "index.html").read_text()
    assert len(contents(tmp_path / "out")) == 1 + 4
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


@pytest.mark.parametrize("kind", ["pipe", "full", "ascii"])
def test_what_cannot_be_printed_changes_no_file(
    tmp_path: Path, model: list[str], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A reader that is gone, a full disk, a terminal of ASCII: one set of files, one exit code."""
    names = ["\N{LATIN SMALL LETTER E WITH ACUTE}.png", os.fsdecode(b"caf\xe9.png")]
    for n, name in enumerate(names):
        picture(n).save(tmp_path / name, format="PNG")
    said = tmp_path / "said"
    if kind == "pipe":
        read, write = os.pipe()
        os.close(read)
    else:
        write = os.open(said if kind == "ascii" else "/dev/full", os.O_WRONLY | os.O_CREAT)
    stream = os.fdopen(write, "w", encoding="ascii", errors="strict")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    arguments = [*(tmp_path / name for name in names), "missing\N{SNOWMAN}.png", *model, "--out", tmp_path / "out"]
    with pytest.raises(SystemExit) as ended:
        app(["explain", *map(str, arguments)])
    stream.close()  # as the interpreter does it at its end: nothing may be left that cannot be written
    assert ended.value.code == 3
    assert len(contents(tmp_path / "out")) == 1 + 4 * 2
    if kind == "ascii":
        text = said.read_text()
        assert r"\xe9.png: " in text
        assert r"caf\udce9.png: " in text
        assert r"missing\u2603.png: no such file" in text


def test_streams_that_came_closed() -> None:
    """Their numbers must not go to files that are opened later, into which messages would be printed."""
    program = (
        "import os; os.closerange(0, 3); import sys; sys.stdout = sys.stderr = None; "
        "from xai_fast.cli.console import line, prepare_streams; prepare_streams(); "
        "file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); line('text'); print('text'); sys.exit(file)"
    )
    done = subprocess.run([sys.executable, "-c", program, os.devnull], check=False, cwd=Path(xf.__file__).parents[1])
    assert done.returncode >= 3


@pytest.mark.parametrize("kind", ["pipe", "full"])
@pytest.mark.parametrize(("typed", "code"), [("--help", 0), ("explain --help", 0), ("explain --nonsense", 2)])
def test_help_and_errors_of_options_may_go_nowhere(typed: str, code: int, kind: str) -> None:
    """They are printed by a library, which would end in a traceback."""
    program = "from xai_fast.cli import main; main()"
    with contextlib.ExitStack() as stack:
        if kind == "pipe":
            read, stream = os.pipe()
            os.close(read)
        else:
            stream = os.open("/dev/full", os.O_WRONLY)
        stack.callback(os.close, stream)
        said = {"stdout": subprocess.PIPE, "stderr": stream} if code else {"stdout": stream, "stderr": subprocess.PIPE}
        ran = subprocess.run([sys.executable, "-c", program, *typed.split()], check=False, **said)
    assert ran.returncode == code
    assert not ran.stderr
    assert not ran.stdout


def test_ctrl_c_while_the_command_line_is_loading_is_no_traceback() -> None:
    program = """
import sys

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Impatient())
from xai_fast.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
