"""What a trained run says of new images: its model folder, predictions with evidence, a report.

The room reads a model folder and nothing else of a run: no config, no checkpoint, no data set.
"""
