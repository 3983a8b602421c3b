"""Options are used or refused: which part of the loading reads which, and who else would."""

from collections.abc import Collection

from deepknn_jax.data.dataset import VALIDATION, Listing
from deepknn_jax.data.sources import SOURCES, options_of
from deepknn_jax.data.splits import parts_of
from deepknn_jax.errors import UserError

ALWAYS = frozenset({"split", "validation", "copies", "cache_dir"})  # a cache touches no result
DRAWN = frozenset({"test_share", "split_seed"})
# What is read of the options, for what a source gives: files, or arrays by their rank.
IMAGES = frozenset({"size", "resize_rule", "channels", "near_copies"})
FILES = IMAGES | {"value_range", "frame", "on_error"}


def check_source_reads(source: str, given: Collection[str]) -> None:
    """Raises UserError for the first of the options `given` that `source` cannot make use of.

    That is known before anything is listed, save for what depends on what the source gives.
    """
    known = ALWAYS | DRAWN | FILES | set(options_of(source))
    for name in sorted(set(given) - known):
        readers = [each for each in SOURCES if name in options_of(each)]
        raise UserError(f"`{name}` is set, but `source` {source} does not read it "
                        f"({', '.join(readers) or 'none'} would); leave it out")  # fmt: skip


def check_all_read(
    source: str, given: Collection[str], listing: Listing, *, split: str, validation: float
) -> None:
    """Raises UserError for the first of the options `given` that this listing and split leave.

    `split` is the one that is used, and `validation` the share that is to validate.
    """
    rank = 0 if listing.inputs is None else listing.inputs.ndim
    loading = FILES if listing.files is not None else IMAGES if rank == 4 else frozenset()
    read = ALWAYS | loading | set(options_of(source))
    if split != "published":
        read |= DRAWN
    elif validation and VALIDATION not in parts_of(listing.splits):
        read |= {"split_seed"}
    for name in sorted(set(given) - read):
        if name in DRAWN:
            raise UserError(f"`{name}` is set, but `split` is published, which draws nothing; leave"
                            " it out, or choose stratified or grouped")  # fmt: skip
        what = {0: "files", 4: "arrays of images", 5: "volumes"}.get(rank, "feature vectors")
        who = "image files" if name not in IMAGES else "images"
        raise UserError(f"`{name}` is set, but `source` {source} gives {what}, whose loading does "
                        f"not read it (that of {who} does); leave it out")  # fmt: skip
