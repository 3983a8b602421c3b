"""What anchors are trained against, searched or drawn in the whole training set: pure functions.

Imports knn; not data, losses or models. When to mine, and for which loss, trainer/miners.py says.
"""
