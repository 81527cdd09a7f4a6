"""Colours of a class that are of several kinds, with a cast in part of its pictures, and without."""

import numpy as np
import pytest
from made_records import auroc, records

from xai_fast.audit.checks import image_properties
from xai_fast.audit.checks.confirm import confirmed
from xai_fast.audit.checks.cues import ColourCue
from xai_fast.audit.checks.thresholds import DEFAULT

SIDE = 8
CAST = (0.14, 0.0, -0.1)
ALONG = np.array([1.0, -0.3, -0.6])  # kinds of pictures differ in nearly the same direction as a cast goes
KINDS = (0.06, 0.19, 0.36)
OTHERS = np.array([[0.55, 0.55, 0.55], [np.nan] * 3, [0.4, 0.5, 0.4], [0.35, 0.4, 0.55]])  # by class


class Pictures:
    """Class 1 shows three kinds of pictures, others one each; half of those with the cast show another class.

    The class is known by the colours of its own kinds, and by those that only the cast makes.
    """

    def __init__(self, made, seed=0, *, part=0.4):
        draws = np.random.default_rng(seed)
        own, count = made.target == 1, len(made)
        self.has = own & (draws.random(count) < part)
        kind = np.array(KINDS)[draws.choice(3, count, p=(0.6, 0.25, 0.15))]
        mean = 0.45 + kind[:, None] * ALONG
        shown = np.where(self.has & (draws.random(count) < 0.5), draws.choice([0, 2, 3], count), made.target)
        mean = np.where((shown == 1)[:, None], mean, OTHERS[shown]) + draws.normal(0, 0.008, (count, 3))
        rough = draws.normal(0, 0.02, (count, SIDE, SIDE, 3))
        self.all = (255 * (mean[:, None, None] + rough)).round().clip(0, 255).astype(np.uint8)
        for row in np.flatnonzero(self.has):
            self.all[row] = ColourCue(CAST).inserted(self.all[row], self.all[row])

    def numbers(self, made):
        red, green, blue = self.all.mean((1, 2)).T / 255
        return {**made.numbers, "red": red, "green": green, "blue": blue, "brightness": (red + green + blue) / 3}

    def pictures(self, positions):
        return {int(one): self.all[one] for one in positions}

    def probabilities(self, pictures):
        seen = np.stack(pictures).mean((1, 2)) / 255

        def near(means):
            casts = [seen - seen.mean(1, keepdims=True) - (mean - mean.mean()) for mean in means]
            return np.any([np.abs(one).max(1) < 0.045 for one in casts], 0)

        others = OTHERS[[0, 2, 3]]
        kinds = 0.45 + np.array(KINDS)[:, None] * ALONG
        known = near(np.concatenate([kinds, kinds + CAST, others + CAST])) & ~near(others)
        own = np.where(known, 0.95, 0.05)
        return np.stack([(1 - own) / 3, own, (1 - own) / 3, (1 - own) / 3], 1)


def found_in(seed, part):
    made, *_ = records(seed=seed)
    subject = Pictures(made, seed, part=part)
    made, *_ = records(seed=seed, numbers=subject.numbers(made))
    found = [one for one in image_properties.check(made, DEFAULT) if one.cue is not None]
    return made, subject, confirmed(found, made, subject, DEFAULT)


@pytest.mark.parametrize("seed", range(3))
def test_a_cast_is_found_in_a_class_whose_own_colours_are_of_several_kinds(seed):
    made, subject, found = found_in(seed, 0.4)
    (found,) = [one for one in found if one.class_index == 1]
    assert found.evidence["property"] == "red cast"
    assert found.confirmation.state == "confirmed"
    assert found.cue.shift == pytest.approx(CAST, abs=0.03)
    scores = np.full(len(made), -np.inf)
    scores[list(found.positions)] = found.scores
    own = made.target == 1
    assert auroc(scores[own], subject.has[own]) >= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_kinds_of_pictures_of_a_clean_class_are_nothing_above_low(seed):
    """What leads from one kind to another leads to the class again, whatever it is known by."""
    _, _, found = found_in(seed, 0.0)
    assert [one.class_index for one in found] == [1]  # which is asked about, and
    assert found[0].confirmation.state == "not confirmed"
    assert found[0].severity == "low"
