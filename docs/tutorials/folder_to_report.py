# %% [markdown]
# # From a folder of images to a report
#
# You have images in folders that are called like their classes. This trains deep kNN on them, has
# it answer for images that it has not seen, and looks at what it leaves. Any folder of that form
# will do; here it is made of scikit-learn's handwritten digits, so that all runs without a
# download.

# %%
import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits

digits = load_digits()
images = (digits.images * 15.9).astype("uint8")  # 8 x 8, levels 0 to 16 in the data


def write(folder, rows):
    """An image a file, in the folder of its class."""
    for row in rows:
        path = Path(folder) / str(digits.target[row]) / f"{row:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).save(path)


write("images", range(800))
write("new", range(1700, 1797))

# %% [markdown]
# ## What is there
#
# `--mode=inspect` tells what is found, and trains nothing: read it before a long training. A fifth
# of each class becomes the test part. If several images are of one patient, say how patients are
# told (`--config.data.group_pattern`), or the test part holds near-copies of training images.


# %%
def command(*arguments):
    """Runs `python -m ...` and shows what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=False
    )
    print(done.stdout[-2500:])
    if done.returncode:
        raise RuntimeError(done.stderr[-2500:])


data = [
    "--config=configs/class_folders.py",
    "--config.data.dir=images",
    "--config.data.channels=1",
    "--config.data.size=16",
    "--config.augment.crop=16",
    "--config.augment.flip=False",  # a mirrored digit is none
]
command("deepknn_jax.main", *data, "--mode=inspect")

# %% [markdown]
# ## The training
#
# The validation part, a fifth of what is left, is held out too: from it come the p-values and the
# sets of classes further down.

# %%
training = [
    "--config.data.validation=0.2",
    "--config.epochs=8",
    "--config.evaluate.every_epochs=8",
    "--config.batch.kind=shuffled",
    "--config.batch.size=96",
    "--config.loss.margin=4.0",
]
command("deepknn_jax.main", *data, *training, "--workdir=run")

# %% [markdown]
# `results.json` has the same figures. With some hundred test images the intervals are wide: a
# difference of one image is no finding.

# %%
results = json.loads(Path("run/results.json").read_text())
print(sorted(results))
assert Path("run/report.html").exists()

# %% [markdown]
# Each test image beside the training images that voted on it. This, not the figure of accuracy, is
# what a reader of a kNN can check.

# %%
picture = plt.imread("run/neighbors.png")
figure = plt.figure(figsize=(8, 8 * picture.shape[0] / picture.shape[1]))
figure.add_axes((0, 0, 1, 1)).imshow(picture)
plt.axis("off")
plt.show()

# %% [markdown]
# ## New images
#
# The folder `run/model` answers by itself, wherever it is copied. Where the new images are
# labelled, as these by their folders, results.json tells how it did on them.

# %%
command("deepknn_jax.predict", "--run=run", "--images=new", "--out=answers")

# %%
with open("answers/predictions.csv", encoding="utf-8", newline="") as file:
    answers = list(csv.DictReader(file))
right = [answer["name"].split("/")[0] == answer["prediction"] for answer in answers]
print(f"{sum(right)} of {len(right)} right")
assert sum(right) > 0.8 * len(right)

# %% [markdown]
# A set holds the classes that cannot be ruled out at a level of 0.9: for nine of ten new images of
# a class it holds the right one, if these are like the validation images. An empty set is that of
# an image like none that is known. Here are the sets by their size, and what was abstained from.

# %%
sizes = [len(answer["set"].split(";")) if answer["set"] else 0 for answer in answers]
print({size: sizes.count(size) for size in sorted(set(sizes))})
print("abstained:", sum(bool(answer["abstain"]) for answer in answers))
held = [answer["name"].split("/")[0] in answer["set"].split(";") for answer in answers]
print(f"the set holds the class of {sum(held)} of {len(held)}")

# %% [markdown]
# `answers/report.html` shows each of these images beside its voters, with its doubt, to be read in
# any browser or printed. What its words hold for is in [Prediction](../predict.md).
