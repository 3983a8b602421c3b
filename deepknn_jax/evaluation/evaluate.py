"""Examples embedded, classified by the vote of their neighbours, and measured by it."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from deepknn_jax.engine.feed import Store, eval_batches
from deepknn_jax.engine.parallel import Devices, Embed, fetch
from deepknn_jax.evaluation.metrics import classification_metrics
from deepknn_jax.knn.neighbors import ids_at
from deepknn_jax.knn.sharded import Nearest, nearest_on_one_device
from deepknn_jax.knn.sizes import filled_to
from deepknn_jax.knn.vote import MAJORITY, VoteRule, elect, weights_of

Entry = dict[str, Any]
# Of a gallery up to this size as many queries are searched as it has, copies among them, if a fifth
# are there: the search of the training part, left out one by one, and that of the test part are one
# program then. Compiling another takes a second, the copies some milliseconds.
_ALIKE = 2048


class Embedded(NamedTuple):
    """Embeddings float32 [n, D] of the examples `rows` [n], and where there is a head its classes.

    `head` int32 [n] are the classes of the largest logits: these, [n, C], would be many numbers.
    """

    rows: np.ndarray
    embeddings: np.ndarray
    head: np.ndarray | None


class Evidence(NamedTuple):
    """n queries' k nearest gallery examples, ascending by distance.

    `distances` [n, k]; `rows` [n, k], the neighbours' rows in the data set (-1: none left);
    `predictions` {K_p: labels [n]}; `k_p`, the one that is reported, 0: the largest.
    """

    distances: np.ndarray
    rows: np.ndarray
    predictions: dict[int, np.ndarray]
    k_p: int = 0

    @property
    def reported(self) -> tuple[int, np.ndarray]:
        """The K_p that is reported, and its labels [n]."""
        k = self.k_p or max(self.predictions)
        return k, self.predictions[k]


def embed_rows(
    embed: Embed,
    variables: tuple[Any, Any],
    store: Store,
    devices: Devices,
    rows_n: np.ndarray,
    batch_size: int,
) -> Embedded:
    """Embeds the examples `rows_n`, each exactly once, also in a partial last batch.

    Args:
        embed: what `parallel.map_embed` returns.
        variables: (params, batch_stats).
        store: where the inputs are.
        devices: on which to embed.
        rows_n: int [n].
        batch_size: examples at a time.
    """
    embeddings, head = [], []
    # Shown where it takes a while: a large network on a CPU.
    progress = tqdm(total=len(rows_n), desc="embedding", unit=" examples", delay=5, disable=None)
    for pool, rows_B, count in eval_batches(store, devices, rows_n, batch_size):
        embeddings_BxD, logits_BxC = embed(*variables, pool, rows_B)
        embeddings.append(fetch(embeddings_BxD)[:count].astype(np.float32))
        if logits_BxC is not None:
            logits = fetch(logits_BxC)[:count].astype(np.float32)
            head.append(np.argmax(logits, axis=1).astype(np.int32))
        progress.update(count)
    progress.close()
    return Embedded(rows_n, np.concatenate(embeddings), np.concatenate(head) if head else None)


def classify(
    queries: Embedded,
    gallery: Embedded,
    labels_N: np.ndarray,
    *,
    k_ps: Collection[int],
    num_classes: int,
    p: float,
    nearest: Nearest = nearest_on_one_device,
) -> Evidence:
    """The kNN vote of the gallery on each query, for each K_p; an example never votes on itself.

    `nearest` is the search, over all devices.
    """
    count, size = len(queries.rows), len(gallery.rows)
    filled = size if 0 < count < size <= min(_ALIKE, 5 * count) else count
    found, places = nearest(
        filled_to(queries.embeddings, filled),
        gallery.embeddings,
        k=max(k_ps),
        p=p,
        query_ids=filled_to(queries.rows, filled),
        gallery_ids=gallery.rows,
    )
    unknown = dict.fromkeys(k_ps, np.zeros(0, np.int32))
    evidence = Evidence(np.asarray(found), ids_at(places, gallery.rows), unknown)
    evidence = elected(evidence, labels_N, class_counts=np.ones(num_classes), rule=MAJORITY)
    predictions = {k: labels[:count] for k, labels in evidence.predictions.items()}
    return Evidence(evidence.distances[:count], evidence.rows[:count], predictions)


def elected(
    evidence: Evidence, labels_N: np.ndarray, *, class_counts: np.ndarray, rule: VoteRule
) -> Evidence:
    """The evidence with what its neighbours elect by the rule, for the same K_p; no new search.

    `class_counts` int [C]: how many of each class the gallery has.
    """
    voters, weights = voters_of(evidence, labels_N), weights_of(rule, class_counts)

    def predict(k: int) -> np.ndarray:
        near, voting = jnp.asarray(evidence.distances[:, :k]), jnp.asarray(voters[:, :k])
        return np.asarray(elect(near, voting, num_classes=len(class_counts), weights=weights))

    return evidence._replace(predictions={k: predict(k) for k in sorted(evidence.predictions)})


def voters_of(evidence: Evidence, labels_N: np.ndarray) -> np.ndarray:
    """Classes int [n, k] of the neighbours; -1 where there is none."""
    return np.where(evidence.rows < 0, -1, labels_N[evidence.rows])


def chosen(queries: Embedded, evidence: Evidence, of_n: np.ndarray) -> tuple[Embedded, Evidence]:
    """Those of the queries that the mask `of_n` has, and what the vote on them was."""
    head = None if queries.head is None else queries.head[of_n]
    predictions = {k: labels[of_n] for k, labels in evidence.predictions.items()}
    return (
        Embedded(queries.rows[of_n], queries.embeddings[of_n], head),
        Evidence(evidence.distances[of_n], evidence.rows[of_n], predictions, evidence.k_p),
    )


def metrics_by_vote(
    queries: Embedded,
    evidence: Evidence,
    labels_N: np.ndarray,
    *,
    class_names: Sequence[str],
    train_counts: np.ndarray,
) -> dict[str, Entry]:
    """{"1": {...}, "5": {...}, "head": {...}}: the metrics for each K_p, and of the head if any."""
    labels_n = labels_N[queries.rows]
    predictions = {str(k): labels for k, labels in evidence.predictions.items()}
    if queries.head is not None:
        predictions["head"] = queries.head
    return {
        name: classification_metrics(
            labels_n, predicted, class_names=class_names, train_counts=train_counts
        )
        for name, predicted in predictions.items()
    }
