"""Losses, a file each: of (anchors, gallery) for the trainer, and of a batch for others."""
