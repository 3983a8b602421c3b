"""Alive after three years? 145 lung cancer patients by 1,218 radiomic features of their CT.

Stands in for the sarcoma set of Neighborhood Watch, which is not public: the same size and task.
109 died within 1,096 days, 36 did not: answering "died" has an accuracy of 75.2 % and an MCR of
50 %. Five stratified folds; config.data.fold, 1 to 5, chooses the one to test on.
Data: Aerts et al., Nature Communications 5 (2014), the collection NSCLC-Radiomics (CC BY-NC 3.0);
    DIR holds lung1_radiomics_survival.csv: PatientID, Survival.time in days, deadstatus.event
    (1 died, 0 censored) and the features original_..., log-... and wavelet-... of PyRadiomics.
Command: python -m deepknn_jax.main --config=configs/lung1.py --config.data.dir=DIR --workdir=OUT
Neighborhood Watch's LM-Mining: --config.loss.name=local_margin --config.loss.neighborhood=0
    (k = 11); its other methods: configs/nw_mnist.py has them.
Then, the survival itself: python -m deepknn_jax.transfer --embeddings=OUT/embeddings.npz
    --survival=DIR/lung1_radiomics_survival.csv --name_column=PatientID
    --time_column=Survival.time --event_column=deadstatus.event
Time: 25 s on two busy CPU cores, 1.2 s of them training. Fold 1 gives kNN (K_p = 5) an accuracy of
    69.0 % and an MCR of 51.5 %, and Cox's model on the embeddings a C-index of 0.63.
"""

from ml_collections import ConfigDict

from deepknn_jax import config as config_lib


def get_config() -> ConfigDict:
    config = config_lib.default()
    config.data.source = "survival_csv"
    config.data.csv = "lung1_radiomics_survival.csv"
    config.data.name_column = "PatientID"
    config.data.time_column = "Survival.time"
    config.data.event_column = "deadstatus.event"
    config.data.feature_prefixes = ("original_", "log-", "wavelet-")
    config.data.split = "published"
    config.data.fold = 1
    config.model.name = "feed_forward"
    config.optimizer.name = "adam"  # Neighborhood Watch, "Setting"; the batch as well
    config.optimizer.learning_rate = 1e-4
    config.optimizer.halve_every_epochs = 0
    config.batch.size = 20
    return config
