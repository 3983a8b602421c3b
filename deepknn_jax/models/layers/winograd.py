"""3x3 convolutions of stride 1 by Winograd's minimal filtering, in products that a CPU runs well.

F(2x2, 3x3) of Lavin and Gray, 2016 (arXiv:1509.09308): the output is cut into tiles of 2 x 2, each
of which sees 4 x 4 inputs. With d such an input tile and g the kernel,

    y = A^T [(G g G^T) * (B^T d B)] A,

where * multiplies elementwise and sums over input channels: 16 matrix products over all tiles, of
16 multiplications for four outputs where the convolution has 36. The matrices hold 0, 1/2 and 1, so
that the rest is sums, and rounding errors are those of the plain product.
"""

import math
from collections.abc import Sequence
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array, lax

_Grid = list[list[Array]]
_Rows = Sequence[Sequence[float]]

_INPUT: _Rows = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))  # B^T
_KERNEL: _Rows = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))  # G
_OUTPUT: _Rows = ((1, 1, 1, 0), (0, 1, -1, -1))  # A^T

# Numbers in all input tiles, above which images are taken singly, to bound the memory (128 MB).
_MOST = 2**25
_BATCH = 32  # what a batch is taken for that is a symbol, as in an exported program

Padding = tuple[tuple[int, int], tuple[int, int]]


def held(x: Array, until: Array | None = None) -> Array:
    """The same array, written to memory before anything reads it; not before `until` is there.

    What is read many times, shifted, XLA on a CPU computes anew for each reader: the gradient of
    DenseNet's 3x3 convolutions went through BatchNorm's of all later layers 40 times (1.8 s a step
    in the place of 1.1). It drops lax.optimization_barrier first, not a branch it cannot foresee.
    """
    first = (x if until is None else until)[(0,) * x.ndim]
    return lax.cond(jnp.isnan(first), lax.optimization_barrier, lambda x: x, x)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def winograd(x: Array, kernel: Array, padding: Padding) -> Array:
    """Cross-correlation of x [B, H, W, I] with kernel [3, 3, I, O], stride 1 -> [B, H', W', O].

    `padding` counts the zeros ((top, bottom), (left, right)); H' = H + top + bottom - 2. Computed
    in float32 or wider. The gradients are products of the same kind.
    """
    return _forward(x, kernel, padding)[0]


def _forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    x = held(x)
    y = _filter(_wide(x), _transformed(kernel), padding, contract=0)
    return y.astype(x.dtype), (x, kernel)


def _backward(padding: Padding, kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    (x, kernel), dy = kept, held(dy)
    x = held(x, until=dy)  # else XLA keeps _forward's tiles
    # For x: the convolution of dy with the kernel turned by 180 degrees, its channels exchanged.
    # Turning exchanges the first and last transformed row and column; the exchange of channels is
    # the products' (a transposed copy of a kernel of 512 x 512 costs more than they do).
    turned = (3, 1, 2, 0)
    transformed = _transformed(kernel)
    transformed = [[transformed[a][c] for c in turned] for a in turned]
    (top, bottom), (left, right) = padding
    around = (2 - top, 2 - bottom), (2 - left, 2 - right)
    dx = _filter(_wide(dy), transformed, around, contract=1).astype(x.dtype)
    return dx, _kernel_gradient(_wide(x), _wide(dy), padding).astype(kernel.dtype)


winograd.defvjp(_forward, _backward)


def _filter(x: Array, kernel_4x4: _Grid, padding: Padding, contract: int) -> Array:
    """A^T [kernel * (B^T d B)] A for all tiles d of x; `contract` is the kernel's axis to sum."""
    (top, bottom), (left, right) = padding
    height, width = x.shape[1] + top + bottom - 2, x.shape[2] + left + right - 2
    rows, columns = -(-height // 2), -(-width // 2)

    def of(x: Array) -> Array:
        products = _products(_input_tiles(x, padding), kernel_4x4, (1, contract))
        tiles_2x2 = [
            [y.reshape(x.shape[0], rows, columns, -1) for y in row]
            for row in _grid(_OUTPUT, products)
        ]
        y = jnp.stack([jnp.stack(row, axis=3) for row in tiles_2x2], axis=2)
        return y.reshape(x.shape[0], 2 * rows, 2 * columns, -1)[:, :height, :width]

    if _is_large(x):
        return lax.map(lambda image: of(image[None])[0], x)
    return of(x)


def _is_large(x: Array) -> bool:
    """Whether images [B, H, W, C] are taken singly."""
    batch = x.shape[0] if isinstance(x.shape[0], int) else _BATCH
    return bool(4 * batch * math.prod(x.shape[1:]) > _MOST)


def _kernel_gradient(x: Array, dy: Array, padding: Padding) -> Array:
    """G^T [(B^T d B) * (A dy A^T)] G, summed over all tiles: [3, 3, I, O]."""

    def of(x: Array, dy: Array) -> Array:
        products = _products(_input_tiles(x, padding), _output_tiles(dy), (0, 0))
        return jnp.stack([jnp.stack(row) for row in _grid(_transposed(_KERNEL), products)])

    if _is_large(x):
        return jnp.sum(lax.map(lambda pair: of(pair[0][None], pair[1][None]), (x, dy)), axis=0)
    return of(x, dy)


def _products(left: _Grid, right: _Grid, axes: tuple[int, int]) -> _Grid:
    """The matrix product of each pair, summed over the given axis of either."""
    contract = ((axes[:1], axes[1:]), ((), ()))
    return [
        [lax.dot_general(a, b, contract) for a, b in zip(*rows, strict=True)]
        for rows in zip(left, right, strict=True)
    ]


def _input_tiles(x: Array, padding: Padding) -> _Grid:
    """B^T d B of all tiles: 4 x 4 arrays [tiles, I]."""
    batch, height, width, channels = x.shape
    (top, bottom), (left, right) = padding
    rows, columns = (height + top + bottom - 1) // 2, (width + left + right - 1) // 2
    ends = 2 * rows + 2 - top - height, 2 * columns + 2 - left - width
    edges = (0, 0, 0), (top, ends[0], 0), (left, ends[1], 0), (0, 0, 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)  # a pad below 0 cuts
    ends = 2 * rows - 1, 2 * columns - 1
    tiles = [
        [
            lax.slice(x, (0, i, j, 0), (batch, i + ends[0], j + ends[1], channels), (1, 2, 2, 1))
            for j in range(4)
        ]
        for i in range(4)
    ]
    return [[tile.reshape(-1, channels) for tile in row] for row in _grid(_INPUT, tiles)]


def _output_tiles(dy: Array) -> _Grid:
    """A dy A^T of all tiles: 4 x 4 arrays [tiles, O]."""
    _, height, width, channels = dy.shape
    dy = jnp.pad(dy, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    tiles = [[dy[:, i::2, j::2].reshape(-1, channels) for j in range(2)] for i in range(2)]
    return _grid(_transposed(_OUTPUT), tiles)


def _transformed(kernel: Array) -> _Grid:
    return _grid(_KERNEL, [[_wide(kernel[i, j]) for j in range(3)] for i in range(3)])


def _grid(matrix: _Rows, arrays: _Grid) -> _Grid:
    """Gives matrix @ arrays @ matrix^T, where the elements of `arrays` are arrays."""
    half = [_combine(matrix, column) for column in zip(*arrays, strict=True)]
    return [_combine(matrix, row) for row in zip(*half, strict=True)]


def _combine(matrix: _Rows, arrays: Sequence[Array]) -> list[Array]:
    """Gives matrix @ arrays, without the products by 0 and 1."""
    combined = []
    for row in matrix:
        terms = zip(row, arrays, strict=True)
        parts = [array if c == 1 else c * array for c, array in terms if c]
        combined.append(reduce(jnp.add, parts))
    return combined


def _transposed(matrix: _Rows) -> _Rows:
    return tuple(zip(*matrix, strict=True))


def _wide(array: Array) -> Array:
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))
