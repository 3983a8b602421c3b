"""What programs for many devices take, counted: on tiny ones, where it is known."""

import jax
import jax.numpy as jnp
import pytest

from deepknn_jax.bench import scale

STEP = {"backbone": "mnist_cnn", "batch": 8, "size": 28}
SEARCH = {"gallery": 1003, "width": 6, "k": 3}


@pytest.fixture(scope="module")
def measured():
    """{(kind, devices): its row}."""
    rows = scale.measure(devices=(1, 4), step=STEP, searches=(SEARCH,), search_devices=(4,))
    return {(row["kind"], row["devices"]): row for row in rows}


def test_a_step_gathers_the_batch_and_sums_the_gradient(measured):
    """Embeddings float32 [B, 128] and of each a label and an id int32 and whether it is present."""
    alone, four = measured["step", 1], measured["step", 4]
    batch = 4 * STEP["batch"]
    for kind in ("gathered", "scattered", "reduced"):
        assert alone[kind] == 0
    assert four["gathered"] == batch * (128 * 4 + 4 + 4 + 1)
    assert four["scattered"] == batch * 128 * 4  # the embeddings' gradient, back to its devices
    # Weights and biases, the loss, its weight, the terms and those that push, each a float32.
    weights = 3 * 3 * 3 * 32 + 32 + 3 * 3 * 32 * 64 + 64 + 3136 * 128 + 128
    assert four["reduced"] == 4 * (weights + 4)
    assert four["flops"] == pytest.approx(alone["flops"], rel=0.02)
    for row in (alone, four):
        assert 0 < row["largest"] < row["planned"]
        assert row["shape"].startswith("f32[")


def test_a_search_gathers_its_candidates_alone(measured):
    """Of each query and device k distances and k indices; one more where shards have a copy."""
    row = measured["search", 4]
    assert row["gathered"] == 4096 * 4 * (SEARCH["k"] + 1) * (4 + 4)
    assert row["scattered"] == row["reduced"] == 0
    assert row["largest"] < 4096 * SEARCH["gallery"] * 4


def test_bytes_and_largest_array_are_those_of_the_program():
    """A product whose result, float32 [3, 500], outgrows what goes in."""

    @jax.jit
    def program(x_3x2, y_2x500):
        return jnp.tanh(x_3x2 @ y_2x500).sum()

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((3, 2), (2, 500))]
    counts = scale.counts_of(program.lower(*shapes).compile(), 1)
    assert counts.largest == 3 * 500 * 4
    assert counts.shape == "f32[3,500]"
    assert counts.flops >= 2 * 3 * 2 * 500
    assert counts.gathered == counts.scattered == counts.reduced == 0


@pytest.mark.parametrize(
    ("result", "size"),
    [
        ("f32[96,2048]{1,0}", 96 * 2048 * 4),
        ("(bf16[3]{0}, pred[5]{0}, s32[])", 6 + 5 + 4),
        ("(f32[2]{0}, /*index=5*/u32[7,2]{1,0})", 8 + 56),
        ("token[]", 0),
    ],
)
def test_the_size_of_a_result(result, size):
    assert scale.size_of(result) == size
