"""Losses, a file each: functions of (anchors, gallery) for the trainer, and of a batch for others."""
