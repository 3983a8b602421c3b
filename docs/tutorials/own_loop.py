# %% [markdown]
# # The loss in your own Flax loop
#
# The losses are functions of arrays: embeddings and labels in, a scalar out, under `jit` and
# `grad`. Nothing else of this package is needed to train with them. First with Flax's linen, then
# the same with nnx.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen, nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from deepknn_jax import deep_knn_loss, knn_classify

x, labels = load_digits(return_X_y=True)
x = (x / 16).astype(np.float32)
x_train, x_test, y_train, y_test = train_test_split(
    x, labels, test_size=0.2, stratify=labels, random_state=0
)
BATCH, EPOCHS, MARGIN = 96, 20, 1.0


def batches(rng):
    """Shuffled rows, a full batch each: one shape, one compilation."""
    rows = rng.permutation(len(x_train))[: len(x_train) // BATCH * BATCH]
    return rows.reshape(-1, BATCH)


def accuracy(embed):
    """Of the vote of the five nearest training examples on each test example, in %."""
    found = knn_classify(embed(x_test), embed(x_train), y_train, k=5, num_classes=10)
    return 100 * float(np.mean(np.asarray(found.labels) == y_test))


print(f"pixels: {accuracy(jnp.asarray):.1f} %")

# %% [markdown]
# ## linen
#
# The batch should hold at least K + 1 examples of a class; where it has fewer positives or
# negatives than K and M, the loss takes those that there are.


# %%
class Embedder(linen.Module):
    """Pixels [B, 64] -> embeddings [B, 32]."""

    @linen.compact
    def __call__(self, x):
        """[B, 64] -> [B, 32]."""
        return linen.Dense(32)(linen.relu(linen.Dense(128)(x)))


model = Embedder()
optimizer = optax.sgd(0.1, momentum=0.9)


@jax.jit
def step(params, state, x, y):
    """One step; the loss before it."""

    def loss_of(params):
        return deep_knn_loss(model.apply(params, x), y, k=5, m=5, margin=MARGIN)

    loss, gradient = jax.value_and_grad(loss_of)(params)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss


params = model.init(jax.random.key(0), x_train[:1])
state = optimizer.init(params)
before = accuracy(lambda x: model.apply(params, x))
rng, of_linen = np.random.default_rng(0), []
for _ in range(EPOCHS):
    for rows in batches(rng):
        params, state, loss = step(params, state, x_train[rows], y_train[rows])
        of_linen.append(float(loss))
after = accuracy(lambda x: model.apply(params, x))
print(f"untrained: {before:.1f} %, trained: {after:.1f} %")
assert after > before

# %% [markdown]
# ## nnx
#
# The same network, whose parameters are in the object.


# %%
class NnxEmbedder(nnx.Module):
    """Pixels [B, 64] -> embeddings [B, 32]."""

    def __init__(self, rngs):
        self.hidden = nnx.Linear(64, 128, rngs=rngs)
        self.out = nnx.Linear(128, 32, rngs=rngs)

    def __call__(self, x):
        """[B, 64] -> [B, 32]."""
        return self.out(nnx.relu(self.hidden(x)))


@nnx.jit
def nnx_step(model, optimizer, x, y):
    """One step, in place; the loss before it."""

    def loss_of(model):
        return deep_knn_loss(model(x), y, k=5, m=5, margin=MARGIN)

    loss, gradient = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradient)
    return loss


nnx_model = NnxEmbedder(nnx.Rngs(0))
nnx_optimizer = nnx.Optimizer(nnx_model, optax.sgd(0.1, momentum=0.9), wrt=nnx.Param)
before = accuracy(nnx_model)
rng, of_nnx = np.random.default_rng(0), []
for _ in range(EPOCHS):
    for rows in batches(rng):
        of_nnx.append(float(nnx_step(nnx_model, nnx_optimizer, x_train[rows], y_train[rows])))
after = accuracy(nnx_model)
print(f"untrained: {before:.1f} %, trained: {after:.1f} %")
assert after > before

# %% [markdown]
# The loss falls to near 0: then nearly all triplets have their margin. On the right, test examples
# on the two first principal components of their embeddings.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5))
left.plot(of_linen, label="linen")
left.plot(of_nnx, label="nnx")
left.set(xlabel="step", ylabel="loss", ylim=(0, None))
left.legend()
z = np.asarray(nnx_model(jnp.asarray(x_test)))
z = z - z.mean(0)
xy = z @ np.linalg.svd(z, full_matrices=False)[2][:2].T
points = right.scatter(*xy.T, c=y_test, cmap="tab10", s=12)
right.legend(*points.legend_elements(), loc="center left", bbox_to_anchor=(1, 0.5))
right.set(xticks=[], yticks=[])
figure.tight_layout()
plt.show()

# %% [markdown]
# NCA, soft deep kNN and the others are called alike: [each has a page](../losses/index.md). For a
# network that has batch statistics or dropout, embed in its evaluation mode before a search.
