"""Patients whose hazard follows from what is known of them; some are censored."""

import numpy as np


def patients(n, seed=0, ties=False, slope=(1.0, -0.5, 0.0)):
    """Features [n, 3], times that depend on them, events (a third censored)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, len(slope)))
    times = rng.exponential(np.exp(-x @ slope)) * 300 + 1
    events = rng.random(n) > 0.35
    return x, np.ceil(times / 200) if ties else times, events


def embedded_patients(n=200, D=12, seed=0):
    """Embeddings float32 [n, D] whose first direction sets the hazard; some are censored."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D))
    x[:, 0] *= 3
    times = rng.exponential(np.exp(-0.7 * x[:, 0])) * 500 + 1
    turned = x @ np.linalg.qr(rng.normal(size=(D, D)))[0] * 7 + 5
    return turned.astype(np.float32), times, (rng.random(n) < 0.7).astype(int)
