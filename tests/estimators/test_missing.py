import importlib
import sys

import pytest

from deepknn_jax.errors import UserError


def test_without_scikit_learn_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "deepknn_jax.estimators", raising=False)
    with pytest.raises(UserError, match=r"needs scikit-learn: pip install scikit-learn$"):
        importlib.import_module("deepknn_jax.estimators")
