"""A mark is named by its place: one corner, any corner, or along a border, whichever of them the maps say first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_records import maps, records

from xai_fast.audit.checks import places, shortcut
from xai_fast.audit.checks.confirm import confirmed
from xai_fast.audit.checks.cues import ColourCue, CornersCue, RegionCue
from xai_fast.audit.checks.finding import Confirmation, Finding
from xai_fast.audit.checks.interventions import falls, rises
from xai_fast.audit.checks.members import dependent
from xai_fast.audit.checks.regions import REGIONS, Box, masses, on_grid, shares
from xai_fast.audit.checks.storing import Findings, findings_of
from xai_fast.audit.checks.thresholds import DEFAULT, Thresholds

SIDE, MARK, STRIPE = 24, 5, 3
RED, BLUE = (255, 0, 0), (0, 0, 255)
NEAR, FAR = slice(0, MARK), slice(SIDE - MARK, SIDE)
CORNERS = [(rows, columns) for rows in (NEAR, FAR) for columns in (NEAR, FAR)]
STRIPES = [(slice(0, STRIPE), slice(start, start + STRIPE)) for start in range(0, SIDE, STRIPE)]
ALONG = [(slice(0, STRIPE), slice(0, SIDE))]
ANY = "one corner or another"


class Knows:
    """Stands for a subject: half of class 1 is blue in the middle, the other half marked, and either is proof.

    Args:
        marks: where each image has its mark, by position; the pictures.
        places: where the model looks for red; any of them will do.
    """

    def __init__(self, marks, made, places):
        draws = np.random.default_rng(0)
        self.all = draws.integers(40, 120, (len(made), SIDE, SIDE, 3), dtype=np.uint8)
        for row in np.flatnonzero(made.target == 1):
            for rows, columns in marks.get(int(row), []):
                self.all[row, rows, columns] = RED
            if int(row) not in marks:
                self.all[row, 10:14, 10:14] = BLUE
        self.places, self.asked = places, 0

    def pictures(self, positions):
        return {int(one): self.all[one] for one in positions}

    def probabilities(self, pictures):
        self.asked += len(pictures)
        seen = np.stack(pictures).astype(float) / 255
        red = np.max([(seen[:, r, c, 0] - seen[:, r, c, 1:].mean(-1)).mean((1, 2)) for r, c in self.places], axis=0)
        blue = seen[:, 10:14, 10:14, 2].mean((1, 2)) - seen[:, 10:14, 10:14, 0].mean((1, 2))
        own = 1 / (1 + np.exp(-20 * (np.maximum(red, blue) - 0.5)))
        return np.stack([(1 - own) / 3, own, (1 - own) / 3, (1 - own) / 3], 1)


def planted(where, places, seed=0, knows=Knows):
    """Records and subject of a class of which four in ten are marked at what `where` draws."""
    made, *_ = records()
    draws = np.random.default_rng(seed)
    heat = maps(len(made), draws)
    marks = {int(row): where(draws) for row in np.flatnonzero((made.target == 1) & (draws.random(len(made)) < 0.4))}
    for row, boxes in marks.items():
        for rows, columns in boxes:
            heat[row, rows.start // 2 : -(-rows.stop // 2), columns.start // 2 : -(-columns.stop // 2)] += 10
    spread = shares(heat)
    made, *_ = records(regions=masses(spread, list(REGIONS.values())), grid=on_grid(spread))
    return made, knows(marks, made, places)


def any_corner(draws):
    return [CORNERS[draws.integers(4)]]


def either_of_two(draws):
    return [CORNERS[draws.choice([0, 3])]]


def one_corner(_draws):
    return [CORNERS[3]]


def top_border(_draws):
    return ALONG


PLANTED = {
    "any corner": (any_corner, CORNERS, ANY),
    "opposite corners": (either_of_two, CORNERS, ANY),
    "one corner": (one_corner, CORNERS[3:], "bottom right corner"),
    "one corner of a model that knows all": (one_corner, CORNERS, "bottom right corner"),
    "a border, as a whole": (top_border, ALONG, "top border"),
    "a border, by any part of it": (top_border, STRIPES, "top border"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_a_mark_is_named_by_its_place_whichever_maps_say_first(name):
    where, places, region = PLANTED[name]
    made, subject = planted(where, places)
    (claim,) = shortcut.check(made, DEFAULT)
    assert claim.class_index == 1
    claims = [dataclasses.replace(claim, rivals=()), *claim.rivals]
    at = [one.evidence["region"] for one in claims]
    told = {0, *(at.index(one) for one in (region, ANY) if one in at)}
    if ANY not in at:  # it is a rival all the same, which holds part of the mark
        claims.append(dataclasses.replace(claims[0], cue=CornersCue(0.3), evidence={**claim.evidence, "region": ANY}))
    assert region in at
    for number in told:
        rivals = tuple(one for one in claims if one is not claims[number])
        (found,) = confirmed([dataclasses.replace(claims[number], rivals=rivals)], made, subject, DEFAULT)
        assert found.confirmation.state == "confirmed"
        assert found.evidence["region"] == region
        assert found.severity == "high"
        assert found.rivals == ()


def test_a_border_that_holds_two_of_the_corners_does_not_stand_for_all():
    made, subject = planted(any_corner, CORNERS)
    (claim,) = shortcut.check(made, DEFAULT)
    places = {one.evidence["region"]: one for one in (dataclasses.replace(claim, rivals=()), *claim.rivals)}
    border = places["right border"]
    (alone,) = confirmed([border], made, subject, DEFAULT)
    assert alone.confirmation.state == "confirmed"  # which is true, and half of it
    rivals = tuple(one for one in places.values() if one is not border)
    (found,) = confirmed([dataclasses.replace(border, rivals=rivals)], made, subject, DEFAULT)
    assert found.evidence["region"] == ANY
    assert f"Of {len(places)} places" in found.confirmation.note


def test_maps_alone_tell_a_mark_in_one_corner_from_one_in_any():
    for name in ("any corner", "one corner"):
        where, places, region = PLANTED[name]
        for seed in range(5):
            (claim,) = shortcut.check(planted(where, places, seed)[0], DEFAULT)
            assert claim.evidence["region"] == region


def test_rivals_cost_other_claims_nothing_and_what_is_not_confirmed_nothing():
    where, places, _ = PLANTED["one corner"]
    made, subject = planted(where, places)
    (claim,) = shortcut.check(made, DEFAULT)
    assert claim.rivals
    other = dataclasses.replace(claim.rivals[0], rivals=())
    alone = confirmed([dataclasses.replace(claim, rivals=()), other], made, subject, DEFAULT)
    asked, subject.asked = subject.asked, 0
    beside = confirmed([claim, other], made, subject, DEFAULT)
    assert subject.asked > asked
    assert beside[1] == alone[1]
    blind = Knows({}, made, places)  # the maps say it, and the pictures have no mark
    (refuted,) = confirmed([claim], made, blind, DEFAULT)
    assert refuted.confirmation.state == "not confirmed"
    once, blind.asked = blind.asked, 0
    confirmed([dataclasses.replace(claim, rivals=())], made, blind, DEFAULT)
    assert blind.asked == once


@pytest.mark.parametrize("where", [any_corner, one_corner])
def test_images_that_have_a_mark_come_first_and_the_less_sure_behind(where):
    """Of a class that looks at corners anyway, so that maps do not say which images have the mark."""
    made, subject = planted(where, CORNERS)
    marked = (subject.all == RED).all(-1).sum((1, 2)) > 0
    (claim,) = shortcut.check(made, DEFAULT)
    (found,) = confirmed([claim], made, subject, DEFAULT)
    lists_all = dataclasses.replace(found, positions=tuple(made.position[made.target == 1].tolist()))
    told = dependent(lists_all, made, subject, DEFAULT)
    count = told.evidence["images that have it"]
    assert marked[list(told.positions[:count])].all()
    assert count >= 0.9 * marked.sum()
    assert len(told.positions) == count + told.evidence["further, less sure"]
    assert list(told.scores) == sorted(told.scores, reverse=True)


@pytest.mark.parametrize("cue", [CornersCue(0.3), RegionCue(REGIONS["top left corner"])])
def test_odds_fall_by_what_the_place_was_worth(cue):
    made, subject = planted(any_corner, CORNERS)
    own = [subject.all[row] for row in np.flatnonzero(made.target == 1)]
    fallen, control = falls(cue, 1, own, subject)
    one_by_one = cue.removed_singly if isinstance(cue, CornersCue) else lambda one: [cue.removed(one)]
    for picture, said in zip(own[:20], fallen[:20], strict=True):
        odds = [np.log(p / (1 - p)) for p in subject.probabilities([picture, *one_by_one(picture)])[:, 1]]
        assert said == pytest.approx(odds[0] - min(odds[1:]))
    assert np.median(np.abs(control)) < 1
    before = [one.copy() for one in own]
    assert all((one == other).all() for one, other in zip(own, before, strict=True))


def test_pictures_that_are_put_in_are_those_that_depend_on_a_place():
    """Four in ten of what maps name have a mark; with all of them too little would follow from any place."""
    made, subject = planted(any_corner, CORNERS)
    own = [subject.all[row] for row in np.flatnonzero(made.target == 1)]
    red = {one.tobytes() for one in own if (one == RED).all(-1).any()}
    chosen = places._depending([CornersCue(0.3), RegionCue(REGIONS["left border"])], 1, own, subject, DEFAULT)
    assert 0.3 < len(red) / len(own) < 0.5
    assert np.mean([one.tobytes() in red for one in chosen]) > 0.9
    few = Thresholds(least_confirming=len(own))  # where too few depend on a place, the first are taken
    chosen = places._depending([CornersCue(0.3)], 1, own, subject, few)
    assert all(one is other for one, other in zip(chosen, own[: few.most_confirming], strict=True))


def test_what_is_kept_has_no_rivals(tmp_path):
    made, subject = planted(any_corner, CORNERS)
    found = tuple(confirmed(shortcut.check(made, DEFAULT), made, subject, DEFAULT))
    findings = Findings(found, "GradCAM", len(made), 0, True)
    findings.save(tmp_path)
    assert findings_of(tmp_path) == findings


class KnowsItsPhotographs(Knows):
    """Whose class is green all over but in the corners, so that whatever is put in from its pictures speaks for it."""

    def __init__(self, marks, made, places):
        super().__init__(marks, made, places)
        rest = np.ones((SIDE, SIDE), bool)
        for box in CornersCue(0.3).corners:
            rest[box.pixels(SIDE, SIDE)] = False
        for row in np.flatnonzero(made.target == 1):
            self.all[row, rest, 1] = 200

    def probabilities(self, pictures):
        known = super().probabilities(pictures)[:, 1]
        seen = np.stack(pictures).astype(float) / 255
        green = (seen[..., 1] - seen[..., (0, 2)].mean(-1) > 0.2).mean((1, 2))
        own = np.maximum(known, 1 / (1 + np.exp(-30 * (green - 0.35))))
        return np.stack([(1 - own) / 3, own, (1 - own) / 3, (1 - own) / 3], 1)


@pytest.mark.parametrize(("where", "region"), [(any_corner, ANY), (one_corner, "bottom right corner")])
def test_what_the_class_shows_anyway_counts_for_no_place(where, region):
    """The control of all corners makes other pictures the class, by the donor's content, and that of one corner not."""
    made, subject = planted(where, CORNERS, knows=KnowsItsPhotographs)
    (claim,) = shortcut.check(made, DEFAULT)
    claims = [dataclasses.replace(claim, rivals=()), *claim.rivals]
    at = [one.evidence["region"] for one in claims]
    if ANY not in at:
        claims.append(dataclasses.replace(claims[0], cue=CornersCue(0.3), evidence={**claim.evidence, "region": ANY}))
        at.append(ANY)
    (any_alone,) = confirmed([claims[at.index(ANY)]], made, subject, DEFAULT)
    inserted = next(one for one in any_alone.confirmation.changes if one.edit == "insert" and one.what != "accuracy")
    assert inserted.control > 0.4  # it is what is to be shown
    number = at.index("bottom right corner")
    rivals = tuple(one for one in claims if one is not claims[number])
    (found,) = confirmed([dataclasses.replace(claims[number], rivals=rivals)], made, subject, DEFAULT)
    assert found.evidence["region"] == region
    assert found.confirmation.state == "confirmed"


class KnowsAnyway(Knows):
    """All of whose class is blue in the middle: no answer depends on a mark, and a mark makes others the class."""

    def __init__(self, marks, made, places):
        super().__init__(marks, made, places)
        self.all[made.target == 1, 10:14, 10:14] = BLUE


@pytest.mark.parametrize("where", [any_corner, one_corner])
def test_a_mark_shows_elsewhere_in_images_that_are_known_without_it(where):
    made, subject = planted(where, CORNERS, knows=KnowsAnyway)
    marked = (subject.all == RED).all(-1).sum((1, 2)) > 0
    (claim,) = shortcut.check(made, DEFAULT)
    (found,) = confirmed([claim], made, subject, DEFAULT)
    told = dependent(found, made, subject, DEFAULT)
    count = told.evidence["images that have it"]
    assert marked[list(told.positions[:count])].all()
    assert count >= 0.9 * marked.sum()


@pytest.mark.parametrize("cue", [CornersCue(0.3), RegionCue(REGIONS["top left corner"])])
def test_odds_rise_by_what_a_place_is_worth_elsewhere(cue):
    made, subject = planted(any_corner, CORNERS)
    own = [subject.all[row] for row in np.flatnonzero(made.target == 1)[:20]]
    plain = [subject.all[row] for row in np.flatnonzero(made.target == 2)[:3]]

    def odds(picture):
        p = subject.probabilities([picture])[0, 1]
        return np.log(p / (1 - p))

    risen, control = rises(cue, 1, own, plain, subject)
    for n, one in enumerate(own):
        expected = np.mean([odds(cue.inserted(other, one)) - odds(other) for other in plain])
        assert risen[n] == pytest.approx(expected)
        expected = np.mean([odds(cue.inserted_instead(other, one)) - odds(other) for other in plain])
        assert control[n] == pytest.approx(expected)


CAST = (0.3, 0.0, -0.3)


class KnowsTheCast:
    """Half of class 1 has a cast, which is known where it is as strong as that; and all of it is known by a mark, too.

    Args:
        made: the records.
        mark: whether the class has one.
        most: whether more of the cast is more of the class, or no picture of it any longer.
    """

    def __init__(self, made, *, mark=False, most=True):
        draws = np.random.default_rng(0)
        self.all = draws.integers(100, 120, (len(made), SIDE, SIDE, 3), dtype=np.uint8)
        self.has = np.flatnonzero((made.target == 1) & (draws.random(len(made)) < 0.4))
        self.all[self.has] = [ColourCue(CAST).inserted(self.all[row], self.all[row]) for row in self.has]
        if mark:
            self.all[made.target == 1, 10:14, 10:14] = 0
        self.most = most

    def pictures(self, positions):
        return {int(one): self.all[one] for one in positions}

    def probabilities(self, pictures):
        seen = np.stack(pictures).astype(float) / 255
        cast = (seen[..., 0] - seen[..., 2]).mean((1, 2))
        known = (cast > 0.4) & (self.most | (cast < 0.8))
        dark = seen[:, 10:14, 10:14].mean((1, 2, 3)) < seen.mean((1, 2, 3)) / 2
        own = np.where(known | dark, 0.95, 0.05)
        return np.stack([(1 - own) / 3, own, (1 - own) / 3, (1 - own) / 3], 1)


@pytest.mark.parametrize("most", [True, False])
def test_a_cast_that_is_used_is_confirmed_however_more_of_it_looks(most):
    made, *_ = records()
    subject = KnowsTheCast(made, most=most)
    (found,) = confirmed([claim_of_a_cast(subject, CAST)], made, subject, DEFAULT)
    assert found.confirmation.state == "confirmed"
    assert found.strength == pytest.approx(0.9, abs=0.02)  # as it is inserted, where there is a control


def test_a_cast_without_which_a_class_is_known_as_well_is_not_confirmed():
    """It makes others the class; but a colour that a class has naturally does so, too."""
    made, *_ = records()
    subject = KnowsTheCast(made, mark=True)
    (found,) = confirmed([claim_of_a_cast(subject, CAST)], made, subject, DEFAULT)
    inserted = [one for one in found.confirmation.changes if one.edit == "insert" and one.what != "accuracy"]
    assert inserted[0].low > 0.5
    assert found.confirmation.state == "not confirmed"


def test_a_cast_that_others_do_not_become_the_class_by_is_not_confirmed():
    """Whatever is done to the colours of a picture, it may be known less."""
    made, *_ = records()
    subject = KnowsTheCast(made)
    (found,) = confirmed([claim_of_a_cast(subject, (0.12, 0.0, -0.12))], made, subject, DEFAULT)
    removed = [one for one in found.confirmation.changes if one.edit == "remove" and one.what != "accuracy"]
    assert removed[0].high < -0.5
    assert found.confirmation.state == "not confirmed"


def claim_of_a_cast(subject, shift):
    rows = tuple(int(row) for row in subject.has)
    cue = ColourCue(shift)
    return Finding("image properties", "", "low", 1.0, {}, rows, (1.0,) * len(rows), 1, cue, Confirmation("not tested"))


@pytest.mark.parametrize("box", [Box(1 / 3, 1 / 3, 2 / 3, 2 / 3), Box(0.2, 0, 0.8, 0.6)])
def test_what_holds_the_middle_is_not_confirmed_for_want_of_a_control(box):
    """Where the blue of a class is its object: to take it away costs every picture its class."""
    made, *_ = records()
    subject = KnowsAnyway({}, made, CORNERS)
    rows = tuple(np.flatnonzero(made.target == 1).tolist())
    claim = Finding(
        "errors", "", "low", 1.0, {}, rows, (1.0,) * len(rows), 1, RegionCue(box), Confirmation("not tested")
    )
    (found,) = confirmed([claim], made, subject, DEFAULT)
    assert found.confirmation.state == "not tested"
    assert "middle" in found.confirmation.note
    assert found.severity == "low"
    assert subject.asked == 0


def test_every_place_at_an_edge_has_a_control():
    assert all(RegionCue(box).has_control for box in REGIONS.values())
