"""Losses, a file each: `*_sums` of (anchors, gallery) for the trainer, `*_loss` of one batch.

Imports knn; not data, mining or models.
"""
