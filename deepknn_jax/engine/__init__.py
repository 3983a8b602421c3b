"""What runs on devices: the step, its mapping, and how batches get there."""
