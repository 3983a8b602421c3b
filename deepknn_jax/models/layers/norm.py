"""BatchNorm as every backbone has it."""

from functools import partial
from typing import Any

from flax import linen as nn
from jax.typing import DTypeLike


def batch_norm(train: bool, dtype: DTypeLike, axis: str | None, epsilon: float = 1e-5) -> Any:
    """Linen's BatchNorm but for its name: momentum 0.9, which torch counts as its 0.1.

    `train`: normalise by the batch's statistics, those of all devices along the mapped axis `axis`.
    """
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=0.9,
        epsilon=epsilon,
        dtype=dtype,
        axis_name=axis,
    )
