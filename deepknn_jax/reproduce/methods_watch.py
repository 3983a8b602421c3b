"""The methods of Neighborhood Watch's tables, and the options that are searched for each."""

import itertools

from deepknn_jax.reproduce.methods import Changes, some_of

TUNED = "tuned_nw.json"
_MAX_MARGIN: Changes = {"loss.name": "max_margin", "loss.margin": 1e6}
WATCH: dict[str, Changes] = {
    "lm_mining": {"loss.name": "local_margin", "loss.mine": True},
    "lm": {"loss.name": "local_margin", "loss.mine": False},
    "mm": _MAX_MARGIN,
    "mm_hard": {"loss.name": "max_margin_hard", "loss.margin": 1e6},
    "softmax": {"loss.name": "cross_entropy"},
    "deep_knn": {"loss.name": "deep_knn", "loss.k": 5, "loss.margin": 1.0},
}
TITLES = {
    "lm_mining": "LM-Mining",
    "lm": "LM",
    "mm": "MM",
    "mm_hard": "MM-HardMin",
    "softmax": "Softmax",
    "deep_knn": "deep kNN (the other paper)",
}

# What is searched: of two learning rates x two batches x four options of the method's own (and on
# features dropout or not) as many as TRIALS, at random, the same places for each method; of images,
# half as many. The vote's K_p is chosen with them, of 1, 5 and the root of the
# training part's size.
TRIALS = 8
_RATES = (1e-4, 1e-3)
_NEIGHBORHOODS: tuple[Changes, ...] = tuple(
    {"loss.k": k, "loss.w_sd": w_sd} for k in (0, 5) for w_sd in (1.0, 0.0)
)
_SPREADS: tuple[Changes, ...] = tuple({"loss.w_sd": w_sd} for w_sd in (0.0, 0.01, 0.1, 1.0))
_OWN: dict[str, tuple[Changes, ...]] = {
    "lm_mining": _NEIGHBORHOODS,
    "lm": _NEIGHBORHOODS,
    "mm": _SPREADS,
    "mm_hard": _SPREADS,
    "softmax": tuple({"optimizer.weight_decay": decay} for decay in (0.0, 1e-3, 1e-2, 1e-1)),
    "deep_knn": (
        {"loss.margin": 1.0},
        {"loss.margin": 4.0},
        {"loss.margin": 0.3, "model.normalize": True},
        {"loss.margin": 1.0, "model.normalize": True},
    ),
}


def balanced(classes: int) -> Changes:
    """Batches of about a hundred, of all classes."""
    per_class = 96 // classes
    size = classes * per_class
    return {"batch.kind": "balanced", "batch.size": size, "batch.classes": classes,
            "batch.per_class": per_class}  # fmt: skip


def trials(method: str, *, classes: int, features: bool) -> list[Changes]:
    """The changes of each trial of `method`, on top of WATCH: as many for every method."""
    dropouts: tuple[Changes, ...] = ({"model.dropout": 0.0}, {"model.dropout": 0.3})
    batches: tuple[Changes, ...] = (
        {"batch.kind": "shuffled", "batch.size": 128},
        balanced(classes),
    )
    grid = [
        {"optimizer.learning_rate": rate} | batch | less | own
        for rate, batch, less, own in itertools.product(
            _RATES, batches, dropouts if features else ({},), _OWN[method]
        )
    ]
    return some_of(grid, TRIALS if features else TRIALS // 2)
