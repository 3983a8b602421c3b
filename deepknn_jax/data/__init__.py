"""Sources of labelled images and features, their split, the decode cache."""
