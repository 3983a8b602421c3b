"""Frozen embeddings in other models (Neighborhood Watch, "Setting", second experiment).

A command. Imports shell.py and the rooms from evaluation down; knows nothing of a config.
"""
