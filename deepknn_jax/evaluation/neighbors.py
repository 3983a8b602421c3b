"""The picture of test images beside their nearest training images."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from deepknn_jax.evaluation import pictures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_RIGHT, _WRONG = "#029e73", "#d55e00"


def draw(
    path: Path,
    query_images: np.ndarray,
    query_labels: np.ndarray,
    predictions: np.ndarray,
    neighbor_images: np.ndarray,
    neighbor_labels: np.ndarray,
    distances: np.ndarray,
    class_names: Sequence[str],
    *,
    k: int,
    usual_distances: np.ndarray | None = None,
) -> None:
    """Draw q test images, a row each, beside their m nearest training images.

    Args:
      path: file to write.
      query_images: uint8 [q, H, W, C], C = 1 (grey) or 3.
      query_labels: true classes [q].
      predictions: predicted classes [q].
      neighbor_images: uint8 [q, m, H, W, C].
      neighbor_labels: classes [q, m].
      distances: to the query [q, m]; a place at distance inf stays empty.
      class_names: names of all classes.
      k: neighbours that voted.
      usual_distances: ascending, to the neighbours behind right answers on validation; a distance
        is then told as its percentile among them, too.
    """
    q, m = neighbor_labels.shape
    figure = pictures.new_figure(1.35 * (m + 1) + 0.3, 1.85 * q + 0.3)
    there = usual_distances is not None and len(usual_distances) > 0
    title = "A test image, then its nearest training images: class and distance"
    title += " (percentile of those behind right answers on validation)" if there and m > 3 else ""
    figure.suptitle(f"{title}; the {k} nearest vote ($K_p$ = {k})", fontsize=9)
    for row, part in enumerate(figure.subfigures(q, 1, squeeze=False)[:, 0]):
        true, predicted = query_labels[row], predictions[row]
        right = true == predicted
        names = (pictures.shown_name(class_names[label]) for label in (true, predicted))
        part.suptitle(
            "true: {}    predicted: {}".format(*names) + f"    ({'right' if right else 'wrong'})",
            x=0.01,
            ha="left",
            fontsize=9,
            fontweight="bold",
            color="black" if right else _WRONG,
        )
        grid = part.subplots(1, m + 1)
        _framed(grid[0], query_images[row], "test image", "black")
        for i, axes in enumerate(grid[1:]):
            label, distance = neighbor_labels[row, i], distances[row, i]
            if not np.isfinite(distance):
                axes.set_axis_off()
                continue
            sign, color = ("✓", _RIGHT) if label == true else ("✗", _WRONG)
            caption = f"{sign} {pictures.shown_name(class_names[label], 22)}\n{distance:#.3g}"
            if usual_distances is not None and there:
                caption += f" ({percentile(usual_distances, distance)})"
            _framed(axes, neighbor_images[row, i], caption, color)
    pictures.save(path, figure)


def percentile(usual_m: np.ndarray, distance: float) -> int:
    """Share in % of the m `usual` distances, ascending, that are below this one."""
    return round(100 * float(np.searchsorted(usual_m, distance, side="left")) / len(usual_m))


def _framed(axes: "Axes", image: np.ndarray, caption: str, color: str) -> None:
    shown = image[..., 0] if image.shape[-1] == 1 else image
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(caption, fontsize=7, color=color)
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=2.5)
