# %% [markdown]
# # Features in scikit-learn
#
# You have features and classes as arrays. `deepknn_jax.estimators` has deep kNN as a classifier of
# scikit-learn: in pipelines, cross validation and grid searches, without config or workdir.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    StratifiedKFold,
    cross_val_score,
    train_test_split,
)
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from deepknn_jax.estimators import DeepKNNClassifier

X, y = load_digits(return_X_y=True)
X = X.astype(np.float32)
X_train, X_test, y_train, y_test = train_test_split(
    X, y, test_size=0.25, stratify=y, random_state=0
)

# %% [markdown]
# ## Cross validation
#
# Beside scikit-learn's kNN on the features as they are, on the same folds. Where several rows are
# of one patient, take `GroupKFold` and give `groups=`.

# %%
small = {"hidden": (128,), "embedding_size": 32, "epochs": 20, "random_state": 0}
folds = StratifiedKFold(3, shuffle=True, random_state=0)
models = {
    "kNN": KNeighborsClassifier(5),
    "deep kNN": make_pipeline(StandardScaler(), DeepKNNClassifier(**small)),
}
for name, model in models.items():
    scores = cross_val_score(model, X_train, y_train, cv=folds)
    print(f"{name:9} {100 * scores.mean():.1f} +- {100 * scores.std():.1f} %")

# %% [markdown]
# ## A grid
#
# What does not change a shape (margin, rates, seed) is not compiled again, so a grid over it costs
# the training alone.

# %%
grid = {"deepknnclassifier__margin": [0.5, 1.0, 4.0]}
search = GridSearchCV(models["deep kNN"], grid, cv=folds).fit(X_train, y_train)
for margin, mean, sd in zip(
    search.cv_results_["param_deepknnclassifier__margin"],
    search.cv_results_["mean_test_score"],
    search.cv_results_["std_test_score"],
    strict=True,
):
    print(f"margin {margin}: {100 * mean:.1f} +- {100 * sd:.1f} %")
score = accuracy_score(y_test, search.predict(X_test))
print(f"test, with margin {search.best_params_['deepknnclassifier__margin']}: {100 * score:.1f} %")
assert score > 0.95

# %% [markdown]
# ## The evidence
#
# `kneighbors` gives the rows of X_train that voted. Here are a few test digits, the most doubtful
# by their votes, each beside its voters.

# %%
doubt = 1 - search.predict_proba(X_test).max(1)
worst = np.argsort(-doubt, kind="stable")[:5]
scaler, classifier = search.best_estimator_[0], search.best_estimator_[-1]
_, rows = classifier.kneighbors(scaler.transform(X_test[worst]))
figure, axes = plt.subplots(5, 1 + rows.shape[1], figsize=(6, 6))
for line, row, voters in zip(axes, worst, rows, strict=True):
    shown = [(X_test[row], y_test[row]), *((X_train[at], y_train[at]) for at in voters)]
    for axis, (pixels, label) in zip(line, shown, strict=True):
        axis.imshow(pixels.reshape(8, 8), cmap="gray_r")
        axis.set_title(label, fontsize=8)
        axis.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("asked")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## Embeddings
#
# `transform` gives them; any other estimator can go on from there.

# %%
xy = PCA(2).fit_transform(search.best_estimator_.transform(X_test))
plt.figure(figsize=(6, 4.5))
points = plt.scatter(*xy.T, c=y_test, cmap="tab10", s=10)
plt.legend(*points.legend_elements(), loc="center left", bbox_to_anchor=(1, 0.5))
plt.xticks([])
plt.yticks([])
plt.tight_layout()
plt.show()

# %% [markdown]
# ## Sets of classes
#
# Some training rows held out, `predict_set` gives for each row the classes that cannot be ruled
# out: of new rows of a class a share of at least 0.9 has it in its set.

# %%
held = DeepKNNClassifier(**small, validation_fraction=0.2).fit(X_train, y_train)
sets = held.predict_set(X_test, level=0.9)
covered = sets[np.arange(len(y_test)), y_test].mean()
print(f"{100 * covered:.1f} % of the sets hold the class; {sets.sum(1).mean():.2f} classes a set")
assert covered > 0.8

# %% [markdown]
# The other estimators, and what holds for the sets: [Estimators](../estimators.md).
