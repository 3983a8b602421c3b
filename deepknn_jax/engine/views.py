"""Views: an image as its symmetries show it, all of them or one that is drawn; pure and jit-able.

A view is (transposed, up to down, left to right), done in this order to height and width, so that
the eight views are the symmetries of the square.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from deepknn_jax.errors import UserError

View = tuple[bool, bool, bool]

# Rotations are by so many degrees against the clock.
SYMMETRIES: dict[str, View] = {
    "flip_lr": (False, False, True),
    "flip_ud": (False, True, False),
    "rot180": (False, True, True),
    "rot90": (True, True, False),
}
_AS_IT_IS: View = (False, False, False)
_DRAW = 7  # folded into an example's key: crop and flip split that key


def views_of(symmetries: Sequence[str]) -> tuple[View, ...]:
    """All that `symmetries`, names of SYMMETRIES, make one after the other, each once.

    The image as it is comes first; none gives it alone, both flips four, with rot90 eight.

    Raises:
        UserError: a name is unknown, or stands twice.
    """
    for name in symmetries:
        if name not in SYMMETRIES or list(symmetries).count(name) > 1:
            raise UserError(f"`views` has {name!r}: choose of {', '.join(SYMMETRIES)}, each once")
    found = {_AS_IT_IS}
    while True:
        more = {_after(SYMMETRIES[name], view) for name in symmetries for view in found}
        if more <= found:
            return tuple(sorted(found))
        found |= more


def _after(second: View, first: View) -> View:
    """The view that is the `second` of the `first`: transposing turns one flip into the other."""
    transposed, up_down, left_right = first
    if second[0]:
        up_down, left_right = left_right, up_down
    return transposed ^ second[0], up_down ^ second[1], left_right ^ second[2]


def check_views(views: Sequence[View], height: int, width: int) -> None:
    """Raises UserError where images of `height` x `width` have no such views."""
    if height != width and any(transposed for transposed, _, _ in views):
        raise UserError(
            f"`views` has rot90, but the network takes {height} x {width}: leave it out, or make "
            "the images square by `size` or `crop`"
        )


def in_view(images: Array, views: Sequence[View], which: Array | int) -> Array:
    """The images [..., H, W, C] in the view `which`, an index of `views` that may be traced."""
    done = jnp.asarray(np.asarray(views))[which]
    steps = (
        lambda x: jnp.swapaxes(x, -3, -2),
        lambda x: jnp.flip(x, -3),
        lambda x: jnp.flip(x, -2),
    )
    for number, step in enumerate(steps):
        if any(view[number] for view in views):
            images = jnp.where(done[number], step(images), images)
    return images


def draw_views(key: Array, ids_B: Array, count: int) -> Array:
    """A view int32 [B] of `count` for each example, every one as likely.

    It depends on the key, which is the step's, and the example's id: not on its place in the batch.
    """

    def one(example_id: Array) -> Array:
        own = jax.random.fold_in(jax.random.fold_in(key, example_id), _DRAW)
        return jax.random.randint(own, (), 0, count)

    return jax.vmap(one)(ids_B)


def random_views(images_B: Array, key: Array, ids_B: Array, views: Sequence[View]) -> Array:
    """Each of the images or volumes [B, ..., H, W, C] in a view of `views` of its own."""
    drawn_B = draw_views(key, ids_B, len(views))
    return jax.vmap(lambda image, which: in_view(image, views, which))(images_B, drawn_B)
