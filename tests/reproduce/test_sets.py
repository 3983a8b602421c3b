"""What is told of a set that is not there, and what is found of one that is."""

from support.reproduced import tiny_root  # noqa: F401  (a fixture)

from deepknn_jax.errors import UserError
from deepknn_jax.reproduce import sets


def test_the_option_of_the_folder_is_data_root_here(monkeypatch, tmp_path):
    def missing(*args, **options):
        raise UserError(f"{tmp_path}/sd198: no such folder (`folder`); it should hold images")

    monkeypatch.setattr(sets, "list_source", missing)
    words = "SD-198: sd198: no such folder below --data_root; it should hold images"
    assert sets.absent("sd198", tmp_path) == words


def test_what_is_absent_is_told_once_with_its_layout(tmp_path):
    words = sets.all_absent(tmp_path, "skin7_features", "nw_skin7", "skin7")
    assert words[0] == "Skin-7, features: skin7: not below --data_root"
    assert words[1].startswith("Skin-7: skin7: no such folder below --data_root; it should hold ")
    assert len(words) == 2
    (tmp_path / "skin7").mkdir()
    assert sets.all_absent(tmp_path, "skin7_features", "skin7") == []


def test_a_listing_has_the_configs_split_or_that_of_other_options(tiny_root):  # noqa: F811
    first, second = (
        sets.listing("skin7", tiny_root / "skin7", **more) for more in ({}, {"fold": 2})
    )
    assert first.names == second.names
    assert (first.splits == "test").sum() == (second.splits == "test").sum() == 33
    assert not ((first.splits == "test") & (second.splits == "test")).any()
