import gc
import io
import signal
import subprocess
import sys

import numpy as np
import pytest

from deepknn_jax.evaluation import tsne


@pytest.fixture
def started(monkeypatch):
    """The processes that were started."""
    processes, real = [], subprocess.Popen

    def start(*args, **kwargs):
        processes.append(real(*args, **kwargs))
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    return processes


def clusters(n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 3
    return (10 * np.eye(3, 200)[labels] + rng.normal(size=(n, 200)) * 0.3).astype(
        np.float32
    ), labels


@pytest.mark.parametrize(("n", "D"), [(1, 5), (2, 1), (3, 2), (4, 3), (5, 1), (9, 64), (40, 128)])
def test_a_map_of_few_examples(n, D):
    points = tsne.tsne_map(np.random.default_rng(n).normal(size=(n, D)))
    assert points.shape == (n, 2)
    assert np.isfinite(points).all()


def test_the_map_keeps_clusters_together():
    x, labels = clusters()
    points = tsne.tsne_map(x)
    np.testing.assert_array_equal(points, tsne.tsne_map(x))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert np.all(labels[distances.argmin(1)] == labels)


def test_the_process_computes_the_same_map():
    x, _ = clusters()
    with tsne.begun() as send:
        found = send(x)
    np.testing.assert_array_equal(found(), tsne.tsne_map(x))


def test_without_the_process_the_map_or_its_error_is_found_here(started):
    x, _ = clusters()
    with tsne.begun() as send:
        started[0].kill()
        found = send(x)
    np.testing.assert_array_equal(found(), tsne.tsne_map(x))
    with tsne.begun() as send:
        found = send(np.full((9, 3), np.nan, np.float32))
    with pytest.raises(ValueError, match="NaN"):
        found()


def test_a_process_that_is_given_nothing_is_ended(started):
    with pytest.raises(KeyboardInterrupt), tsne.begun():
        raise KeyboardInterrupt
    assert started[0].returncode is not None
    gc.collect()  # warnings are errors: nothing is left open


def test_a_process_whose_map_nobody_will_ask_for_is_ended(started):
    def interrupted() -> None:
        with tsne.begun() as send:
            send(clusters(1500)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started[0].returncode == -signal.SIGKILL


def test_what_the_process_printed_besides_is_no_map(monkeypatch, started):
    x, _ = clusters()
    with tsne.begun() as send:
        monkeypatch.setattr(tsne, "_unpacked", lambda data: np.load(io.BytesIO(b"hello" + data)))
        found = send(x)
        np.testing.assert_array_equal(found(), tsne.tsne_map(x))


def test_the_process_imports_neither_jax_nor_the_package():
    code = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""
    command = [sys.executable, "-P", "-c", code, tsne.__file__]
    given = tsne._packed(clusters()[0])
    said = subprocess.run(command, input=given, capture_output=True, check=True)
    modules = set(said.stderr.decode().split())
    assert "sklearn" in modules
    assert not modules & {"jax", "deepknn_jax"}


def test_rows_drawn_are_in_proportion_to_splits_and_classes():
    labels = np.repeat([0, 1, 2], [6000, 900, 101])
    splits = np.where(np.random.default_rng(0).random(7001) < 0.2, "test", "train")
    rows = tsne.spread_rows(splits, labels)
    assert len(np.unique(rows)) == tsne.MAX_POINTS == 2000
    np.testing.assert_array_equal(rows, tsne.spread_rows(splits, labels))
    for c in range(3):
        for split in ("train", "test"):
            share = np.sum((labels == c) & (splits == split)) * 2000 / 7001
            assert abs(np.sum((labels[rows] == c) & (splits[rows] == split)) - share) < 2
    np.testing.assert_array_equal(tsne.spread_rows(splits, labels, 9000), np.arange(7001))
