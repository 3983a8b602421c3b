"""`python -m deepknn_jax.bench.torch_memory MODEL KIND BATCH SIZE`: prints MiB."""

import sys

from deepknn_jax.bench.backbones import torch_mebibytes
from deepknn_jax.logs import say

if __name__ == "__main__":
    name, kind, batch, size = sys.argv[1:]
    say(str(torch_mebibytes(name, kind, int(batch), int(size))))
