"""Deep kNN on MRI of soft tissue sarcoma: alive after three years? 180 / 20 / 72 volumes of 64^3.

Data: Spraker et al., Advances in Radiation Oncology 4 (2019), not public; DIR holds
    survival.csv (patient, cohort 1 or 2, time in days, event: 1 died, 0 censored) and for each
    patient <patient>/image.nii.gz and <patient>/roi.nii.gz (or .nii; or .npy with voxels of 1 mm).
    Cohort 1 trains and validates, cohort 2 tests. The image is cut to the box around the ROI,
    resampled to 1 mm and then to 64 x 64 x 64.
Command: python -m deepknn_jax.main --config=configs/sarcoma.py --config.data.dir=DIR --workdir=OUT
    Patients censored before 1,096 days count as survivors, as in the paper;
    --config.data.leave_out_censored=True leaves them out.
Memory: 71 MB of volumes.
Time: not run here.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "sarcoma"
    config.data.split = "published"
    config.data.validation = 0.1  # 20 of cohort 1's 200
    config.data.size = 64
    config.augment.flip = True
    config.model.name = "sarcoma_cnn"
    config.batch.size = 20  # Neighborhood Watch, "Setting"
    return config
