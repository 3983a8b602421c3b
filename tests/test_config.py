import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepknn_jax import config as config_lib
from deepknn_jax.errors import UserError
from deepknn_jax.trainer.check import check


def changed(**changes):
    config = config_lib.default()
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def test_the_defaults_pass():
    check(config_lib.default())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("epochs", -1),
        ("data.split", "random"),
        ("data.split_seed", -1),
        ("data.fold", -1),
        ("data.size", -1),
        ("data.placement", "disk"),
        ("data.on_error", "ignore"),
        ("data.ignore", (3,)),
        ("data.ignore", ("",)),
        ("model.dtype", "float16"),
        ("loss.name", "deepknn"),
        ("loss.k", 0),
        ("loss.m", 0),
        ("loss.p", 0.5),
        ("loss.p", float("inf")),
        ("loss.margin", -0.1),
        ("loss.margin", float("nan")),
        ("optimizer.name", "lion"),
        ("optimizer.learning_rate", 0.0),
        ("optimizer.learning_rate", -1.0),
        ("optimizer.learning_rate", float("inf")),
        ("optimizer.momentum", 1.0),
        ("optimizer.momentum", -0.1),
        ("optimizer.weight_decay", -1e-4),
        ("optimizer.halve_every_epochs", -1),
        ("batch.kind", "random"),
        ("batch.size", -1),
        ("batch.per_class", -1),
        ("model.name", "resnet81"),
        ("data.source", "class_folder"),
        ("first_stage", "entropy"),
        ("neighbors", "set"),
        ("evaluate.k_p", (0, 5)),
        ("evaluate.k_p", (5, 1)),
        ("evaluate.k_p", (1.5,)),
        ("evaluate.k_p", ("5",)),
        ("evaluate.batch_size", 0),
        ("evaluate.best_by", "rs"),
        ("evaluate.vote.class_size_power", "1.1"),
        ("evaluate.vote.class_size_power", "most"),
        ("evaluate.vote.temperature", -1.0),
        ("evaluate.vote.temperature", float("inf")),
        ("evaluate.vote.k_p", "5"),
        ("evaluate.vote.choose_by", "rs"),
        ("evaluate.every_epochs", -1),
        ("evaluate.references", ("pixel",)),
        ("loss.class_weight_power", 1.5),
        ("loss.class_weight_power", -0.5),
        ("loss.tau", -1.0),
        ("augment.std", (0.0,)),
        ("augment.std", ("a",)),
        ("augment.mean", (0.5,)),
        ("augment.mean", (float("nan"),)),
        ("parallel", "xmap"),
        ("devices", -1),
        ("steps_per_call", -1),
        ("checkpoint_seconds", -1.0),
        ("checkpoint_seconds", float("nan")),
    ],
)
def test_a_value_out_of_range_is_named(key, value):
    with pytest.raises(UserError) as error:
        check(changed(**{key: value}))
    assert f"config.{key}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_crop_that_the_size_cannot_give():
    check(changed(data__size=8, augment__crop=8))
    with pytest.raises(UserError, match=r"config\.augment\.crop is 9, but config\.data\.size 8"):
        check(changed(data__size=8, augment__crop=9))


def test_a_choice_that_is_none_names_the_near_ones_and_whether_it_may_be_empty():
    words = (
        r"^config\.first_stage is 'tripelt': did you mean triplet\? choose from deep_knn, "
        r"soft_deep_knn, triplet"
    )
    with pytest.raises(UserError, match=rf"{words}, .*max_margin_hard, or leave it empty$"):
        check(changed(first_stage="tripelt"))
    with pytest.raises(UserError, match=r"^config\.batch\.kind is '': choose from shuffled, .*l$"):
        check(changed(batch__kind=""))


def test_what_is_allowed_at_the_edges():
    check(
        changed(
            seed=0,
            loss__p=1.0,
            loss__margin=0.0,
            optimizer__momentum=0.0,
            evaluate__k_p=(1,),
            evaluate__references=(),
            augment__mean=(0.5, 1, 0.0),
            augment__std=(1, 1.0, 0.5),
            checkpoint_seconds=0.0,
            evaluate__every_epochs=0,
        )
    )


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("epoch", "epochs"),
        ("loss.magrin", "loss.margin"),
        ("learning_rate", "optimizer.learning_rate"),
        ("optimiser.momentum", "optimizer.momentum"),
        ("size", "data.size"),
    ],
)
def test_an_unknown_key_brings_its_neighbours(wrong, right):
    words = config_lib.near_keys(wrong)
    assert words.startswith("; did you mean ")
    assert right in words.removeprefix("; did you mean ").removesuffix("?").split(" or ")


def test_a_key_like_no_other_brings_them_all():
    words = config_lib.near_keys("zzzzzz")
    assert all(key in words for key in config_lib.flatten(config_lib.default()))


def test_keys_too_many_and_too_few_are_named():
    config = config_lib.default()
    config.loss.marign = 1.0
    with pytest.raises(UserError, match=r"loss\.marign does not exist; did you mean loss\.margin"):
        check(config)
    config = config_lib.default()
    del config.loss["margin"]
    with pytest.raises(UserError, match=r"loss\.margin is missing"):
        check(config)


def test_a_config_equals_what_its_file_says():
    """Tuples come back from JSON as lists: that is no difference."""
    config = changed(augment__mean=(0.5,), augment__std=(0.25,))
    stored = json.loads(config_lib.to_json(config))
    assert stored["evaluate"]["k_p"] == [1, 5]
    assert config_lib.differences(config, stored) == []


@given(
    st.sampled_from(
        [("seed", 1), ("loss.k", 3), ("data.dir", "x"), ("evaluate.k_p", (1, 7)), ("epochs", 3),
         ("steps_per_call", 7), ("data.validation", 0.1), ("batch.size", 90)]
    )
)  # fmt: skip
def test_each_difference_is_named_with_both_values(change):
    key, value = change
    stored = json.loads(config_lib.to_json(config_lib.default()))
    old = config_lib.flatten(stored)[key]
    new = list(value) if isinstance(value, tuple) else value
    found = config_lib.differences(changed(**{key: value}), stored)
    assert found == [f"{key}: {old!r} -> {new!r}"]


def test_keys_that_do_not_touch_the_training_may_change():
    stored = json.loads(config_lib.to_json(config_lib.default()))
    other = changed(
        checkpoint_seconds=1.0,
        data__cache_dir="x",
        data__placement="stream",
        evaluate__batch_size=1,
        evaluate__pictures=False,
        evaluate__references=(),
    )
    assert config_lib.differences(other, stored) == []


def test_an_option_that_a_stored_config_does_not_know_had_its_default():
    stored = json.loads(config_lib.to_json(config_lib.default()))
    del stored["seed"], stored["model"]["weights"]  # of an earlier version of this program
    stored["sede"] = 0
    assert config_lib.differences(config_lib.default(), stored) == ["sede: 0 -> None"]
    assert config_lib.differences(changed(seed=3), stored) == ["sede: 0 -> None", "seed: 0 -> 3"]


def test_a_run_s_config_json_is_a_config():
    config = changed(evaluate__k_p=(1, 7), augment__mean=(0.5,), augment__std=(0.25,), loss__k=3)
    again = config_lib.of_json(config_lib.to_json(config))
    assert config_lib.flatten(again) == config_lib.flatten(config)
    assert again.evaluate.k_p == (1, 7)
    check(again)


def test_a_config_json_of_an_earlier_version_or_of_something_else():
    stored = json.loads(config_lib.to_json(changed(loss__name="lmnn")))
    del stored["loss"]["targets"], stored["loss"]["neighborhood"], stored["data"]["ignore"]
    stored["loss"]["k"] = 9
    assert config_lib.of_json(json.dumps(stored)).loss.targets == 9
    for text in ("{", "[1]", '{"a": 1}', '{"seed": {"b": 1}}'):
        with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
            config_lib.of_json(text)
