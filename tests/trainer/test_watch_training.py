"""Neighborhood Watch in the trainer: its epochs, its tables, its stopping; and two stages."""

import math

import jax
import numpy as np
import pytest
from support.kills import killed_before_saving, terminated_at
from support.runs import fit, last_checkpoint, same_bits, setup_of, small_config

from deepknn_jax.engine.step import Call
from deepknn_jax.logs import read_records
from deepknn_jax.trainer import assess, loop
from deepknn_jax.trainer.setup import first_state

pytestmark = pytest.mark.usefixtures("compiled_once")
LM = {"loss__name": "local_margin", "loss__neighborhood": 0}
HUGE = {"loss__margin": 1e6}
WATCH = {
    "LM-Mining": LM,
    "LM": LM | {"loss__mine": False},
    "MM": {"loss__name": "max_margin", **HUGE},
    "MM-HardMin": {"loss__name": "max_margin_hard", **HUGE},
}
EPOCHS, PER_EPOCH = 3, 7


def watch_config(name, **changes):
    """Calls of 3, 3 and 1 steps an epoch."""
    options = {
        "epochs": EPOCHS, "steps_per_call": 3, "optimizer__name": "adam",
        "optimizer__learning_rate": 1e-3, "checkpoint_seconds": 1e6,
    }  # fmt: skip
    return small_config(**options | WATCH[name] | changes)


def records_of(workdir):
    """(of the calls, of the epochs), without what depends on the time."""
    records = read_records(workdir / "metrics.jsonl")
    timeless = [{k: v for k, v in r.items() if k != "examples_per_s"} for r in records]
    calls = [record for record in timeless if "objective" not in record]
    return calls, [record for record in timeless if "objective" in record]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, compiled_once):
    """name -> (workdir, config) of a run that nothing disturbed; made once each."""
    made = {}

    def of(name):
        if name not in made:
            workdir, config = tmp_path_factory.mktemp("watch") / "run", watch_config(name)
            fit(config, workdir)
            made[name] = workdir, config
        return made[name]

    return of


def purity_of(config, setup, state):
    """Share of its class among the 22 nearest of each, in the training part."""
    part = assess.embed_split(config, setup, (state.params, state.batch_stats), "train")
    labels = setup.dataset.labels[setup.dataset.rows("train")]
    d = np.linalg.norm(part.embeddings[:, None] - part.embeddings[None], axis=2)
    near = np.argsort(d, axis=1)[:, 1:23]
    return np.mean(labels[near] == labels[:, None])


@pytest.mark.parametrize("name", WATCH)
def test_each_method_trains(fitted, name):
    workdir, config = fitted(name)
    setup = setup_of(config)
    (state, _, _), step, _ = last_checkpoint(workdir, config)
    assert step == EPOCHS * PER_EPOCH
    calls, epochs = records_of(workdir)
    before = first_state(setup)
    untrained = assess.epoch_figures(config, setup, (before.params, before.batch_stats))
    assert epochs[-1]["train_acc"] > untrained["train_acc"]
    impure = [1 - purity_of(config, setup, x) for x in (before, state)]
    assert impure[1] < 0.8 * impure[0]
    if name == "LM-Mining":
        # A mean over fewer and harder anchors need not fall; that they become fewer tells.
        shares = [record["no_local_negative"] for record in calls]
        assert shares[-1] > shares[0] + 0.1
    else:
        assert epochs[-1]["objective"] < epochs[0]["objective"]


@pytest.mark.parametrize("name", WATCH)
def test_the_log_tells_the_distances(fitted, name):
    """And the objective is the mean loss of the epoch's steps, its calls' lengths minded."""
    calls, epochs = records_of(fitted(name)[0])
    told = {"d_positive", "d_negative"}
    if name in ("LM", "LM-Mining"):
        told |= {"kth_positive", "no_local_negative", "none_outside"}
    base = {"step", "epoch", "loss", "active", "gradient_norm", "lr"}
    assert all(set(record) == told | base for record in calls)
    assert all(np.isfinite(list(record.values())).all() for record in calls)
    assert [record["step"] for record in calls[:4]] == [3, 6, 7, 10]
    for record in calls:
        near, far = record["d_positive"], record["d_negative"]
        if name == "LM":
            assert (record["no_local_negative"], record["none_outside"]) == (0, 0)
            assert near < far
        elif name == "LM-Mining":  # positives are drawn outside the neighbourhood
            assert record["kth_positive"] < near
        else:  # every triplet is active: the loss is 1000 and 1 times both, and a variance
            assert record["active"] == 1
            assert 0 < record["loss"] - 1001 * (near - far) < far**2
    for number, epoch in enumerate(epochs):
        own = calls[3 * number : 3 * number + 3]
        mean = np.average([record["loss"] for record in own], weights=[3, 3, 1])
        assert epoch["objective"] == pytest.approx(mean, rel=1e-12)


# The epoch's tables


def test_the_tables_are_of_the_network_at_the_epoch_s_start():
    """d_{a,k+} with k the root of the number of examples, positives outside, negatives inside."""
    setup = setup_of(watch_config("LM-Mining", loss__squared=True))
    rows, labels = setup.dataset.rows("train"), setup.dataset.labels
    k = math.ceil(math.sqrt(len(rows)))
    assert k == 22
    bank = np.random.default_rng(0).normal(size=(len(rows), 3)).astype(np.float32)
    bank += labels[rows][:, None]
    positions = setup.positions(range(PER_EPOCH))
    mined = setup.mining.mine(bank, positions, 0)
    d = np.linalg.norm(bank.astype(np.float64)[:, None] - bank[None], axis=2)
    place_of = {int(row): place for place, row in enumerate(rows)}
    for place in [(0, 0), (2, 9), (3, 33), (6, 63)]:
        a = positions[place]
        near = np.argsort(d[a])[1 : k + 1]
        alike = np.sort(d[a][labels[rows] == labels[rows][a]])
        np.testing.assert_allclose(mined["kth_positive"][place], alike[k] ** 2, rtol=1e-5)
        positive, negative = (place_of[int(mined[x][place][0])] for x in ("positives", "negatives"))
        assert (positive not in near) or not mined["outside"][place]
        assert labels[rows[positive]] == labels[rows[a]]
        assert positive != a
        assert (negative in near) == mined["pushed"][place]
        assert labels[rows[negative]] != labels[rows[a]]


@pytest.mark.parametrize(("name", "draws"), [("LM-Mining", 1), ("LM", 3), ("MM", 2)])
def test_each_anchor_of_an_epoch_has_one_triplet_a_draw(name, draws):
    """And its partners are in its batch."""
    setup = setup_of(watch_config(name, loss__draws=draws))
    rows, labels = setup.dataset.rows("train"), setup.dataset.labels
    bank = np.random.default_rng(0).normal(size=(len(rows), 3)).astype(np.float32)
    assert setup.mining.embeds == (name != "MM")
    assert setup.mining.interval == PER_EPOCH
    positions = setup.positions(range(PER_EPOCH, 2 * PER_EPOCH))
    mined = setup.mining.mine(bank if setup.mining.embeds else None, positions, PER_EPOCH)
    like = jax.tree.map(lambda x: (x.shape, x.dtype), (mined, setup.mining.empty))
    assert like[0] == like[1]  # what is saved before the first mining has the same form
    assert len(np.unique(positions)) == PER_EPOCH * 64
    assert mined["positives"].shape == (PER_EPOCH, 64, draws)
    batches = setup.sampler(PER_EPOCH, mined)(range(PER_EPOCH, 2 * PER_EPOCH))
    for t in range(PER_EPOCH):
        anchors = rows[positions[t]]
        np.testing.assert_array_equal(batches.ids[t, :64], anchors)
        for key, alike in (("positives", True), ("negatives", False)):
            listed = batches.mined[key][t]
            assert set(listed.ravel()) <= set(batches.ids[t]) & set(rows)
            assert ((labels[listed] == labels[anchors][:, None]) == alike).all()
            assert (listed != anchors[:, None]).all()
    again = setup.mining.mine(bank if setup.mining.embeds else None, positions, 2 * PER_EPOCH)
    assert np.mean(again["positives"] != mined["positives"]) > 0.8


@pytest.mark.parametrize("name", ["LM-Mining", "MM"])
def test_killed_and_stopped_in_mid_epoch_it_ends_as_if_never_disturbed(
    fitted, tmp_path, monkeypatch, name
):
    """The tables of the epoch come from the checkpoint: its start's network is gone."""
    undisturbed, _ = fitted(name)
    config, workdir = watch_config(name, checkpoint_seconds=0.0), tmp_path / "run"
    mined_at, mine = [], loop.mine

    def watched(config, setup, state, steps):
        mined_at.append(steps.start)
        return mine(config, setup, state, steps)

    monkeypatch.setattr(loop, "mine", watched)
    with killed_before_saving(13):
        fit(config, workdir)
    assert last_checkpoint(workdir, config)[1] == 10
    with terminated_at(17):
        fit(config, workdir)
    arrays, step, _ = last_checkpoint(workdir, config)
    assert step == 17
    assert (arrays[2]["positives"] >= 0).all()
    fit(config, workdir)
    assert mined_at == [0, 7, 14]
    same_bits(last_checkpoint(workdir, config)[0], last_checkpoint(undisturbed, config)[0])
    assert records_of(workdir) == records_of(undisturbed)


def test_four_devices_train_as_one(tmp_path, fitted):
    """In float32 to what the order of sums makes; the tables are the same."""
    config = watch_config("LM-Mining", devices=4, epochs=1, evaluate__every_epochs=0)
    fit(config, tmp_path / "run")
    arrays, _, _ = last_checkpoint(tmp_path / "run", config)
    found = records_of(tmp_path / "run")[0][0]
    expected = records_of(fitted("LM-Mining")[0])[0][0]
    assert found.keys() == expected.keys()
    for key in ("loss", "d_positive", "d_negative", "kth_positive", "no_local_negative"):
        assert found[key] == pytest.approx(expected[key], rel=1e-3), key
    one = setup_of(watch_config("LM-Mining", epochs=1))
    state = first_state(one)
    mined = loop.mine(config, one, state, range(PER_EPOCH))
    for key in ("positives", "negatives", "pushed", "outside"):
        assert np.mean(arrays[2][key] == mined[key]) > 0.99, key
    np.testing.assert_allclose(arrays[2]["kth_positive"], mined["kth_positive"], rtol=1e-4)


# The end by the tolerance


def test_converged():
    assert not loop.converged([1.0, 1.0], 0)  # 0: never
    assert not loop.converged([1.0], 5.0)
    assert loop.converged([9.0, 1.0, 1.5], 0.5)
    assert loop.converged([9.0, 1.5, 1.0], 0.5)
    assert not loop.converged([1.0, 1.0, 9.0], 0.5)
    assert not loop.converged([], 0.5)


@pytest.fixture(scope="module")
def ended_early(tmp_path_factory, compiled_once):
    """(config with a tolerance, the epoch it should stop after, arrays, records) of LM."""
    plain = watch_config("LM", epochs=6, evaluate__every_epochs=0)
    workdir = tmp_path_factory.mktemp("whole") / "run"
    fit(plain, workdir)
    objectives = [record["objective"] for record in records_of(workdir)[1]]
    changes = np.abs(np.diff(objectives))
    # The first change that is below all before it, and neither the first nor the last.
    place = next(i for i in range(1, 4) if changes[i] < changes[:i].min())
    config = watch_config(
        "LM", epochs=6, evaluate__every_epochs=0, stop_tolerance=float(changes[place])
    )
    early = tmp_path_factory.mktemp("early") / "run"
    fit(config, early)
    return config, place + 2, early, workdir


def test_it_ends_after_the_first_epoch_that_changes_little(ended_early):
    config, epoch, early, whole = ended_early
    assert 3 <= epoch < 6
    _, step, _ = last_checkpoint(early, config)
    assert step == epoch * PER_EPOCH
    (calls, epochs), (all_calls, all_epochs) = records_of(early), records_of(whole)
    assert calls == all_calls[: len(calls)]
    assert [record["objective"] for record in epochs] == [
        record["objective"] for record in all_epochs[:epoch]
    ]


def test_started_again_it_does_not_train_on(ended_early, monkeypatch):
    config, _, early, _ = ended_early
    before, _, _ = last_checkpoint(early, config)
    records = records_of(early)
    monkeypatch.setattr(loop, "train", lambda *arguments: pytest.fail("trains on"))
    found = loop.fit(config, setup_of(config), early, {})
    assert found.step == before[0].step
    same_bits(last_checkpoint(early, config)[0], before)
    assert records_of(early) == records


@pytest.mark.parametrize("at_the_end", [False, True])
def test_killed_before_its_end_it_ends_at_the_same_step(ended_early, tmp_path, at_the_end):
    """In mid-epoch; and between the record of the last epoch and its checkpoint."""
    config, epoch, early, _ = ended_early
    config = config.copy_and_resolve_references()
    config.checkpoint_seconds = 0.0
    workdir = tmp_path / "run"
    with killed_before_saving(epoch * PER_EPOCH if at_the_end else PER_EPOCH + 6):
        fit(config, workdir)
    fit(config, workdir)
    same_bits(last_checkpoint(workdir, config)[0], last_checkpoint(early, config)[0])
    assert records_of(workdir) == records_of(early)


def test_an_early_end_is_evaluated_and_may_be_the_best(tmp_path):
    """As the last epoch of all is, whatever every_epochs says."""
    config = watch_config(
        "MM-HardMin", epochs=5, stop_tolerance=1e9, data__validation=0.1, evaluate__every_epochs=0
    )
    found = fit(config, tmp_path / "run")
    assert last_checkpoint(tmp_path / "run", config)[1] == 12  # two epochs of the 409 left
    assert found.figure is not None
    assert found.step == 12


# Seeds and folds share a program


def program_of(**changes):
    setup = setup_of(small_config(**changes))
    state, mined = first_state(setup), setup.mining.empty if setup.mining else {}
    if setup.mining:
        bank = np.random.default_rng(0).normal(size=(len(setup.dataset.rows("train")), 3))
        bank = bank.astype(np.float32) if setup.mining.embeds else None
        mined = setup.mining.mine(bank, setup.positions(range(PER_EPOCH)), 0)
    batches = setup.sampler(0, mined)(range(PER_EPOCH))
    store = setup.store
    call = Call(store.pool, store.labels, batches.ids, batches.ids, batches.mined, PER_EPOCH)
    return setup.train.lower(state, call).as_text()


@pytest.mark.parametrize("options", [{}, LM], ids=["deep kNN", "LM-Mining"])
def test_seeds_and_folds_share_a_program(options):
    same = ({"seed": 0}, {"seed": 5}, {"data__split_seed": 3})
    texts = {program_of(**options, **changes) for changes in same}
    assert len(texts) == 1
    assert "stablehlo" in texts.pop()


def test_another_loss_is_another_program():
    assert program_of(loss__margin=2.0) != program_of()
