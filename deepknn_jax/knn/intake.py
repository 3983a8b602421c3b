"""The one door of the public functions: arguments as arrays, their shapes, dtypes and values.

Shapes and dtypes are refused everywhere. Values are looked at where they are known, so that jit,
vmap and grad trace on: what they trace has none yet.
"""

import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from deepknn_jax.errors import UserError

_INT32 = np.iinfo(np.int32)


def is_known(*values: Any) -> bool:
    """Whether the values can be looked at now: none is traced, or in part on another machine."""
    return not any(
        isinstance(x, jax.core.Tracer) or (isinstance(x, Array) and not x.is_fully_addressable)
        for x in values
    )


def as_order(p: Any) -> float:
    """The order of an L_p norm as a float.

    Raises:
        UserError: `p` is no number of at least 1 (infinity is one), or is traced.
    """
    if isinstance(p, str):
        raise UserError(
            f"p must be a number of at least 1, got {p!r}: for the cosine's neighbours normalise "
            "the rows (x / |x|) and use p=2"
        )
    _refuse_traced("p", p)
    try:
        order = float("nan") if isinstance(p, bool | np.bool_) else float(p)
    except (TypeError, ValueError):
        order = float("nan")
    if not order >= 1.0:
        raise UserError(f"p must be a number of at least 1, got {p!r}")
    return order


def as_count(name: str, value: Any, *, least: int = 1) -> int:
    """A number of things as an int.

    Raises:
        UserError: `value` is no integer (1.0 and True are none), below `least`, or traced.
    """
    _refuse_traced(name, value)
    try:
        count = _index(value)
    except TypeError:
        raise UserError(f"{name} must be an integer, got {value!r}") from None
    if count < least:
        raise UserError(f"{name} must be at least {least}, got {count}")
    return count


def _index(value: Any) -> int:
    if isinstance(value, bool | np.bool_):
        raise TypeError("a truth is no number")
    return operator.index(value)


def _refuse_traced(name: str, value: Any) -> None:
    if isinstance(value, jax.core.Tracer):
        raise UserError(f"{name} shapes the program: make it static, jit(..., static_argnames=...)")


def check_number(
    name: str, value: Any, *, holds: Callable[[Any], Any] = np.isfinite, words: str = "be finite"
) -> None:
    """Raises UserError unless `value` is one number, and `holds` for it where it is known.

    `words` say what it must do: "be above 0".
    """
    dtype, shape = _dtype(value), np.shape(value)
    if shape != () or not jnp.issubdtype(dtype, jnp.number) or isinstance(value, str):
        got = f"shape {shape}" if shape else repr(value)
        raise UserError(f"{name} must be one number, got {got}")
    if is_known(value) and not holds(value):
        raise UserError(f"{name} must {words}, got {value}")


def _dtype(value: Any) -> np.dtype:
    return value.dtype if isinstance(value, Array | np.generic) else np.asarray(value).dtype


def as_array(name: str, values: Any) -> Any:
    """Lists, data frames, other libraries' arrays as NumPy's; JAX's, traced or not, as they are.

    Raises:
        UserError: rows of different lengths.
    """
    if isinstance(values, Array):
        return values
    if hasattr(values, "__jax_array__"):
        return jnp.asarray(values)
    listed = isinstance(values, list | tuple)
    if listed and any(isinstance(leaf, Array) for leaf in jax.tree.leaves(values)):
        return jnp.asarray(values)
    try:
        array = np.asarray(values)
        # A column of objects may hold numbers all the same.
        return np.array(array.tolist()) if array.dtype == object else array
    except ValueError as error:
        raise UserError(f"{name} must have rows of one length: {error}") from error


def check_shape(name: str, array: np.ndarray | Array, *axes: int | str) -> None:
    """Raises UserError unless `array` has these axes: their sizes, or letters for any size."""
    shape = array.shape
    pairs = list(zip(axes, shape, strict=False))
    if len(axes) == len(shape) and all(isinstance(a, str) or a == size for a, size in pairs):
        return
    remedy = ""
    if shape == (axes[0], 1) or (isinstance(axes[0], str) and shape[1:] == (1,)):
        remedy = f"; say {name}.reshape(-1) for one axis"
    elif len(axes) == 2 and len(shape) == 1:
        remedy = f"; one row is {name}[None, :], one column {name}[:, None]"
    wanted = ", ".join(map(str, axes))
    raise UserError(f"expected {name} [{wanted}], got shape {shape}{remedy}")


def _numbers(name: str, values: Any) -> np.ndarray | Array:
    """As `as_array`; refuses what is not real numbers."""
    array = as_array(name, values)
    real = jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)
    if not real and array.dtype != bool:
        raise UserError(f"{name} must hold real numbers, got {_called(array)}")
    return array


def _called(array: np.ndarray | Array) -> str:
    return "text" if array.dtype.kind in "US" else f"dtype {array.dtype}"


def as_values(name: str, values: Any, *axes: int | str) -> Any:
    """Real numbers of these axes (see `check_shape`): NumPy's where known, with all their digits.

    Raises:
        UserError: another shape; text, complex numbers, objects.
    """
    array = _numbers(name, values)
    check_shape(name, array, *axes)
    return np.asarray(array) if is_known(array) else array


def as_numbers(name: str, values: Any, *axes: int | str) -> Array:
    """As `as_values`, but JAX's arrays."""
    array = _numbers(name, values)
    check_shape(name, array, *axes)
    return jnp.asarray(array)


def as_rows(
    *, finite: bool, where: np.ndarray | Array | None = None, **given: Any
) -> tuple[Array, ...]:
    """Vectors of one width, [N, D] each, that distances are measured between.

    What has 64 bits and would lose digits as float32 is first put about a point near the middle of
    the last of them, in float64 (distances do not know an offset), where all are known.

    Args:
        finite: refuse NaN and infinity, where known.
        where: bool [N], the rows of the last that count for its middle; None: all.
        given: by name.

    Raises:
        UserError: other shapes; no column; no real numbers; a row that is not finite.
    """
    arrays = _of_one_width(given)
    narrow = _narrow(list(arrays.values()), where)
    if finite:
        for name, array in zip(arrays, narrow, strict=True):
            check_finite(name, array)
    return tuple(map(jnp.asarray, narrow))


def as_wide_rows(**given: Any) -> tuple[np.ndarray, ...]:
    """As `as_rows`, of known values, finite, in NumPy's float64."""
    wide = {name: np.asarray(x, np.float64) for name, x in _of_one_width(given).items()}
    for name, array in wide.items():
        check_finite(name, array)
    return tuple(wide.values())


def _of_one_width(given: dict[str, Any]) -> dict[str, Any]:
    """The arrays, each of which is [N, D] with one D >= 1."""
    arrays = {name: _numbers(name, values) for name, values in given.items()}
    for name, array in arrays.items():
        check_shape(name, array, "N", "D")
    shapes = [array.shape for array in arrays.values()]
    if len({shape[1] for shape in shapes}) > 1:
        got = " and ".join(map(str, shapes))
        raise UserError(f"{' and '.join(arrays)} must have one width D, got {got}")
    if not shapes[0][1]:
        raise UserError(f"{' and '.join(arrays)} must have a column, got shape {shapes[0]}")
    return arrays


def _keeps_64_bits() -> bool:
    """Whether JAX is told to (jax_enable_x64)."""
    return jnp.result_type(float) == jnp.float64


def _narrow(
    arrays: list[np.ndarray | Array], where: np.ndarray | Array | None
) -> list[np.ndarray | Array]:
    """The arrays, with those of 64 bits as float32; unless JAX is told to keep them."""
    wide = [isinstance(x, np.ndarray) and x.dtype.itemsize == 8 for x in arrays]
    if _keeps_64_bits() or not any(wide):
        return arrays
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = [x.astype(np.float32) if w else x for x, w in zip(arrays, wide, strict=True)]
        lost = any(w and (x != y).any() for x, y, w in zip(arrays, narrow, wide, strict=True))
        if not lost or not is_known(*arrays, where):
            return narrow
        exact = [np.asarray(x, np.float64) for x in arrays]
        last = exact[-1] if where is None else exact[-1][np.asarray(where)]
        return [(x - _centre(last)[None, :]).astype(np.float32) for x in exact]


def _centre(x_NxD: np.ndarray) -> np.ndarray:
    """`knn.distances.centre_of` in NumPy's float64: exact ties of whole numbers stay ties."""
    rows = x_NxD[np.isfinite(x_NxD).all(axis=1)]
    if not len(rows):
        return np.zeros(x_NxD.shape[1])
    mean_D = rows.mean(axis=0)
    _, exponent = np.frexp(np.abs(rows - mean_D[None, :]).max())
    unit = np.ldexp(1.0, exponent - 1)
    return np.round(mean_D / unit) * unit


def check_finite(name: str, array: np.ndarray | Array) -> None:
    """Raises UserError at the first row of `array` [N, ...] with NaN or infinity, where known."""
    _check_rows(name, array, lambda x, xp: xp.isfinite(x), "NaN or infinity")


def check_no_nan(name: str, array: np.ndarray | Array) -> None:
    """Raises UserError at the first row of `array` [N, ...] with NaN, where known."""
    _check_rows(name, array, lambda x, xp: ~xp.isnan(x), "NaN")


def _check_rows(name: str, array: Any, sound: Callable[[Any, Any], Any], what: str) -> None:
    if not is_known(array):
        return
    axes = tuple(range(1, array.ndim))
    if isinstance(array, Array):
        with jax.ensure_compile_time_eval():  # where the function is traced, this array is not
            sound_N = np.asarray(jnp.all(sound(array, jnp), axis=axes))
    else:
        sound_N = sound(array, np).all(axis=axes)
    if not sound_N.all():
        row = int(np.argmin(sound_N))
        raise UserError(f"{name} has {what} in row {row}: leave such rows out")


def as_integers(name: str, values: Any, *axes: int | str) -> Any:
    """Integers of these axes: NumPy's where known, so that 64 bits stay whole.

    Raises:
        UserError: another shape; text, booleans, floating point.
    """
    array = as_array(name, values)
    check_shape(name, array, *axes)
    if array.size == 0:
        return np.zeros(array.shape, np.int32)
    if not jnp.issubdtype(array.dtype, jnp.integer):
        remedy = (
            f"say np.unique({name}, return_inverse=True)[1]"
            if array.dtype.kind in "USO"
            else f"say {name}.astype(int)"
        )
        raise UserError(f"{name} must be integers, got {_called(array)}: {remedy}")
    return np.asarray(array) if is_known(array) else array


def comparable(**given: Any) -> tuple[Array, ...]:
    """Integers (`as_integers`) of which only equality matters, as int32.

    Those beyond int32 are numbered anew, all together, where they are known. (Where JAX keeps 64
    bits, so are these.)

    Raises:
        UserError: numbers beyond int32 beside others that are traced.
    """
    arrays = list(given.values())
    wide = jnp.int64 if _keeps_64_bits() else jnp.int32
    known = [x for x in arrays if is_known(x) and x.size]
    if _keeps_64_bits() or all(x.min() >= _INT32.min and x.max() <= _INT32.max for x in known):
        return tuple(jnp.asarray(x).astype(wide) for x in arrays)
    if not is_known(*arrays):
        raise UserError(
            f"{' and '.join(given)} have numbers beyond int32 and are traced in part: number them "
            "anew outside of jit, by np.unique(..., return_inverse=True)[1]"
        )
    # int64 and uint64 have no integer dtype in common.
    kind = np.result_type(*arrays)
    flat = [x.ravel().astype(object if kind.kind == "f" else kind) for x in arrays]
    numbers = np.unique(np.concatenate(flat), return_inverse=True)[1].astype(np.int32)
    parts = np.split(numbers, np.cumsum([x.size for x in arrays])[:-1])
    return tuple(jnp.asarray(part).reshape(x.shape) for part, x in zip(parts, arrays, strict=True))


def as_classes(
    name: str, values: Any, *axes: int | str, num_classes: int | None, least: int = 0
) -> Any:
    """Class numbers `least`..num_classes-1 as int32, NumPy's where known (None: no upper end).

    Raises:
        UserError: as `as_integers`; a number outside of them, where known.
    """
    array = as_integers(name, values, *axes)
    if is_known(array) and array.size:
        low, high = array.min(), array.max()
        above = num_classes is not None and high >= num_classes
        if low < least or above or high > _INT32.max:
            end = "" if num_classes is None else num_classes - 1
            raise UserError(f"{name} must be {least}..{end}, got {low}..{high}")
    return array.astype(np.int32)


def as_mask(name: str, values: ArrayLike | None, size: int) -> Any:
    """Booleans [size]: NumPy's where known; all True for None.

    Raises:
        UserError: another shape or dtype.
    """
    if values is None:
        return np.ones(size, bool)
    array = as_array(name, values)
    check_shape(name, array, size)
    if array.dtype != bool and array.size:
        raise UserError(f"{name} must be booleans, got {_called(array)}: say {name}.astype(bool)")
    return np.asarray(array, bool) if is_known(array) else array
