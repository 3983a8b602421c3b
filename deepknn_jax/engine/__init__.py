"""What runs on devices: the step, its mapping over them, and how batches get there.

Imports data, losses, mining, models and knn; values come as plain arguments, no config.
"""
