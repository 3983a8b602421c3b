import numpy as np
import pytest
from support.runs import setup_of, small_config

from deepknn_jax.data.dataset import TRAIN
from deepknn_jax.trainer import in_memory, setup
from deepknn_jax.trainer.assess import embed_split, variables_of
from deepknn_jax.trainer.loop import train

WIDTHS = in_memory.Widths((512, 256), 128, normalize=False)


OTHERS = [pytest.param(name, marks=pytest.mark.scikit_learn) for name in
          ("weighted_cross_entropy", "local_margin")]  # fmt: skip


@pytest.mark.parametrize("method", ["deep_knn", *OTHERS])
def test_it_is_the_training_of_a_run(method):
    """The same losses, step after step, and the same embeddings."""
    changes = {"loss.name": method, "loss.margin": 0.7, "optimizer.learning_rate": 1e-3, "seed": 5}
    config = small_config(**{key.replace(".", "__"): value for key, value in changes.items()})
    whole = setup_of(config)
    rows = whole.dataset.rows(TRAIN)
    raw = setup.load(config)  # the setup's own are standardised
    inputs, labels = raw.inputs[rows].astype(np.float64), raw.labels[rows]
    state, losses = setup.first_state(whole), []
    mined = whole.mining.empty if whole.mining else {}
    for new_state, new_mined, record in train(config, whole, state, mined, {}):
        state, mined = new_state, new_mined
        losses += [record["loss"]]
    options = changes | {"epochs": 2, "batch.size": 64}
    found = in_memory.fit(inputs, labels, num_classes=2, widths=WIDTHS, options=options)
    np.testing.assert_allclose(found.losses, losses, rtol=1e-4)
    embedded = in_memory.embed_features(found.variables, inputs, found.scale, WIDTHS)
    wanted = embed_split(config, whole, variables_of(state), TRAIN).embeddings
    np.testing.assert_allclose(embedded, wanted, rtol=1e-2, atol=1e-3 * np.abs(wanted).max())
