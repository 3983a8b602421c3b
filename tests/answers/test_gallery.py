"""A model folder's gallery changed: what votes, what calibrates, and that nothing is half done."""

import json
import shutil
import threading

import numpy as np
import pytest
from support.answering import CLASSES, FEATURES, examples, model_of

from deepknn_jax import files
from deepknn_jax.answers import gallery, journal
from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers.card import LEFT_OUT
from deepknn_jax.answers.judge import SCORE_K
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.run import open_run
from deepknn_jax.answers.state import cases_of, read
from deepknn_jax.errors import UserError
from deepknn_jax.evaluation.doubt import ratio_scores

K = 3  # K_p of the models


@pytest.fixture(scope="module")
def made(tmp_path_factory, compiled_once):
    """Two folders: calibrated, and bare of that, which needs no program where it changes."""
    root = tmp_path_factory.mktemp("made")
    model_lib.write(root / "calibrated", model_of(), "# Card\n")
    model_lib.write(root / "bare", model_of()._replace(calibrated=None), "# Card\n")
    return root


@pytest.fixture(scope="module")
def run(made):
    return open_run(made / "calibrated")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made / "bare", tmp_path / "model")


@pytest.fixture
def calibrated(made, tmp_path):
    return shutil.copytree(made / "calibrated", tmp_path / "model")


def new(n, seed=9, label=2):
    return examples(FEATURES, np.full(n, label), np.random.default_rng(seed)) + np.float32(40)


def states(model):
    cases = cases_of(model)
    return list(zip(cases.names.tolist(), cases.labels.tolist(), cases.votes.tolist(),
                    strict=True))  # fmt: skip


def test_a_gallery_that_calibrates_itself_does_so_anew(made, tmp_path):
    model = read(made / "calibrated")
    counts = {**model.about["counts"], "validation": [0, 0, 0]}
    about = {**model.about, "calibration": LEFT_OUT, "counts": counts}
    groups = np.arange(47) // 2  # leaves two images out at a time
    own = model.gallery._replace(groups=groups)
    model = Model(about, model.variables, own)
    model_lib.write(tmp_path / "model", model, "# Card\n")
    gallery.remove(tmp_path / "model", [own.names[0]])
    after = read(tmp_path / "model")
    scores = ratio_scores(
        own.embeddings[1:], own.embeddings[1:], own.labels[1:], num_classes=3, k=SCORE_K,
        query_groups_Q=groups[1:], gallery_groups_G=groups[1:],
    )  # fmt: skip
    np.testing.assert_allclose(
        after.calibrated.scores.scores, scores[np.arange(46), own.labels[1:]], rtol=1e-5
    )
    assert "without its own group" in (tmp_path / "model" / "README.md").read_text()


def test_a_new_class_joins_and_answers_without_a_p_value(calibrated, run):
    x = new(6)
    before = run.predict(x)
    done = gallery.add(
        calibrated, x, ["vasc"] * 6, names=list("abcdef"), note="seen in May", run=run
    )
    after = run._replace(model=read(calibrated))
    assert after.class_names == (*CLASSES, "vasc")
    found = after.predict(x + np.float32(0.01), k=K)
    assert (found.labels == 3).all()
    assert (before.labels != 3).all()
    assert np.isnan(found.p_values[:, 3]).all()
    assert found.sets[:, 3].all()
    assert np.isfinite(found.p_values[:, :3]).all()
    assert done.line.names == list("abcdef")
    assert states(after.model) == states(done.model)
    about = json.loads((calibrated / "model.json").read_text())
    assert about["counts"] == {"train": [20, 7, 20, 6], "validation": [12, 4, 14, 0],
                               "test": [4, 0, 6, 0]}  # fmt: skip
    card = (calibrated / "README.md").read_text()
    assert "| vasc | 6 | 0 | 0 | none there |" in card
    assert "| 1 | " in card
    assert "in May" in card
    assert "without a p-value and in every set: vasc" in card
    # As it was, to the bit.
    again = run._replace(model=read(calibrated, at=0)).predict(x)
    for one, other in zip(before, again, strict=True):
        np.testing.assert_array_equal(one, other)


def score(x, model, c):
    """The ratio score by its definition, in float64."""
    rows = model.gallery.embeddings.astype(np.float64)
    apart = np.sqrt(((rows - x.astype(np.float64)) ** 2).sum(axis=1))
    own = model.gallery.labels == c
    return np.sort(apart[own])[:SCORE_K].mean() / np.sort(apart[~own])[:SCORE_K].mean()


def test_what_calibrates_is_scored_anew_by_the_changed_gallery(calibrated, run):
    gallery.add(calibrated, new(6), ["vasc"] * 6, run=run)
    gallery.add(calibrated, new(9, seed=3), ["vasc"] * 9, calibrates=True, run=run)
    model = gallery.relabel(calibrated, {"case <22>.png": "akiec", "kept 2": "bcc"}).model
    for found in (model, read(calibrated)):
        own = found.calibration
        assert found.calibrated.scores.counts.tolist() == [11, 5, 14, 9]
        assert found.about["counts"]["train"] == [21, 6, 20, 6]
        wanted = [score(x, found, c) for x, c in zip(own.embeddings, own.labels, strict=True)]
        np.testing.assert_allclose(found.calibrated.scores.scores, wanted, rtol=1e-4)
        np.testing.assert_array_equal(found.calibrated.scores.labels, own.labels)
    p_values = run._replace(model=read(calibrated)).predict(new(4, seed=5)).p_values
    assert (p_values[:, 3] * 10 == np.round(p_values[:, 3] * 10)).all()  # of nine and itself
    trained = read(calibrated, at=0)
    assert trained.calibrated.scores.scores.tolist() != model.calibrated.scores.scores.tolist()


def test_the_last_image_of_a_class_takes_it_away_until_it_comes_back(calibrated, monkeypatch):
    monkeypatch.setattr(gallery, "recalibrated", lambda model: None)  # of other classes each time
    names = [f"case <{i}>.png" for i in range(20, 27)]  # all of bcc
    gone = gallery.remove(calibrated, names, note="another study's").model
    assert gone.classes == (CLASSES[0], CLASSES[2])
    assert gone.about["counts"]["train"] == [20, 20]
    assert np.bincount(gone.calibration.labels).tolist() == [12, 14]
    back = gallery.relabel(calibrated, {"case <0>.png": "bcc"}).model
    assert back.classes == CLASSES
    assert np.bincount(back.calibration.labels).tolist() == [12, 4, 14]
    assert read(calibrated, at=0).classes == CLASSES
    with pytest.raises(UserError, match="2 images would remain in the gallery, of which K_p = 3"):
        gallery.remove(calibrated, [f"case <{i}>.png" for i in (*range(18), *range(27, 47))])


def test_every_state_can_be_had_again_and_undone(folder, run):
    seen = [states(read(folder))]
    for change in (
        lambda: gallery.add(folder, new(3), ["nv", "nv", "akiec"], names=["x", "y", "z"], run=run),
        lambda: gallery.relabel(folder, {"x": "akiec", "case <9>.png": "bcc"}),
        lambda: gallery.remove(folder, ["y", "case <1>.png"]),
        lambda: gallery.restore(folder, 1, note="a mistake"),
        lambda: gallery.remove(folder, ["y"]),
        lambda: gallery.restore(folder, 3),
        lambda: gallery.restore(folder, 0),
    ):
        done = change()
        assert states(read(folder)) == states(done.model)
        seen.append(states(done.model))
    assert seen[4] == seen[1]
    assert seen[6] == seen[3]
    assert seen[7] == seen[0]
    assert len({str(each) for each in seen}) == 5
    for n, wanted in enumerate(seen):
        assert states(read(folder, at=n)) == wanted
    assert [line.did for line in gallery.history(folder)] == [
        "add", "relabel", "remove", "restore", "remove", "restore", "restore"]  # fmt: skip
    assert json.loads((folder / "model.json").read_text())["counts"]["train"] == [20, 7, 20]
    for at in (-1, 8):
        with pytest.raises(UserError, match=f"`at` is {at}: the journal of .* has 7 lines"):
            open_run(folder, at=at)
    with pytest.raises(UserError, match="`restore` is 9: the journal has 7 lines"):
        gallery.restore(folder, 9)


def test_copies_are_named_and_nothing_joins_twice(folder, run):
    x = new(3)
    gallery.add(folder, x, ["nv"] * 3, names=["a", "b", "c"], run=run)
    more = np.concatenate([x[1:].astype(np.float64), new(1, seed=2)])
    done = gallery.add(folder, more, ["nv"] * 3, names=["B", "C", "a"], run=run)
    assert done.copies == [("B", "b"), ("C", "c")]
    assert done.line.names == ["a (line 2)"]
    assert gallery.add(folder, x, ["nv"] * 3, run=run).line is None
    with pytest.raises(UserError, match=r"00001 \(mel\) is b \(nv\) over again: .* --relabel"):
        gallery.add(folder, x[:2], ["nv", "mel"], run=run)
    kept = gallery.add(folder, x[:1], ["nv"], calibrates=True, run=run)  # it votes
    assert kept.line is None
    assert gallery.relabel(folder, {"a": "nv"}).line is None
    assert gallery.restore(folder, 2).line is None
    assert journal.count(folder) == 2


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [(None, {}, "00000: has no label"), (["nv"], {}, "2 images and 1 `labels`"),
     (["nv", " "], {}, "00001: has no label"),
     (["vasc"] * 2, {"calibrates": True}, "vasc: no image of it is in the gallery")],
)  # fmt: skip
def test_what_cannot_join_is_named(folder, run, labels, options, words):
    with pytest.raises(UserError, match=words):
        gallery.add(folder, new(2), labels, run=run, **options)
    with pytest.raises(UserError, match="'x' and 1 more: --list"):
        gallery.remove(folder, ["x", "case <1>.png", "y"])
    with pytest.raises(UserError, match="x: its new label is empty"):
        gallery.relabel(folder, {"x": " "})
    assert journal.count(folder) == 0


def test_a_folder_that_left_names_and_pictures_out_takes_none(tmp_path, run):
    model = run.model._replace(calibrated=None)
    model_lib.write(tmp_path / "m", model._replace(gallery=model.gallery._replace(names=())), "")
    done = gallery.add(tmp_path / "m", new(2), ["nv", "nv"], names=["Miller", "Smith"], run=run)
    assert done.line.names == ["added image 1.1", "added image 1.2"]
    found = gallery.remove(tmp_path / "m", ["training image 3", "added image 1.1"]).model
    assert found.gallery.names[2:4] == ("training image 2", "training image 4")
    assert found.gallery.names[-1] == "added image 1.2"
    assert found.gallery.thumbnails is None
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"Smith" not in everything


def as_version_1(folder):
    for name, left in (("gallery", ["contents"]), ("calibration", ["embeddings", "contents",
                                                                   "names"])):  # fmt: skip
        with np.load(folder / f"{name}.npz") as found:
            arrays = {key: found[key] for key in found.files if key not in left}
        files.write_arrays(folder / f"{name}.npz", arrays)
    about = json.loads((folder / "model.json").read_text()) | {"version": 1}
    (folder / "model.json").write_text(json.dumps(about))
    (folder / "checksums.json").unlink()
    files.write_checksums(folder)


def test_a_folder_of_version_1_changes_without_p_values(calibrated, run):
    as_version_1(calibrated)
    own = examples(FEATURES, np.repeat([0, 1, 2], (20, 7, 20)), np.random.default_rng(0))
    done = gallery.add(calibrated, own[3:5], [CLASSES[0]] * 2, names=["p", "q"], run=run)
    assert done.copies == [("p", "case <3>.png"), ("q", "case <4>.png")]
    done = gallery.relabel(calibrated, {"case <3>.png": "bcc"})
    assert done.model.calibrated is None
    card = (calibrated / "README.md").read_text()
    assert "No image is there to calibrate the changed gallery" in card
    assert json.loads((calibrated / "model.json").read_text())["version"] == model_lib.VERSION
    assert gallery.restore(calibrated, 0).model.calibrated is not None
    np.testing.assert_array_equal(
        read(calibrated).calibrated.scores.scores, run.model.calibrated.scores.scores
    )


class Killed(BaseException):
    """Stands for a kill: nothing but `finally` comes after it."""


@pytest.mark.parametrize("leaving", [True, False])
def test_killed_at_any_write_it_is_the_one_or_the_other(folder, monkeypatch, leaving):
    """`leaving`: not even `finally` runs, so temporary files stay."""
    gallery.relabel(folder, {"case <7>.png": "bcc"})
    before = states(read(folder))
    calls = ("rename", "replace", "mkdir")
    real = {name: getattr(files.os, name) for name in calls}
    writes = []

    def dying(name, at):
        def call(*args, **kwargs):
            writes.append(name)
            if len(writes) == at:
                raise Killed
            return real[name](*args, **kwargs)

        return call

    if leaving:
        monkeypatch.setattr(files.shutil, "rmtree", lambda *args, **kwargs: None)
        monkeypatch.setattr(files.Path, "unlink", lambda *args, **kwargs: None)
    found = []
    for at in range(1, 20):
        here = shutil.copytree(folder, folder.with_name(f"at{at}"))
        writes.clear()
        with monkeypatch.context() as patched:
            for name in calls:
                patched.setattr(files.os, name, dying(name, at))
            try:
                gallery.remove(here, ["case <7>.png"])
                break
            except Killed:
                pass
        now = states(read(here))
        found.append(now == before)
        assert now in (before, [each for each in before if each[0] != "case <7>.png"])
        lines = gallery.history(here)
        about = json.loads((here / "model.json").read_text())
        assert about["changes"]["lines"] == len(lines) == 2 - found[-1]
        assert sum(about["counts"]["train"]) == 46 + found[-1]
        done = gallery.remove(here, ["case <8>.png"])  # and it goes on
        assert done.line.number == len(lines) + 1
    assert len(found) >= 5
    assert found == sorted(found, reverse=True)
    assert set(found) == {True, False}


def test_changes_at_once_are_all_kept(folder, run, monkeypatch):
    """Without the lock of one process, as by several: each line is written by one of them."""
    monkeypatch.setattr(gallery, "_ONE", threading.Semaphore(99))
    errors = []

    def change(i):
        try:
            gallery.relabel(folder, {f"case <{i}>.png": "bcc"}, note=str(i))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=change, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    lines = gallery.history(folder)
    assert sorted(line.note for line in lines) == list("012345")
    assert read(folder).gallery.labels[:6].tolist() == [1] * 6
    assert json.loads((folder / "model.json").read_text())["counts"]["train"] == [14, 13, 20]


def test_a_run_written_anew_keeps_the_changed_one_beside(folder, capsys):
    gallery.relabel(folder, {"case <1>.png": "bcc"})
    changed = states(read(folder))
    model_lib.write(folder, model_of()._replace(calibrated=None), "# Card\n")
    assert journal.count(folder) == 0
    assert states(read(folder.with_name("model.changed_1"))) == changed
    assert "is kept as" in capsys.readouterr().out
