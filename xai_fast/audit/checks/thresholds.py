"""What counts as worth reporting: every limit that checks and confirmations compare with, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Thresholds:
    """Limits; shares and probabilities are in [0, 1].

    Attributes:
        alpha: the chance of one false claim or more that a check accepts, all of its tests together (Holm).
        least_images: of a group that is compared with others.
        tail: what counts as unusual: values above this quantile of the other classes' images.
        least_share: of a class's images that must be unusual.
        least_density: attribution per area in a region, of the images that are unusual; 1 is that of the whole picture.
        least_lift: how many times as often a class must look at a place as other classes do.
        beyond_one: how many times as much as one corner all four must explain to be named together.
        small_place: share of the picture up to which the place that a group looks at is a small one.
        surely: of the images of a class that may have other colours, the share that must surely have them.
        tied: least Cramér's V between metadata and label.
        property_effect: least rank-biserial correlation of a property, in [0, 1].
        changed: how much of a map's length must change under noise for it to be another map; see `store.maps.compared`.
        unstable: share of images whose maps become others, from which on a method's maps are not to be relied on.
        overlap: least part of the way from chance (the mask's area) to everything inside that attribution must go.
        error_gain: by how much the error rate of a group must exceed that of the rest.
        most_explained: wrong answers of a class, and right ones, that the model is asked to explain.
        most_mistakes: classes whose errors it is asked to explain.
        twins: of the 128 bits by which a picture is known again, how many may differ between near duplicates.
        twin_cast: by how much the colours of near duplicates may differ, beside their brightness.
        twin_contrast: by which factor the contrast of a turned copy may differ; half of its bits are compared.
        leaked: share of a split's images with a duplicate in another split, from which on that is a grave matter.
        dark: of the 99 % quantile of brightness, below which a picture is dark.
        bright: of the 5 % quantile of brightness, above which it is bright.
        empty: bits per pixel, by the histogram of brightness, below which it holds next to nothing.
        blurred: sharpness over contrast, below which it is blurred.
        flat: contrast below which sharpness says nothing.
        grey: distance between the strongest and the weakest channel, below which it has no colour.
        odd_aspect: of the shorter side over the longer, below which the proportions are odd.
        odd_size: by how many interquartile ranges (of logarithms) beyond the quartiles, and by which factor from the
            median, a size is odd.
        usual: share of the images, or of those of a class, from which on any of these, or a colour, is what they are.
        sound_outliers: of the images that are said to be outliers, the share that may be the tail of sound ones.
        in_turn: least correlation of an image with the next of its class, in [0, 1].
        rare: share of an even share of the images, below which a class is rare.
        doubt: least doubt in a label, in [0, 1], at which an image counts as mislabelled.
        doubt_again: the same where the model was asked again, which throws less doubt on sound labels.
        some_doubt: from which on it is listed behind those; half says that another class is as likely as the label's.
        most_moved: images about which the model is asked again, moved by some pixels.
        many_mislabelled: share of a data set from which on they are a grave matter; `some_mislabelled` likewise.
        less_sure: quantile of the control's effects, beyond which images are listed behind those that surely have a cue
            (those beyond `tail`).
        least_odds: change of the odds, as a logarithm, below which no image is said to have it; and of a shift of
            colours, by which it may make images more like those of other classes.
        confirmed: least change of the probability beyond the control's, at the lower end of its interval.
        grave: change of the probability from which on a confirmed finding is grave.
        confidence: of intervals, all confirmations of one audit together (Bonferroni); and that there are outliers.
        least_confirming: held-out images that a confirmation needs.
        most_confirming: held-out images that it takes.
        most_confirmed: findings that are confirmed, the strongest first.
    """

    alpha: float = 0.01
    least_images: int = 20
    tail: float = 0.95
    least_share: float = 0.15
    least_density: float = 1.0
    least_lift: float = 2.0
    beyond_one: float = 1.5
    small_place: float = 1 / 6
    surely: float = 0.25
    tied: float = 0.3
    property_effect: float = 0.5
    changed: float = 0.5
    unstable: float = 0.2
    overlap: float = 0.1
    error_gain: float = 0.1
    most_explained: int = 48
    most_mistakes: int = 12
    twins: int = 10
    twin_cast: float = 0.06
    twin_contrast: float = 1.25
    leaked: float = 0.01
    dark: float = 0.37
    bright: float = 0.95
    empty: float = 2.0
    blurred: float = 0.08
    flat: float = 0.02
    grey: float = 0.02
    odd_aspect: float = 0.35
    odd_size: tuple[float, float] = (3.0, 2.0)
    usual: float = 0.5
    sound_outliers: float = 0.4
    in_turn: float = 0.1
    rare: float = 0.1
    doubt: float = 0.8
    doubt_again: float = 0.75
    some_doubt: float = 0.5
    most_moved: int = 4096
    many_mislabelled: float = 0.02
    some_mislabelled: float = 0.01
    less_sure: float = 0.75
    least_odds: float = 1.0
    confirmed: float = 0.1
    grave: float = 0.3
    confidence: float = 0.95
    least_confirming: int = 12
    most_confirming: int = 128
    most_confirmed: int = 24


DEFAULT = Thresholds()
