"""A run: from a config to parameters, figures and files."""
