"""The tables and figures of Deep kNN (Zhuang et al., MICCAI 2020) again: `__main__.py` says how."""
