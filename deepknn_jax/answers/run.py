"""A trained run, opened: it embeds and classifies new images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from deepknn_jax.answers import model as model_lib
from deepknn_jax.answers import state
from deepknn_jax.answers.intake import Block, Images, Questions, blocks, questions
from deepknn_jax.answers.judge import Predictions, check_options, judge
from deepknn_jax.answers.model import Model
from deepknn_jax.answers.network import Embed, Form, embedder, form_asked
from deepknn_jax.errors import UserError

NOT_FINITE = "its embedding is not finite"


class Run(NamedTuple):
    """What `open_run` gives. `folder` is the model folder, `embed_inputs` its network.

    `form` is that of images also for a run on features, where its folder has what made them.
    """

    folder: Path
    model: Model
    form: Form
    embed_inputs: Embed

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the C classes, which labels index."""
        return self.model.classes

    def embed(self, images: Images) -> np.ndarray:
        """Embeddings float32 [n, D] of n images, as `predict` takes them."""
        return self._read(images)[1]

    def predict(
        self,
        images: Images,
        *,
        k: int | None = None,
        level: float = 0.9,
        abstain_error: float = 0.1,
    ) -> Predictions:
        """The vote of the nearest training images on each image, with evidence and doubt.

        Args:
            images: the path of a file, a folder, a csv or an .npz; paths of files; uint8
                [n, H, W, C]; or features [n, F], or [n, V, F] of V views, for a run that was
                trained on such. Of one whose features --mode=embed made both are taken.
            k: neighbours that vote; the run's own K_p by default.
            level: of the prediction sets.
            abstain_error: share of wrong answers that is wanted among those that are given.

        Raises:
            UserError: an image that cannot be read, or an option out of range.
        """
        k = self.model.about["k_p"] if k is None else k
        check_options(self.model, k, level, abstain_error)
        asked, embeddings = self._read(images)
        return judge(embeddings, asked.names, self.model, k=k, level=level,
                     abstain_error=abstain_error)  # fmt: skip

    def _read(self, images: Images) -> tuple[Questions, np.ndarray]:
        if isinstance(images, Sequence) and not isinstance(images, str) and not len(images):
            raise UserError("`images` holds none")
        asked, parts = questions(images, self.form, self.class_names), []
        for block in blocks(asked, self.form):
            for row, reason in block.errors.items():
                raise UserError(f"{asked.names[row]}: cannot be read ({reason}); leave it out")
            parts.append(self.embed_inputs(block.inputs))
        if not parts:
            raise UserError("`images` holds none")
        embeddings = np.concatenate(parts)
        if not np.isfinite(embeddings).all():
            raise UserError("the embeddings are not finite: are the inputs like the run's own?")
        return asked, embeddings


def open_run(path: str | Path, at: int | None = None) -> Run:
    """The run whose workdir, or model folder wherever it lies, is at `path`.

    `at`: with the gallery as it was after so many lines of its journal; 0, as it was trained.

    Raises:
        UserError: there is none, or it is damaged; the journal has no such line.
    """
    folder = model_lib.find(path)
    model = state.read(folder, at)
    return Run(folder, model, form_asked(model), embedder(model))


def answered(
    run: Run, asked: Questions, *, k: int, level: float, abstain_error: float
) -> Iterator[tuple[Block, Predictions | None]]:
    """Each block of what is `asked`, with the predictions for what could be read of it, or None.

    An image whose embedding is not finite is among its block's errors. Options as `Run.predict`.
    """
    for block in blocks(asked, run.form):
        embeddings = run.embed_inputs(block.inputs)
        finite = np.asarray(np.isfinite(embeddings).all(axis=1))
        if not finite.all():
            block = _without(block, finite)
        found = None
        if len(block.rows):
            names = tuple(asked.names[row] for row in block.rows)
            found = judge(embeddings[finite], names, run.model, k=k, level=level,
                          abstain_error=abstain_error)  # fmt: skip
        yield block, found


def _without(block: Block, finite: np.ndarray) -> Block:
    """The block with those rows that are not `finite` among its errors."""
    errors = block.errors | {int(row): NOT_FINITE for row in block.rows[~finite]}
    shown = tuple(each for each, good in zip(block.thumbnails, finite, strict=True) if good)
    return Block(block.rows[finite], block.inputs[finite], shown, errors)
