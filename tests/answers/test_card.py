"""The model card tells what there is and what there is not."""

import numpy as np
from support.answering import CLASSES, model_of

from deepknn_jax.answers.card import LEFT_OUT, card, few_lines, in_words
from deepknn_jax.evaluation.intervals import Judged, class_figures


def test_it_has_counts_figures_and_limits():
    model = model_of()
    text = card(model.about, model.calibrated, named=True)
    assert "| bcc | 7 | 4 | 0 | none there | - | - |" in text
    assert "| akiec | 20 | 12 | 4 | 75.0 % | - | - |" in text  # a folder from before intervals
    assert "on the 30 validation images" in text
    assert "too few calibration images are there to rule them out: bcc." in text
    assert "images of one patient may be in several" in text
    assert "treat it as the data themselves" in text


def test_without_validation_it_says_what_to_do():
    model = model_of(validates=False, shown=False)
    text = card(model.about | {"groups": True}, None, named=False)
    assert "train with --config.data.validation=0.2" in text
    assert "No patient, lesion or other group is in two" in text
    assert "names and thumbnails were left out" in text


def test_with_images_enough_nothing_is_said():
    model = model_of()
    assert few_lines(model.classes, model.calibrated, level=0.5) == []


def test_a_gallery_that_calibrates_itself_is_told_with_what_it_rests_on():
    model = model_of()
    about = model.about | {"calibration": LEFT_OUT, "reported": {"step": 0, "validation": None}}
    text = card(about, model.calibrated, named=False)
    assert "which was not trained on these data" in text
    assert "trained by deep kNN" not in text
    assert "30 training images, each judged without its own group" in text
    assert "what made its features is taken not to have been" in text


def test_figures_have_their_intervals_and_the_words_that_say_of_what():
    model = model_of()
    labels = np.array([0, 0, 0, 0, 2, 2, 2, 2, 2, 2])
    predicted = np.array([0, 0, 0, 2, 2, 2, 2, 2, 2, 0])
    scores = np.eye(3)[predicted]
    found = class_figures(Judged(labels, predicted, scores, np.arange(10) // 2), CLASSES)
    text = card(model.about | {"intervals": found}, None, named=False)
    own = found["per_class"]["akiec"]
    words = " | ".join((in_words(own["sensitivity"]) + " (rough)", in_words(own["specificity"]),
                        in_words(own["auc"], percent=False)))  # fmt: skip
    assert f"| akiec | 20 | 12 | 4 | {words} |" in text
    assert "draws of 5 patients or other groups" in text
    assert "These are fewer than 20" in text
    assert "K_p = 3" in text
    assert in_words({"value": 0.5, "low": 0.25, "high": 0.755}) == "50.0 % (25.0 to 75.5)"
    assert in_words({"value": 1.0, "low": None, "high": None}, percent=False) == "1.000"
    assert in_words({"value": None}) == "-"
