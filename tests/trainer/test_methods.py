"""From a config to Neighborhood Watch's losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.runs import small_config

from deepknn_jax.engine.parallel import get_devices
from deepknn_jax.errors import UserError
from deepknn_jax.knn.neighbors import Examples
from deepknn_jax.losses import base, triplet
from deepknn_jax.losses.local_margin import Weights, local_margin_sums, max_margin_sums
from deepknn_jax.losses.local_margin import select_next_and_hardest as next_and_hardest
from deepknn_jax.mining.local_triplets import neighborhood_size
from deepknn_jax.trainer.check import check
from deepknn_jax.trainer.methods import loss_function
from deepknn_jax.trainer.setup import load

LM = {"loss__name": "local_margin", "loss__neighborhood": 0}


def batch_of(count=20):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, count).astype(np.int32)
    x = jnp.asarray(rng.normal(size=(count, 4)) + labels[:, None], jnp.float32)
    return Examples(x, labels, np.arange(count), np.ones(count, bool))


WEIGHTS = {
    "loss__w_lm": 2.0, "loss__w_ms": 3.0, "loss__w_md": 5.0, "loss__w_ss": 7.0, "loss__w_sd": 11.0,
    "loss__reduction": "sum",
}  # fmt: skip


@pytest.mark.parametrize(("squared", "p"), [(False, 1.5), (True, 2.0)])
def test_every_option_reaches_the_losses(squared, p):
    batch, dataset = batch_of(), load(small_config())
    shared = {
        "weights": Weights(2.0, 3.0, 5.0, 7.0, 11.0), "reduction": "sum", "squared": squared, "p": p
    }  # fmt: skip

    def found(mined, **changes):
        config = small_config(**WEIGHTS, loss__squared=squared, loss__p=p, **changes)
        check(config)
        loss = loss_function(config, dataset, get_devices(1, "shard_map"))
        return float(jax.jit(lambda: base.mean(loss(batch, batch, **mined)))())

    def wanted(function, **options):
        run = jax.jit(lambda: base.mean(function(batch, batch, **options)))
        return pytest.approx(float(run()), rel=1e-6)

    listed = {"positives": np.roll(np.arange(20), 3)[:, None].astype(np.int32)}
    listed["negatives"] = listed["positives"][::-1]
    flags = np.arange(20) % 4 > 0
    kth = np.linspace(0.1, 2, 20, dtype=np.float32)
    mined = listed | {"outside": flags, "pushed": flags, "kth_positive": kth}
    assert found(
        mined, loss__name="local_margin", loss__c_b=4.0, loss__eps=0.3
    ) == wanted(local_margin_sums, **mined, c_b=4.0, eps=0.3, **shared)  # fmt: skip
    assert found(listed, loss__name="max_margin", loss__margin=1.5) == wanted(
        max_margin_sums, **listed, margin=1.5, **shared
    )
    hard = {"loss__name": "max_margin_hard", "loss__margin": 1.5}
    values = [found({}, **hard, loss__hard_positives=flag) for flag in (True, False)]
    assert values[0] == wanted(
        max_margin_sums, select=triplet.select_batch_hard, margin=1.5, **shared
    )
    assert values[1] == wanted(max_margin_sums, select=next_and_hardest, margin=1.5, **shared)
    assert values[0] > values[1]


def test_the_neighbourhood_s_size_is_the_papers():
    sizes = {54000: 233, 45000: 213, 273: 17, 200: 15, 180: 14, 4: 2, 5: 3}
    assert {n: neighborhood_size(0, n) for n in sizes} == sizes
    assert neighborhood_size(9, 54000) == 9


def test_a_small_c_b_is_warned_of(capsys):
    dataset = load(small_config())
    for changes, told in (
        ({"loss__c_b": 2.9}, "config.loss.c_b is 2.9: the theorem on the kNN wants at least 3"),
        ({"loss__c_b": 3.0}, ""),
        ({"loss__c_b": 3.0, "loss__squared": True}, "wants at least 9"),
        ({"loss__c_b": 9.0, "loss__squared": True}, ""),
    ):
        loss_function(small_config(**LM, **changes), dataset, get_devices(1, "shard_map"))
        out = capsys.readouterr().out
        assert told in out
        assert bool(out) == bool(told)


def test_options_that_do_not_go_together_are_refused():
    for changes, words in (
        ({"loss__k": 0}, "loss.k is 0"),
        (LM | {"loss__squared": True, "loss__p": 1.0}, "loss.squared goes with config.loss.p=2"),
        (LM | {"loss__draws": 0}, "loss.draws"),
        (LM | {"loss__eps": -1.0}, "loss.eps"),
        (LM | {"loss__reduction": "max"}, "loss.reduction"),
        ({"stop_tolerance": -1.0}, "stop_tolerance"),
        ({"first_stage": "softmax"}, "first_stage"),
    ):
        with pytest.raises(UserError, match=words.replace(".", r"\.")):
            check(small_config(**changes))
    check(small_config(**LM))
