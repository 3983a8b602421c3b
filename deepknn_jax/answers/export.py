"""A model as one archive for other programs: StableHLO that JAX alone runs, and its arrays."""

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax import export as jax_export
from safetensors.numpy import save

import deepknn_jax
from deepknn_jax.answers.judge import SCORE_K, rule_of, vote_options
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.network import form_of, recipe_of
from deepknn_jax.answers.source import named_variables, tree_of
from deepknn_jax.engine.step import embed
from deepknn_jax.errors import UserError
from deepknn_jax.files import replacing
from deepknn_jax.knn.vote import knn_classify

VERSION = 1  # of the archive's form
PLATFORMS = ("cpu", "cuda", "tpu")
_QUERIES = 128  # that are searched for at a time, as answers.judge does
_GALLERY = "gallery/"
_DTYPES = (np.float32, np.int32)  # that templates/example.py reads

HOW_P_VALUES_COME = (
    "score(x, c) is the mean distance (of order p) of x's embedding to its score_k nearest gallery "
    "embeddings of class c, over the mean distance to its score_k nearest of all other classes; "
    "of fewer where there are fewer; 1 where both means are 0, infinite where the class has none. "
    "p(x, c) = (1 + number of scores of label c that are >= score(x, c)) / (1 + number of scores "
    "of label c). The set at a level such as 0.9: the classes with p > 1 - level, and those "
    "without scores. The credibility of x is the largest over the classes of the same share of "
    "all scores, whatever their label. Abstain where it is below the first of thresholds, which "
    "ascend, whose error is at most the wanted share of wrong answers."
)


class Exported(NamedTuple):
    """What an archive holds: the serialised `program`, `arrays` by name, and `meta` for JSON."""

    program: bytes
    arrays: Mapping[str, np.ndarray]
    meta: Mapping[str, Any]


def export(model: Model, *, k: int) -> Exported:
    """The model as a program of (arrays, inputs [b, ...]) for any batch size b >= 1.

    It gives a dict of `embeddings` float32 [b, D], `labels` int32 [b], `shares` float32 [b, C],
    `indices` int32 and `distances` float32 [b, k], as `answers.judge.Predictions` has them. The
    inputs are uint8, decoded and resized; feature vectors are float32, standardised. The arrays are
    arguments, as what a program closes over is folded into it: compiling takes ten times as long.

    Args:
        model: as it is read.
        k: neighbours that vote.

    Raises:
        UserError: arrays of a dtype that the archive does not hold.
    """
    arrays = {
        **named_variables(model.variables),
        f"{_GALLERY}embeddings": model.gallery.embeddings,
        f"{_GALLERY}labels": model.gallery.labels,
    }
    if other := {str(x.dtype) for x in arrays.values() if x.dtype not in _DTYPES}:
        raise UserError(f"the model has arrays of {', '.join(sorted(other))}: only float32 and "
                        "int32 are exported")  # fmt: skip
    (batch,) = jax_export.symbolic_shape("b")
    form = form_of(model.about)
    dtype = np.float32 if form.kind == "feature vectors" else np.uint8
    specs = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in arrays.items()}
    program = _lowered(_answer(model, k), specs, jax.ShapeDtypeStruct((batch, *form.shape), dtype))
    return Exported(bytes(program.serialize()), arrays, _meta(model, k, dtype, program))


def _answer(model: Model, k: int) -> Callable[[Mapping[str, Array], Array], Mapping[str, Array]]:
    recipe, options = recipe_of(model), {**vote_options(model, k), "rule": rule_of(model)}

    def answer(arrays: Mapping[str, Array], inputs: Array) -> dict[str, Array]:
        variables = tree_of(arrays)
        params, stats = (variables.get(name, {}) for name in ("params", "batch_stats"))
        rows_b = jnp.arange(inputs.shape[0])
        embeddings = embed(params, stats, inputs, rows_b, recipe=recipe)[0].astype(jnp.float32)
        gallery = arrays[f"{_GALLERY}embeddings"], arrays[f"{_GALLERY}labels"]
        found = in_blocks(lambda x: knn_classify(x, *gallery, **options)._asdict(), embeddings)
        return {"embeddings": embeddings, **found}

    return answer


def in_blocks(function: Callable[[Array], Any], x_bxD: Array) -> Any:
    """`function`, of rows [_QUERIES, D], of any number b >= 1 of rows, which may be a symbol.

    The last block is filled up with the last row. The search itself chooses its tiles by the number
    of queries, and cannot where that is a symbol.
    """
    count = x_bxD.shape[0]
    blocks = -(-count // _QUERIES)
    rows = jnp.minimum(jnp.arange(blocks * _QUERIES), count - 1).reshape(blocks, _QUERIES)
    found = lax.map(lambda rows_Q: function(x_bxD[rows_Q]), rows)
    return jax.tree.map(lambda y: y.reshape(-1, *y.shape[2:])[:count], found)


def _lowered(function: Callable[..., Any], *specs: Any) -> jax_export.Exported:
    """The exported function, without the paths of this machine's files that JAX writes into it."""
    name = "jax_traceback_in_locations_limit"
    before = getattr(jax.config, name)
    jax.config.update(name, 0)
    try:
        return jax_export.export(jax.jit(function), platforms=PLATFORMS)(*specs)
    finally:
        jax.config.update(name, before)


def _meta(model: Model, k: int, dtype: Any, program: jax_export.Exported) -> dict[str, Any]:
    about, gallery = model.about, model.gallery
    found = model.calibrated
    return {
        "version": VERSION,
        "made_by": {"deepknn_jax": deepknn_jax.__version__, "jax": jax.__version__},
        "platforms": list(PLATFORMS),
        "calling_convention_version": program.calling_convention_version,
        "inputs": {**about["inputs"], "dtype": np.dtype(dtype).name},
        "classes": list(model.classes),
        "k_p": k,
        "vote": rule_of(model)._asdict(),
        "p": about["p"],
        "backbone": about["backbone"],
        "normalize": about["normalize"],
        "embedding_size": gallery.embeddings.shape[1],
        "gallery_size": len(gallery.labels),
        "gallery_names": list(gallery.names) or None,
        "calibration": None if found is None else {
            "how": HOW_P_VALUES_COME,
            "score_k": SCORE_K,
            "scores": [_number(score) for score in found.scores.scores.tolist()],
            "labels": found.scores.labels.tolist(),
            **{name: values.tolist() for name, values in found.curve._asdict().items()},
        },
    }  # fmt: skip


def _number(score: float) -> float | str:
    """Infinity, which JSON has not, as a word that Python's and NumPy's float() take."""
    return score if math.isfinite(score) else "inf"


def write(path: Path, exported: Exported) -> None:
    """Replaces `path` by the archive; whole or not. Equal models give equal bytes."""
    meta = json.dumps(exported.meta, indent=1, allow_nan=False) + "\n"
    templates = resources.files("deepknn_jax.answers") / "templates"
    arrays = {name: np.ascontiguousarray(x) for name, x in exported.arrays.items()}
    members = {
        "README.txt": (templates / "export.txt").read_bytes(),
        "example.py": (templates / "example.py").read_bytes(),
        "meta.json": meta.encode(),
        "program.jax": exported.program,
        "arrays.safetensors": save(arrays),
    }
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(f"{path.stem}/{name}")  # its time is the same for all
            archive.writestr(info, data, zipfile.ZIP_DEFLATED)
