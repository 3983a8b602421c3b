"""The t-SNE map of embeddings, computed in a process of its own while a run is evaluated.

A thread would share the interpreter with the evaluation and wait for it in each of the thousand
iterations (3.4 s in the place of 2.1 for 780 embeddings). This file is that process's program, too:
it imports neither JAX nor the rest of the package.
"""

import contextlib
import io
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np

MAX_POINTS = 2000

Map = Callable[[], np.ndarray]


def spread_rows(splits_N: np.ndarray, labels_N: np.ndarray, most: int | None = None) -> np.ndarray:
    """At most `most` (MAX_POINTS) rows, evenly spaced by (split, label, chance); ascending."""
    n, most = len(labels_N), most or MAX_POINTS
    order = np.lexsort((np.random.default_rng(0).random(n), labels_N, splits_N))
    return np.sort(order[np.linspace(0, n - 1, min(n, most)).round().astype(int)])


def tsne_map(embeddings_NxD: np.ndarray) -> np.ndarray:
    """The t-SNE map [N, 2]; with fewer than 4 points, which it cannot do, the first dimensions.

    2,000 take some seconds.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    n, D = embeddings_NxD.shape
    embeddings = np.asarray(embeddings_NxD, np.float32)
    centered = embeddings - embeddings.mean(0)
    if n < 4 or not centered.any():
        return np.pad(centered, ((0, 0), (0, 2)))[:, :2]
    if D > 50:  # as scikit-learn advises
        centered = PCA(min(50, n), random_state=0).fit_transform(centered)
    init = "pca" if D > 1 else "random"
    perplexity = min(30.0, (n - 1) / 3)
    # Threads that wait for each other in each iteration: on a busy machine 30 s for 5 points.
    with threadpool_limits(1):
        return TSNE(perplexity=perplexity, init=init, random_state=0).fit_transform(centered)


@contextlib.contextmanager
def begun() -> Iterator[Callable[[np.ndarray], Map]]:
    """Starts the process, which imports what it needs; call what is given with embeddings.

    That gives at once what to call for their map [N, 2], which waits for it. Where the process
    ended without one, as by a signal, the map is computed then. The process is ended where it was
    given nothing, and by an exception; one whose parent died ends itself.

    Raises:
        OSError: no process can be started.
    """
    process = subprocess.Popen(
        [sys.executable, "-P", __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    waiting: list[threading.Thread] = []

    def send(embeddings_NxD: np.ndarray) -> Map:
        found: Future[np.ndarray | None] = Future()
        arguments = (process, embeddings_NxD, found)
        waiting.append(threading.Thread(target=_wait, args=arguments, name="t-SNE", daemon=True))
        waiting[0].start()

        def mapped() -> np.ndarray:
            answer = found.result()
            return tsne_map(embeddings_NxD) if answer is None else answer

        return mapped

    is_over = True
    try:
        yield send
        is_over = not waiting
    finally:
        if is_over:
            process.kill()
            waiting[0].join() if waiting else process.communicate()


def _wait(
    process: "subprocess.Popen[bytes]",
    embeddings_NxD: np.ndarray,
    found: "Future[np.ndarray | None]",
) -> None:
    """Sends the embeddings, and has their map as what is found; None where none comes."""
    answer = None
    with contextlib.suppress(OSError, ValueError, EOFError):
        said, _ = process.communicate(_packed(embeddings_NxD))
        answer = _unpacked(said) if process.returncode == 0 else None
    found.set_result(answer)


def _packed(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


def _unpacked(data: bytes) -> np.ndarray:
    array: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _main() -> None:
    """Reads embeddings from standard input and writes their map."""
    import sklearn.decomposition
    import sklearn.manifold  # noqa: F401  while the other process is still embedding

    sys.stdout.buffer.write(_packed(tsne_map(_unpacked(sys.stdin.buffer.read()))))


if __name__ == "__main__":
    _main()
