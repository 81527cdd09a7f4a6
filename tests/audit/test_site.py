"""The report opens from disk: hostile names are text, nothing but its own pictures is loaded, and its tools work."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from browser import browser
from photo_folders import PREPROCESS, Net, hostile, sound
from PIL import Image

import xai_fast as xf
from xai_fast.audit.checks.clusters import Group
from xai_fast.audit.checks.cues import RegionCue
from xai_fast.audit.checks.finding import Change, Confirmation, Finding
from xai_fast.audit.checks.records import records_of
from xai_fast.audit.checks.regions import GRID, REGIONS
from xai_fast.audit.checks.storing import findings_of
from xai_fast.audit.site.performance import FALSE_ALARMS, Alarms, performance
from xai_fast.audit.site.rows import escaped
from xai_fast.audit.site.sheets import maps_at
from xai_fast.report import overlay

ATTACK = "</script><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Of a run on sound and hostile files, with findings of every kind, one of which is named to attack."""
    folder = tmp_path_factory.mktemp("site")
    data = sound(folder / "photographs", 30)
    hostile(data)
    run = xf.audit(Net().eval(), data, out=folder / "run", preprocess=PREPROCESS, classes=("cat", "dog", ATTACK))
    found = xf.audit.check(run)
    change = Change("insert", f"probability of {ATTACK}", 0.1, 0.8, 0.1, 0.7, 0.6, 0.8, 40)
    proved = Confirmation("confirmed", (change,))
    places = tuple(records_of(run).position.tolist())
    scores = tuple(0.5 for _ in places)
    cue = RegionCue(REGIONS["top border"])
    made = (
        Finding("shortcut", f"{ATTACK} looks", "high", 1, {"class": ATTACK}, places, scores, 2, cue, proved),
        Finding("mislabelled", "some are wrong", "medium", 0.5, {"share": 0.25}, places[:3], scores[:3]),
        Finding("shortcut", "nothing", "low", 0, {}, (), (), 1, cue, Confirmation("not confirmed", (change,))),
    )
    corner = [0.0] * (GRID * GRID)
    corner[-1] = 1.0
    groups = (
        Group(2, 5, 0.8, 0.1, (0.6, 0), tuple(corner), places[:5]),
        Group(0, 14, 0.2, 0.2, None, (1 / GRID**2,) * GRID**2, places[5:19]),
        Group(0, 6, None, None, (1.0, 1), (1 / GRID**2,) * GRID**2, places[19:25]),
    )
    skipped = {"overlap": f"{ATTACK} has no masks"}
    dataclasses.replace(found, found=made, groups=groups, skipped=skipped).save(run.directory)
    return run, data, xf.audit.report(run, data=data)


def test_everything_on_the_page_is_its_own(site):
    _, _, page = site
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'")
    for kind, tag in (("style", "<style>"), ("script", "<script>")):
        (content,) = re.findall(rf"{tag}(.*?)</{kind}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)=\"(?!#)", text)  # no file is loaded but by the style
    assert set(re.findall(r'url\("([^"]+)"\)', text)) <= {
        f"pictures/{path.name}" for path in (page.parent / "pictures").iterdir()
    }
    assert ATTACK not in text
    assert "onerror=alert" not in re.sub(r"&lt;.*?&gt;|\\u003c.*?\\u003e", "", text)


def test_json_in_a_script_ends_nothing():
    text = escaped({"name": "</script><!--\u2028&\"'"})
    assert not set("<>&\u2028") & set(text)


def test_performance_against_counting(site):
    run, *_ = site
    frame = run.frame()
    frame = frame[(frame.status == "ok") & frame.label.notna()]
    lines = performance(records_of(run))
    assert lines[0].images == len(frame)
    assert lines[0].right == int((frame.label == frame.prediction).sum())
    assert lines[0].low <= lines[0].accuracy <= lines[0].high
    assert sum(line.images for line in lines[1:]) == lines[0].images


def test_false_alarms_are_those_that_were_counted(site):
    """What the page and the documentation say is what the newest record holds, with all checks on."""
    root = Path(__file__).parents[2]
    record = json.loads((root / "benchmarks" / "results" / "0.1.0" / "false-alarms-all-checks--cpu.json").read_text())
    counted = record["records"][0]
    assert counted["planted"] == "clean, with masks and noisy copies"
    assert Alarms(counted["networks"], counted["above_low"], counted["with_confirmed"]) == FALSE_ALARMS
    *_, page = site
    (said,) = re.findall(r'id="alarms">(.*?)</p>', page.read_text(encoding="utf-8"))
    assert "of 20 small networks" in said
    assert "none had a finding above low and none a confirmed one" in said
    assert "up to 13.9 % would do so too" in said  # 1 - 0.05 ** (1 / 20)
    assert f"Of {FALSE_ALARMS.networks} small networks" in (root / "docs" / "audit.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("hits", [0, 1, 3, 20])
def test_the_most_false_alarms_are_where_so_few_are_one_in_twenty(hits):
    most = Alarms(20, hits, 0).most
    at_most = sum(math.comb(20, k) * most**k * (1 - most) ** (20 - k) for k in range(hits + 1))
    assert at_most == pytest.approx(0.05 if hits < 20 else 1)


def test_maps_are_those_of_their_places(site):
    run, *_ = site
    places = records_of(run).position.tolist()
    every = run.maps()[:, 0].numpy()
    found = maps_at(run, run.methods[0], places[::-1])
    np.testing.assert_array_equal(np.stack([found[place] for place in places]), every)


def test_without_photographs_the_page_says_so(site, tmp_path):
    run, *_ = site
    page = xf.audit.report(run, out=tmp_path)
    assert "There are no pictures" in page.read_text(encoding="utf-8")


def test_an_unchecked_run_is_refused(tmp_path):
    data = sound(tmp_path / "photographs", 4)
    run = xf.audit(Net().eval(), data, out=tmp_path / "run", preprocess=PREPROCESS)
    with pytest.raises(ValueError, match=r"xf\.audit\.check"):
        xf.audit.report(run)


def test_in_a_browser(site):
    """Names show as text, no script but ours runs, no request leaves, and the page sorts, filters and enlarges."""
    run, _, page = site
    with browser() as real:
        real.open(page)
        assert real.run("document.title") == run.directory.name
        assert real.run("document.querySelector('.finding h3').textContent") == f"{ATTACK} looks"
        assert real.run("document.querySelectorAll('img, iframe, object').length") == 0
        rows = "[...document.querySelectorAll('#rows tbody tr')]"
        assert real.run(f"{rows}.length") == len(run.table(["id"]))
        assert any("<img src=x onerror" in name for name in real.run(f"{rows}.map(row => row.cells[0].textContent)"))

        real.click("#rows th[data-key=sure] button")
        shares = real.run(f"{rows}.map(row => parseFloat(row.cells[3].textContent)).filter(Number.isFinite)")
        assert shares == sorted(shares)
        real.click("#rows th[data-key=sure] button")
        shares = real.run(f"{rows}.map(row => parseFloat(row.cells[3].textContent)).filter(Number.isFinite)")
        assert shares == sorted(shares, reverse=True)

        real.type("#query", "cat/0")
        assert all(name.startswith("cat/0") for name in real.run(f"{rows}.map(row => row.cells[0].textContent)"))
        real.run("document.activeElement.blur()")

        real.press("j")
        assert real.run("document.activeElement.id") == "finding-0"
        real.press("j")
        assert real.run("document.activeElement.id") == "finding-1"
        real.click("#finding-1 .tile")
        assert real.run("document.querySelector('#large').open") is True
        first = real.run("document.querySelector('#large .what').textContent")
        real.press("\ue014")  # to the right
        assert real.run("document.querySelector('#large .what').textContent") != first
        assert "1-maps.jpg" in real.run("getComputedStyle(document.querySelector('#large .map')).backgroundImage")
        assert "1-photos.jpg" in real.run("getComputedStyle(document.querySelector('#large .photo')).backgroundImage")
        shown = np.asarray(Image.open(io.BytesIO(real.screenshot())).convert("RGB"), dtype=float)
        assert shown.std() > 20
        real.press("\ue00c")  # escape
        assert real.run("document.querySelector('#large').open") is False

        shown = "[...document.querySelectorAll('.group:not([hidden]) h3')].map(head => head.textContent.trim())"
        assert real.run(shown) == [f"{ATTACK} 5 images", "cat 14 images", "cat 6 images"]
        choose = (
            "(() => {{ const it = document.querySelector('{}'); it.value = '{}'; "
            "it.dispatchEvent(new Event('change')); }})()"
        )
        real.run(choose.format("#group-order", "images"))
        assert real.run(shown) == ["cat 14 images", "cat 6 images", f"{ATTACK} 5 images"]
        real.run(choose.format("#group-class", "cat"))
        assert real.run(shown) == ["cat 14 images", "cat 6 images"]
        real.run(choose.format("#group-class", ""))
        real.run(choose.format("#group-order", "rank"))
        real.click(".group .tile.mean")
        assert "the mean map of the group" in real.run("document.querySelector('#large .what').textContent")
        assert "4-maps.jpg" in real.run("getComputedStyle(document.querySelector('#large .map')).backgroundImage")
        real.press("\ue014")
        assert real.run("document.querySelector('#large .map').classList.contains('p1')") is True
        real.press("\ue00c")
        said = real.run("document.querySelector('.skipped').textContent")
        assert said == f"Not checked, overlap: {ATTACK} has no masks"

        assert real.complaints() == []
        requested = real.requested()
        assert all(url.startswith(page.parent.as_uri()) for url in requested)
        drawn = {"confusion-light.svg", "reliability-light.svg"}
        assert drawn <= {url.rpartition("/")[2] for url in requested}


def test_on_light_and_dark_screens_and_on_a_phone(site):
    """Letters stand out from what is behind them, nothing is wider than a phone, and no name is broken in two."""
    *_, page = site
    lightness = {}
    with browser(port=9518) as real:
        for name, dark in (("light", False), ("dark", True)):
            real.screen(1200, 1000, dark=dark)
            real.open(page)
            real.run("document.querySelector('#run').scrollIntoView()")
            seen = np.asarray(Image.open(io.BytesIO(real.screenshot())).convert("L"), dtype=float)
            lightness[name] = np.quantile(seen, (0.001, 0.5, 0.999))
            colours = (
                "(() => {{ const is = (it) => getComputedStyle(document.querySelector(it)); "
                "return [is('{0}').color, is('body').backgroundColor]; }})()"
            )
            for part in ("body", ".soft", ".badge.high", ".badge.medium", ".badge.low", "a"):
                assert contrast(*real.run(colours.format(part))) >= 4.5, (name, part)
        real.screen(390, 844, phone=True)
        real.open(page)
        assert real.run("document.documentElement.scrollWidth") <= 390
        lines = "[...document.querySelectorAll('#performance tbody th')].map(it => it.getClientRects()[0].height)"
        assert min(real.run(lines)) < 40  # "cat" is in one line
        assert min(real.run("[...document.querySelectorAll('select')].map(it => it.offsetHeight)")) >= 34
        real.click("#finding-0 .tile")
        real.press("\ue014")
        both = real.run("[...document.querySelectorAll('#large .pic')].map(it => it.getBoundingClientRect().width)")
        assert min(both) > 200  # one above the other, and as wide as the phone allows
    assert lightness["light"][1] > 200
    assert lightness["light"][0] < 80
    assert lightness["dark"][1] < 60
    assert lightness["dark"][2] > 200


def contrast(one, other):
    """Of two colours as a style tells them, by WCAG 2: from 1 to 21."""

    def luminance(colour):
        shares = np.array([float(part) for part in re.findall(r"[\d.]+", colour)[:3]]) / 255
        return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_mean_of_a_group_is_over_its_photographs(site):
    *_, page = site
    sheet = Image.open(page.parent / "pictures" / "4-photos.jpg")
    side = sheet.width // 6
    tiles = [np.asarray(sheet.crop((n * side, 0, (n + 1) * side, side)), float) for n in range(6)]
    assert np.abs(np.mean(tiles[1:6], axis=0) - tiles[0]).mean() < 6  # as far as JPEG keeps noise
    shown = np.asarray(Image.open(page.parent / "pictures" / "4-maps.jpg").crop((0, 0, side, side)), float)
    view = Image.fromarray(tiles[0].round().astype(np.uint8))

    def apart(place):
        grid = np.zeros((GRID, GRID), np.float32)
        grid[place] = 1
        return np.abs(shown - np.asarray(overlay(view, grid, signed=False), float)).mean()

    assert apart((-1, -1)) < 8
    assert all(apart(place) > apart((-1, -1)) for place in ((0, 0), (0, -1), (4, 4)))


def test_findings_of_a_site_are_kept_whole(site):
    run, *_ = site
    found = findings_of(run.directory)
    assert [one.images for one in found.groups] == [5, 14, 6]
    assert found.groups[1].labels is None
    assert found.groups[2].labels == (1.0, 1)
    assert [one.confirmation.state for one in found] == ["confirmed", "no cue", "not confirmed"]
