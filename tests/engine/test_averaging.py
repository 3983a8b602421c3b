"""The average of the weights against a loop."""

import jax.numpy as jnp
import numpy as np
import optax

from deepknn_jax.engine.averaging import averaged, averaging


def test_it_is_the_loops_and_the_updates_stay():
    decay, rate, rng = 0.6, 0.3, np.random.default_rng(0)
    optimizer = optax.chain(optax.sgd(rate), averaging(decay))
    params = {"w": jnp.asarray([1.0, -2.0])}
    state = optimizer.init(params)
    np.testing.assert_array_equal(averaged(state, None)["w"], params["w"])
    weights = average = np.asarray([1.0, -2.0])
    for t in range(12):
        gradient = rng.normal(size=2)
        updates, state = optimizer.update({"w": jnp.asarray(gradient)}, state, params)
        params = optax.apply_updates(params, updates)
        weights = weights - rate * gradient
        share = min(decay, (1 + t) / (10 + t))
        average = share * average + (1 - share) * weights
        np.testing.assert_allclose(params["w"], weights, rtol=1e-5)
        np.testing.assert_allclose(averaged(state, params)["w"], average, rtol=1e-5)
    restored = [{}, {"average_of_weights": {"w": 1.0}, "updates": 3}]
    assert averaged(restored, params) == {"w": 1.0}


def test_without_one_it_is_the_weights():
    params = jnp.ones(3)
    for optimizer in (optax.sgd(0.1), optax.identity()):
        assert averaged(optimizer.init(params), params) is params
