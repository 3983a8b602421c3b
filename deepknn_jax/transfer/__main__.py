"""The command: python -m deepknn_jax.transfer --embeddings=FILE.npz [--survival=FILE.csv].

Frozen embeddings in other models (Neighborhood Watch, "Setting", second experiment): simple
classifiers on their principal components, and Cox's proportional hazards.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from deepknn_jax.data.dataset import TEST, TRAIN, Listing
from deepknn_jax.data.sources.arrays import npz
from deepknn_jax.data.survival import read_survival
from deepknn_jax.errors import UserError, renaming
from deepknn_jax.evaluation.pictures import scatter
from deepknn_jax.files import write_text
from deepknn_jax.logs import say
from deepknn_jax.mining.local_triplets import neighborhood_size
from deepknn_jax.shell import parse_flags, run_command
from deepknn_jax.transfer.classifiers import classify_all
from deepknn_jax.transfer.cox import survive


def read_embeddings(path: Path) -> Listing:
    """An .npz of embeddings (or features), labels, names, splits, classes, as a run leaves it.

    Raises:
        UserError: what `data.sources.arrays.npz` refuses; no training or no test part.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; --embeddings is the embeddings.npz of a run")
    listing = npz(path)
    if listing.inputs is None or listing.inputs.ndim != 2:
        raise UserError(f"{path}: holds images or views; --embeddings is the embeddings.npz of a "
                        "run")  # fmt: skip
    for part in (TRAIN, TEST):
        if listing.splits is None or part not in listing.splits:
            raise UserError(f"{path}: names no {part} part; splits [N] must hold train and test")
    return listing


def table(results: Mapping[str, Any]) -> str:
    """The results of transfer.json as plain text."""
    lines = [f"{'classifier':<12}{'Acc':>6}{'MCR':>6}", "-" * 24]
    for name, found in results["classifiers"].items():
        shown = f"{name}, k = {results['k']}" if name == "kNN" else name
        lines.append(f"{shown:<12}{100 * found['acc']:>6.1f}{100 * found['mcr']:>6.1f}")
    if "survival" in results:
        found = results["survival"]
        lines.append(f"Cox: C-index {found['c_index']:.4f}, log-rank p {found['logrank_p']:.2g}")
    return "\n".join(lines)


# What the flags are called in the errors of the functions that take them.
_FLAGS = {
    name: f"--{name}" for name in ("survival", "k", "name_column", "time_column", "event_column")
}


@renaming(_FLAGS | {"names": "embeddings", "folder": "--embeddings"})
def main() -> None:
    """Writes transfer.json, scatter.png and, with --survival, km.png; prints the table.

    The validation part of the embeddings is not used.

    Raises:
        UserError: no embeddings are given, or they or the survival cannot be used.
    """
    values = flags.FLAGS
    if not values.embeddings:
        raise UserError("say --embeddings=FILE.npz, the embeddings of a run")
    path = Path(values.embeddings).expanduser()
    listing = read_embeddings(path)
    keys = ("time_column", "event_column", "name_column")
    columns: dict[str, Any] = {key: values[key].value for key in keys}
    survival = read_survival(values.survival, **columns) if values.survival else None
    out = Path(values.out).expanduser() if values.out else path.parent
    out.mkdir(parents=True, exist_ok=True)
    assert listing.inputs is not None
    train, test = listing.splits == TRAIN, listing.splits == TEST
    train_x, test_x = listing.inputs[train], listing.inputs[test]
    train_y, test_y = listing.labels[train], listing.labels[test]
    k = neighborhood_size(values.k, len(train_y))
    results: dict[str, Any] = {"embeddings": values.embeddings, "pca": values.pca, "k": k}
    results |= {"seed": values.seed, "train": len(train_y), "test": len(test_y)}
    results["classifiers"] = classify_all(
        train_x, train_y, test_x, test_y, pca=values.pca, k=k, seed=values.seed
    )
    scatter(out / "scatter.png", train_x, test_x, test_y, listing.class_names)
    if survival:
        results["survival"] = survive(listing, survival, out, pca=values.cox_pca)
    write_text(out / "transfer.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    say(table(results))
    say(f"written to {out / 'transfer.json'}")


def cli() -> None:
    """Entry point."""
    flags.DEFINE_string("embeddings", None, "The embeddings.npz of a run.")
    flags.DEFINE_integer("pca", 32, "Principal components for the classifiers.", lower_bound=1)
    flags.DEFINE_integer("k", 0, "Neighbours that vote; 0: the root of n.", lower_bound=0)
    flags.DEFINE_string("out", None, "Folder of what is written; default: that of the embeddings.")
    flags.DEFINE_integer("seed", 0, "Of the tree and the MLP.", lower_bound=0)
    flags.DEFINE_string("survival", None, "A csv with the survival of each embedding's name.")
    flags.DEFINE_string("time_column", "time", "Its column of times.")
    flags.DEFINE_string("event_column", "event", "Its column of events: 1 died, 0 censored.")
    flags.DEFINE_string("name_column", "name", "Its column of names.")
    flags.DEFINE_integer("cox_pca", 8, "Principal components for Cox's model.", lower_bound=1)
    run_command(main, parse_flags, like="--pca=32")


if __name__ == "__main__":
    cli()
