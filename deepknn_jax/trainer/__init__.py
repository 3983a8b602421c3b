"""A run: from a config to parameters, results and files.

Imports every room below it and config.py. This room alone reads a ConfigDict.
"""
