"""The batches that hold anchors and what was mined for them."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepknn_jax.mining.batches import with_partners

SIZE = 24  # anchors


@given(
    st.integers(0, 10**6),
    st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24]),
    st.integers(1, 4),
    st.sampled_from([30, 200]),
)
def test_a_batch_holds_its_anchors_first_and_each_partner_once(seed, devices, k, count):
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(1000)[:count]).astype(np.int32)
    anchors = np.stack([rng.permutation(rows)[:SIZE] for _ in range(3)])
    listed = rng.choice(np.append(rows, -1), (3, SIZE, k)).astype(np.int32)
    mined = {"positives": listed, "negatives": listed[:, ::-1]}
    ids = with_partners(anchors, mined, rows, devices=devices)
    assert len(ids) == 3
    unit = math.lcm(64, devices)
    assert ids.shape[1] % unit == 0
    assert ids.shape[1] - unit < max(np.sum(ids >= 0, axis=1))  # no more places than needed
    shares = ids.reshape(3, devices, -1)
    np.testing.assert_array_equal(shares[:, :, : SIZE // devices].reshape(3, SIZE), anchors)
    for t in range(3):
        present = ids[t][ids[t] >= 0]
        assert len(set(present)) == len(present)
        assert set(listed[t].ravel()) - {-1} <= set(present) <= set(rows)
        present_by_device = (shares[t] >= 0).sum(axis=1)
        assert present_by_device.max() - present_by_device.min() <= 1 or count == 30


def test_any_number_of_devices_embeds_the_same():
    """So a run's figures do not depend on it."""
    rng = np.random.default_rng(5)
    rows = np.arange(500, dtype=np.int32)
    anchors = rng.permutation(rows)[None, :SIZE]
    mined = {"positives": rng.choice(rows, (1, SIZE, 3)).astype(np.int32)}
    embedded = [
        set(with_partners(anchors, mined, rows, devices=devices).ravel()) - {-1}
        for devices in (1, 2, 3, 4, 6, 8, 12, 24)
    ]
    assert embedded.count(embedded[0]) == 8
    assert len(embedded[0]) % 8 == 0
