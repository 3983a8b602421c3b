"""What the commands share: where a config file is found."""

import pytest
from support.runs import ROOT

from deepknn_jax.errors import UserError
from deepknn_jax.shell import find_config, make_missing_model


def test_a_config_beside_comes_before_the_package_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config("configs/digits.py") == str(ROOT / "configs" / "digits.py")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "digits.py").write_text("")
    assert find_config("configs/digits.py") == "configs/digits.py"
    absolute = str(tmp_path / "configs" / "digits.py")
    assert find_config(absolute) == absolute
    with pytest.raises(UserError, match=r"configs/skin7\.py"):
        find_config("configs/skin.py")


def test_only_a_finished_run_without_a_model_folder_has_it_made(tmp_path, monkeypatch):
    from deepknn_jax.trainer import afterwards

    made = []
    monkeypatch.setattr(afterwards, "make_model", made.append)
    make_missing_model(str(tmp_path))
    (tmp_path / "results.json").touch()
    make_missing_model(str(tmp_path))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").touch()
    make_missing_model(str(tmp_path))
    make_missing_model(str(tmp_path / "model"))
    assert made == [str(tmp_path)]
