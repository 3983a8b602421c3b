"""Sarcoma volumes: crop, resampling, scale and orientation; survival; what is refused."""

import nibabel
import numpy as np
import pytest
from support import tiny_sets
from support.optional import require

from deepknn_jax.data.sources.volumes import read_volume, sarcoma
from deepknn_jax.data.splits import assign_splits
from deepknn_jax.errors import UserError


def save_nifti(path, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
    return path


def ball(shape, radius=0.8):
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    return np.sqrt((np.stack(grid) ** 2).sum(0)) < radius


@pytest.mark.interop
def test_resampling_is_scikit_images(tmp_path):
    """In and out of 1 mm, with its anti-aliasing; the box is the mask's, the scale its own."""
    transform = require("skimage.transform")
    values = np.random.default_rng(0).normal(100, 30, (30, 24, 12)).astype(np.float32)
    mask = np.zeros(values.shape, np.uint8)
    mask[4:28, 2:20, 1:11] = ball((24, 18, 10), 1.01)
    affine = np.diag([0.5, 0.8, 3.0, 1.0])
    volume = read_volume(
        save_nifti(tmp_path / "image.nii.gz", values, affine),
        save_nifti(tmp_path / "roi.nii.gz", mask, affine), size=8,
    )  # fmt: skip

    def resize(x, shape):
        return transform.resize(x, shape, order=1, mode="edge", anti_aliasing=True, clip=False)

    box = values[4:28, 2:20, 1:11].astype(np.float64).T  # (D, H, W)
    cube = resize(resize(box, (30, 14, 12)), (8, 8, 8))
    low, high = np.percentile(values[mask > 0], (1, 99))
    expected = np.clip((cube - low) / (high - low) * 255, 0, 255)
    assert volume.shape == (8, 8, 8, 1)
    assert volume.dtype == np.uint8
    assert np.abs(volume[..., 0] - expected).max() <= 0.5 + 1e-3
    assert expected.std() > 10


def test_orientation_is_the_patient_s_and_not_the_file_s(tmp_path):
    rng = np.random.default_rng(0)
    values, mask = rng.random((9, 8, 7)).astype(np.float32), ball((9, 8, 7)).astype(np.uint8)
    volumes = []
    for name, order, affine in (
        ("a", lambda x: x, np.diag([1.0, 1.0, 1.0, 1.0])),
        ("b", lambda x: x[::-1, :, ::-1], np.diag([-1.0, 1.0, -1.0, 1.0])),
        ("c", lambda x: x.transpose(2, 0, 1), np.eye(4)[:, [2, 0, 1, 3]]),
    ):
        files = [
            save_nifti(tmp_path / f"{name}_{stem}.nii", np.ascontiguousarray(order(x)), affine)
            for stem, x in (("image", values), ("roi", mask))
        ]
        volumes.append(read_volume(*files, size=6))
    np.testing.assert_array_equal(volumes[1], volumes[0])
    np.testing.assert_array_equal(volumes[2], volumes[0])
    np.save(tmp_path / "image.npy", values.T)
    np.save(tmp_path / "roi.npy", mask.T)
    plain = read_volume(tmp_path / "image.npy", tmp_path / "roi.npy", size=6)
    np.testing.assert_array_equal(plain, volumes[0])


def test_brightness_and_unit_of_the_scanner_do_not_matter(tmp_path):
    values = np.random.default_rng(0).random((8, 8, 8))
    np.save(tmp_path / "roi.npy", ball((8, 8, 8)))
    volumes = []
    for name, scaled in (("a", values), ("b", 700 * values - 30)):
        np.save(tmp_path / f"{name}.npy", scaled)
        volumes.append(read_volume(tmp_path / f"{name}.npy", tmp_path / "roi.npy", size=8))
    assert np.abs(volumes[0].astype(int) - volumes[1]).max() <= 1
    assert volumes[0].min() < 10
    assert volumes[0].max() > 245


@pytest.mark.parametrize("of", ["image", "roi", "both"])
def test_one_time_step_is_squeezed_and_more_are_named(tmp_path, of):
    values, mask = np.random.default_rng(0).random((9, 8, 7)), ball((9, 8, 7)).astype(np.uint8)
    files = {}
    for stem, array in (("image", values), ("roi", mask)):
        files[stem] = save_nifti(tmp_path / f"{stem}.nii", array)
        if of in (stem, "both"):
            files[f"{stem}4"] = save_nifti(tmp_path / f"{stem}4.nii", array[..., None])
            save_nifti(tmp_path / f"{stem}T.nii", np.stack([array] * 3, axis=-1))
    expected = read_volume(files["image"], files["roi"], size=6)
    image, roi = (files.get(f"{stem}4", files[stem]) for stem in ("image", "roi"))
    np.testing.assert_array_equal(read_volume(image, roi, size=6), expected)
    several = [tmp_path / file.name.replace("4", "T") for file in (image, roi)]
    with pytest.raises(ValueError, match=r"^is 4-D, 3 x 7 x 8 x 9: several volumes .*save the one"):
        read_volume(*several, size=6)


def test_npy_volumes_with_an_axis_of_one(tmp_path):
    values, mask = np.random.default_rng(0).random((7, 8, 9)), ball((7, 8, 9))
    np.save(tmp_path / "roi.npy", mask)
    np.save(tmp_path / "image.npy", values)
    expected = read_volume(tmp_path / "image.npy", tmp_path / "roi.npy", size=6)
    for array in (values[None], values[..., None]):
        np.save(tmp_path / "image.npy", array)
        volume = read_volume(tmp_path / "image.npy", tmp_path / "roi.npy", size=6)
        np.testing.assert_array_equal(volume, expected)


def test_a_given_range_goes_before_the_volume_s_own(tmp_path):
    values = np.full((4, 4, 4), 100.0)
    values[:, :, 2:] = 300.0
    np.save(tmp_path / "image.npy", values)
    np.save(tmp_path / "roi.npy", np.ones((4, 4, 4)))
    volume = read_volume(tmp_path / "image.npy", tmp_path / "roi.npy", size=4, value_range=(0, 400))
    np.testing.assert_array_equal(np.unique(volume), [64, 191])


def test_sarcoma_takes_a_range_and_warns_of_few_levels(tmp_path, capsys):
    tiny_sets.sarcoma(tmp_path / "set", patients=(2, 2), suffix=".npy")
    options = {"size": 6, "cache_dir": tmp_path / "cache"}
    own = sarcoma(tmp_path / "set", **options).inputs
    assert "warning" not in capsys.readouterr().out
    wide = sarcoma(tmp_path / "set", value_range=(0, 51000), **options).inputs
    assert wide.max() <= 3
    assert own.max() > 200
    assert "warning: the images have only" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".npy"])
def test_sarcoma_reads_survival_and_cohorts(tmp_path, suffix):
    tiny_sets.sarcoma(tmp_path / "set", patients=(8, 4), suffix=suffix)
    listing = sarcoma(tmp_path / "set", size=10, cache_dir=tmp_path / "cache")
    assert listing.inputs.shape == (12, 10, 10, 10, 1)
    assert listing.class_names == ("died", "survived")
    # Censored early (two of eight, one of four) count as survivors, as the paper has it.
    assert listing.labels.tolist() == [1, 0] * 6
    assert listing.splits.tolist() == ["train"] * 8 + ["test"] * 4
    assert listing.names[0] == "STS_1000"
    dark, bright = listing.inputs[0, 5, 5, 5, 0], listing.inputs[1, 5, 5, 5, 0]
    assert bright > 235
    assert 60 < dark < 200
    without = sarcoma(
        tmp_path / "set", size=10, leave_out_censored=True, cache_dir=tmp_path / "cache"
    )
    assert without.names == tuple(listing.names[i] for i in (0, 1, 3, 4, 5, 7, 8, 9, 11))


def test_the_day_itself_and_late_censoring(tmp_path):
    tiny_sets.sarcoma(tmp_path / "set", patients=(4, 1), suffix=".npy")
    rows = [(1096, 1), (1097, 1), (1097, 0), (1096, 0), (2000, 0)]
    names = [f"STS_{c}" for c in ("1000", "1001", "1002", "1003", "2000")]
    tiny_sets.write_rows(
        tmp_path / "set" / "survival.csv",
        [("patient", "cohort", "time", "event"),
         *((name, name[4], *row) for name, row in zip(names, rows, strict=True))],
    )  # fmt: skip
    options = {"size": 4, "cache_dir": tmp_path / "cache"}
    assert sarcoma(tmp_path / "set", **options).labels.tolist() == [0, 1, 1, 1, 1]
    kept = sarcoma(tmp_path / "set", leave_out_censored=True, **options).names
    assert kept == ("STS_1000", "STS_1001", "STS_1002", "STS_2000")
    account = sarcoma(tmp_path / "set", leave_out_censored=True, **options).account
    assert any("left out: 1 patients, censored" in line for line in account.lines)


def test_twenty_of_cohort_one_validate(tmp_path):
    """Whatever the classes' sizes, 75 and 125 (shares that end in a half) among them."""
    tiny_sets.sarcoma(tmp_path / "set", patients=(2, 2), suffix=".npy")
    listing = sarcoma(tmp_path / "set", size=4, cache_dir=tmp_path / "cache")
    for died in (75, 60, 41):
        labels = np.concatenate([np.repeat([0, 1], (died, 200 - died)), np.arange(72) % 2])
        big = listing._replace(
            names=tuple(map(str, range(272))), labels=labels.astype(np.int32),
            splits=np.repeat(["train", "test"], (200, 72)),
        )  # fmt: skip
        splits = assign_splits(big, split="published", test_share=0.2, validation=0.1, split_seed=0)
        assert [(splits == p).sum() for p in ("train", "validation", "test")] == [180, 20, 72]


def spoil_csv(old, new):
    def spoil(folder):
        text = (folder / "survival.csv").read_text()
        assert old in text
        (folder / "survival.csv").write_text(text.replace(old, new, 1))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "survival.csv").unlink(), r"no survival.csv; wanted: survival.csv \(p"),
        (spoil_csv("STS_1001,1", "STS_1001,3"), "STS_1001 has cohort 3"),
        (spoil_csv("1500,0", "1500,2"), "STS_1000 has .*event 2"),
        (spoil_csv("1500,0", "-1,0"), "STS_1000 has time '-1'; give days"),
        (spoil_csv("1500,0", "long,0"), "STS_1000 has time 'long'"),
        (spoil_csv("STS_1000", "STS_1001"), "STS_1001 is listed more than once"),
        (lambda d: (d / "STS_1001/roi.npy").unlink(), "STS_1001: holds no roi.nii.gz; wanted"),
        (lambda d: np.save(d / "STS_1001/roi.npy", np.zeros((20, 18, 10))), "1/image.npy: .*empty"),
        (lambda d: np.save(d / "STS_1001/roi.npy", np.ones((2, 2, 2))), "ROI's is .2, 2, 2"),
        (lambda d: np.save(d / "STS_1001/image.npy", np.full((20, 18, 10), np.nan)), "NaN"),
        (lambda d: (d / "STS_1001/image.npy").write_text("no volume"),
         "image.npy: cannot be decoded .*; mend or remove it$"),
    ],
)  # fmt: skip
def test_what_sarcoma_refuses(tmp_path, spoil, words):
    tiny_sets.sarcoma(tmp_path / "set", patients=(2, 2), suffix=".npy")
    spoil(tmp_path / "set")
    with pytest.raises(UserError, match=words):
        sarcoma(tmp_path / "set", size=4, cache_dir=tmp_path / "cache")


def test_a_mask_from_elsewhere_is_refused(tmp_path):
    values, mask = np.ones((4, 4, 4), np.float32), np.ones((4, 4, 4), np.uint8)
    image = save_nifti(tmp_path / "image.nii", values)
    roi = save_nifti(tmp_path / "roi.nii", mask, np.diag([2.0, 1.0, 1.0, 1.0]))
    with pytest.raises(ValueError, match="affine"):
        read_volume(image, roi, size=4)


def test_no_folder_and_no_size(tmp_path):
    with pytest.raises(
        UserError, match=r"gone: no such folder \(`folder`\); it should hold survival.csv"
    ):
        sarcoma(tmp_path / "gone", size=4)
    tiny_sets.sarcoma(tmp_path, patients=(2, 2), suffix=".npy")
    with pytest.raises(UserError, match=r"^`size` is 0: volumes need a size"):
        sarcoma(tmp_path, size=0)
