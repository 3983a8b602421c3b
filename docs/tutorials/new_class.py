# %% [markdown]
# # A new class without retraining
#
# A kNN classifier knows what its gallery holds. A class that the training had not can join later
# by some labelled images: the network stays as it is. Here it is trained on the digits 0 to 7, and
# 8 and 9 join.

# %%
import subprocess
import sys

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import deepknn_jax
from deepknn_jax.answers import gallery

digits = load_digits()
images = (digits.images * 15.9).astype(np.uint8)[..., None]  # [N, 8, 8, 1]
labels = digits.target.astype(str)
known = np.flatnonzero(digits.target < 8)
train, asked_known = known[:900], known[900:1100]
new = np.flatnonzero(digits.target >= 8)
joining, asked_new = new[:40], new[40:140]

# %% [markdown]
# The training, from an .npz of images and labels.

# %%
np.savez(
    "known.npz",
    train_images=images[train],
    train_labels=digits.target[train],
    test_images=images[asked_known],
    test_labels=digits.target[asked_known],
)
arguments = [
    "--config=configs/pneumoniamnist.py",
    "--config.data.dir=known.npz",
    "--config.data.size=16",
    "--config.augment.crop=16",
    "--config.augment.flip=False",
    "--config.model.name=cnn",
    "--config.epochs=6",
    "--config.batch.kind=shuffled",
    "--config.batch.size=96",
    "--config.loss.margin=4.0",
    "--config.evaluate.k_p=(5,)",
    "--config.evaluate.pictures=False",
    "--config.evaluate.references=()",
    "--config.evaluate.every_epochs=6",
    "--workdir=run",
]
done = subprocess.run(
    [sys.executable, "-m", "deepknn_jax.main", *arguments],
    capture_output=True,
    text=True,
    check=False,
)
print(done.stdout[-1500:], done.stderr[-1500:] if done.returncode else "")

# %% [markdown]
# Asked about an 8 or a 9 the run answers something else: it cannot do otherwise.

# %%
asked = np.concatenate([asked_known, asked_new])
is_new = digits.target[asked] >= 8


def shares(run):
    """Of the known digits and of 8 and 9: the share that is answered rightly, in %."""
    found = np.asarray(run.predict(images[asked]).labels)
    names = np.asarray(run.class_names)[found] if found.dtype.kind == "i" else found
    right = names == labels[asked]
    return 100 * right[~is_new].mean(), 100 * right[is_new].mean()


run = deepknn_jax.open_run("run")
before = shares(run)
print(f"known {before[0]:.1f} %, 8 and 9 {before[1]:.1f} %")
assert before[1] == 0

# %% [markdown]
# Forty images with their labels join. Each change is a line of the run's journal, with who, why
# and when; the images that are asked about below are none of them.

# %%
done = gallery.add(
    "run",
    images[joining],
    labels[joining].tolist(),
    names=[f"digit_{row}" for row in joining],
    note="8 and 9",
    run=run,
)
print(done.line.number, done.line.did, len(done.line.names), "images")

run = deepknn_jax.open_run("run")
after = shares(run)
print(f"known {after[0]:.1f} %, 8 and 9 {after[1]:.1f} %")
assert after[1] > 40

# %% [markdown]
# The network was never made to tell 8 and 9 apart, so they lie nearer to others than what it was
# trained on. How many images a class needs is seen by letting fewer vote; each point is the
# gallery after one more line.

# %%
gallery.restore("run", 0, note="as trained")
counts, found = [0], [before]
for rows in np.split(joining, 4):
    names = [f"digit_{row}" for row in rows]
    gallery.add("run", images[rows], labels[rows].tolist(), names=names, run=run)
    counts.append(counts[-1] + len(rows))
    found.append(shares(deepknn_jax.open_run("run")))
plt.figure(figsize=(6, 3.5))
plt.plot(counts, [share for share, _ in found], "o-", label="digits 0 to 7")
plt.plot(counts, [share for _, share in found], "o-", label="8 and 9")
plt.xlabel("images of 8 and 9 in the gallery")
plt.ylabel("answered rightly, %")
plt.ylim(0, 102)
plt.legend(loc="center right")
plt.tight_layout()
plt.show()

# %% [markdown]
# What was done, and back to what was trained. `open_run("run", at=1)` answers by the gallery as it
# was after the first line.

# %%
gallery.restore("run", 0, note="end of the tutorial")
for line in gallery.history("run"):
    print(line.number, line.did, len(line.names or ()), line.note)
assert shares(deepknn_jax.open_run("run")) == before

# %% [markdown]
# p-values of the new classes need calibration images of their own: [A gallery that
# grows](../gallery.md#what-the-p-values-hold-for-after-a-change).
