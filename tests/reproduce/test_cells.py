"""Cells: when two are one, and about what they take."""

import pytest
from support.reproduced import empty_root, options, tiny_root  # noqa: F401  (fixtures)

from deepknn_jax.reproduce.cells import Cell, Options, named

CELL = Cell("deep_knn-seed0", "skin7", "deep_knn", {"loss.name": "deep_knn"}, 0.0)


def name(options, **more):  # noqa: F811
    changes = more.pop("changes", {})
    return named(CELL._replace(changes=CELL.changes | changes, **more), options).name


def test_another_config_is_another_cell_and_another_place_is_not(options, tmp_path):  # noqa: F811
    here = name(options)
    assert here.startswith("skin7/deep_knn-seed0-")
    assert name(options._replace(out=tmp_path / "elsewhere", data_root=tmp_path)) == here
    assert name(options, changes={"loss.margin": 1.0}) == here  # the config's own
    assert name(options, changes={"loss.margin": 2.0}) != here
    assert name(options, changes={"data.dir": "x", "checkpoint_seconds": 1.0}) == here


def test_weights_start_and_reference_make_other_cells(options):  # noqa: F811
    here = {name(options), name(options, reference="untrained"), name(options, reference="pixels")}
    start = CELL._replace(name="skin7/weighted_ce-seed0-1")
    here |= {name(options, start=start), name(options, start=start._replace(name="other"))}
    weights = [{"model.weights": path} for path in ("a/resnet50.pth", "b/resnet50.pth", "a/other")]
    same, moved, other = [name(options, changes=changes) for changes in weights]
    assert same == moved  # the file, not where it lies
    assert len(here | {same, other}) == 7
    rate = {"optimizer.learning_rate": 0.5}
    assert name(options, changes=rate) not in here
    assert name(options, changes=rate, reference="pixels") in here  # nothing is trained


@pytest.mark.parametrize(
    ("changes", "more", "hours"),
    [
        ({"model.name": "resnet50", "epochs": 60}, {}, 46.4),
        ({"model.name": "vgg19", "epochs": 5, "augment.crop": 64}, {}, 1.42),
        ({"model.name": "vgg19"}, {"reference": "untrained"}, 1.39),
        ({"model.name": "resnet50"}, {"reference": "untrained"}, 0.309),
        ({"model.name": "resnet50", "epochs": 60}, {"seconds": 36.0}, 0.01),
    ],
)
def test_what_a_cell_takes_by_its_images_and_pixels(tmp_path, changes, more, hours):
    here = Options(empty_root(tmp_path), tmp_path / "out", seeds=1)
    cell = CELL._replace(changes=changes, **more)
    assert named(cell, here).seconds / 3600 == pytest.approx(hours, rel=0.01)
    assert named(cell, here._replace(gpu=True)).seconds / 36 == pytest.approx(hours, rel=0.01)
