"""`python -m deepknn_jax.bench.torch_files FOLDER WEIGHTS`: the peers of `files`, in their process.

So that their workers are forked from no process of JAX's. WEIGHTS is written: those of timm's
network. It answers each line of standard input, a name of a task, when that is done, by JSON:
"mean", of what was read, and "seconds" of processor time that it and its workers have had.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deepknn_jax.bench import peers
from deepknn_jax.logs import say

SIZE, CROP, BATCH, WORKERS = 256, 224, 32, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NETWORK_MEAN, _NETWORK_STD = (127 / 255,) * 3, (128 / 255,) * 3


def tasks(folder: str, weights: str) -> dict[str, Callable[[], float]]:
    """What can be asked for, on the pictures of a folder; each gives a mean."""
    torch, vision, timm = (peers.load(name) for name in ("torch", "torchvision", "timm"))
    assert torch is not None
    assert vision is not None
    assert timm is not None
    v2 = importlib.import_module("torchvision.transforms.v2")
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    torch.save(network.state_dict(), weights)
    network = network.to(memory_format=torch.channels_last)
    loaders: list[Any] = []

    def loader(*steps: Any, mean: Any, std: Any, trains: bool) -> Any:
        """Pictures are decoded by PIL, as ImageFolder does, and fitted before they are tensors."""
        ends = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)]
        return torch.utils.data.DataLoader(
            vision.datasets.ImageFolder(folder, v2.Compose([*steps, *ends])),
            batch_size=BATCH,
            shuffle=trains,
            drop_last=trains,
            num_workers=WORKERS,
            persistent_workers=trains,
        )

    def first() -> float:
        steps = v2.Resize((SIZE, SIZE)), v2.RandomCrop(CROP), v2.RandomHorizontalFlip()
        loaders[:] = [loader(*steps, mean=MEAN, std=STD, trains=True)]
        return later()

    def later() -> float:
        means = [images.mean().item() for images, _ in loaders[0]]
        return sum(means) / len(means)

    def features() -> float:
        steps, own = (v2.Resize(SIZE), v2.CenterCrop(CROP)), (_NETWORK_MEAN, _NETWORK_STD)
        pictures = loader(*steps, mean=own[0], std=own[1], trains=False)
        with torch.inference_mode():
            parts = [
                network(images.to(memory_format=torch.channels_last)) for images, _ in pictures
            ]
        return float(torch.cat(parts).square().mean())

    return {"first": first, "later": later, "features": features}


def processor_seconds() -> float:
    """Of this process, its ended children, and those that go on."""
    ticks, own = os.sysconf("SC_CLK_TCK"), str(os.getpid())
    total = sum(os.times()[:4])
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        if fields[1] == own:
            total += sum(map(int, fields[11:15])) / ticks
    return total


if __name__ == "__main__":
    answers = tasks(*sys.argv[1:])
    for line in sys.stdin:
        say(json.dumps({"mean": answers[line.strip()](), "seconds": processor_seconds()}))
