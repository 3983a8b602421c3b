"""Epochs from jpeg files: this project's run beside a torch DataLoader, on made-up pictures."""

import functools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from deepknn_jax.bench import backbones, peers
from deepknn_jax.bench.gpu.arrays import set_tf32
from deepknn_jax.bench.gpu.images import make_folders
from deepknn_jax.bench.gpu.record import Entry, attempt, figures
from deepknn_jax.bench.gpu.runs import answer, phases, tell, train
from deepknn_jax.bench.loss import torch_deep_knn_loss
from deepknn_jax.logs import read_records, say

_CLASSES, _EPOCHS = 7, 4
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def epochs(small: bool) -> Iterator[Entry]:
    """A network at 224 px (bfloat16, batches of 96) from 2,000 files of 600 x 450, four epochs.

    Ours decodes once, to a cache, and keeps the set on the device; torch decodes in each epoch, a
    worker a core. Both squash to 256 px, crop and flip.
    """
    name, count, batch, size = ("resnet18", 140, 14, 48) if small else ("resnet50", 2000, 96, 256)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        began = time.monotonic()
        make_folders(folder, count=count, classes=_CLASSES)
        yield figures(
            "made-up jpeg files, 600 x 450",
            {
                "files": count,
                "seconds to make": time.monotonic() - began,
                "KiB a file": _mean_kib(folder),
            },
        )
        ours = functools.partial(_ours, Path(place), name, batch, size)
        yield from attempt("this project's run", ours)
        task = "torch: DataLoader, torchvision's decoding, the same network, eager"
        yield from attempt(task, functools.partial(_theirs, task, folder, name, batch, size))


def _mean_kib(folder: Path) -> float:
    return statistics.mean(path.stat().st_size for path in folder.rglob("*.jpg")) / 1024


def _ours(place: Path, name: str, batch: int, size: int) -> Iterator[Entry]:
    told = train(
        place / "run",
        "--config=configs/class_folders.py",
        f"--config.data.dir={place / 'images'}",
        f"--config.data.cache_dir={place / 'cache'}",
        f"--config.data.size={size}",
        f"--config.augment.crop={size * 7 // 8}",
        f"--config.model.name={name}",
        "--config.model.dtype=bfloat16",
        "--config.batch.kind=shuffled",
        f"--config.batch.size={batch}",
        f"--config.epochs={_EPOCHS}",
        "--config.evaluate.every_epochs=0",
        "--config.evaluate.pictures=False",
        "--config.evaluate.references=()",
    )
    at = {line.split("/")[0].split(":")[0]: seconds for seconds, line in told.lines}
    speeds = [
        record["examples_per_s"]
        for record in read_records(place / "run" / "metrics.jsonl")
        if "examples_per_s" in record
    ]
    values: dict[str, Any] = {
        "seconds, start of Python and listing": at["split"],
        "seconds, decoding all": at["data"] - at["split"],
        "seconds, first epoch (compiles)": at["epoch 1"] - at["data"],
        **{
            f"seconds, epoch {number}": at[f"epoch {number}"] - at[f"epoch {number - 1}"]
            for number in range(2, _EPOCHS)  # the last ends with an evaluation
        },
        "images/s of a step, median": statistics.median(speeds),
        "seconds, whole command": told.seconds,
    }
    yield figures(f"this project: {name}, bfloat16, B {batch}", values | phases(place / "run"))


def _theirs(task: str, folder: Path, name: str, batch: int, size: int) -> Iterator[Entry]:
    if peers.load("torch") is None or peers.load("torchvision") is None:
        return
    code = (
        "from deepknn_jax.bench.gpu.epochs import torch_epochs; "
        f"torch_epochs({str(folder)!r}, {name!r}, {batch}, {size})"
    )
    told = tell(["-c", code], {"PYTHONWARNINGS": "ignore"})
    yield figures(f"{task}: {name}, bfloat16, B {batch}", answer(told))


def torch_epochs(folder: str, name: str, batch: int, size: int) -> None:
    """Trains torch's network on four fifths of the files; says seconds and images/s in JSON."""
    found = backbones.peer(name)
    assert found is not None, "torchvision is absent"
    torch, network = found
    device = "cuda" if torch.cuda.is_available() else "cpu"  # JAX is not started here
    set_tf32(torch, True)
    torch.backends.cudnn.benchmark = True
    loader = _loader(torch, folder, batch, size)
    network = network.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    values: dict[str, Any] = {"workers": loader.num_workers}
    for number in range(1, _EPOCHS + 1):
        began = time.monotonic()
        count = 0
        for images, labels in loader:
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                embeddings = network(images).float()
            labels = labels.to(device)
            loss = torch_deep_knn_loss(torch, embeddings, labels, k=5, m=5, margin=1.0)
            loss.backward()
            optimizer.step()
            count += len(images)
        float(loss)  # waits for the device
        values[f"seconds, epoch {number}"] = time.monotonic() - began
        values[f"images/s, epoch {number}"] = count / (time.monotonic() - began)
    say(json.dumps(values))


def _loader(torch: ModuleType, folder: str, batch: int, size: int) -> Any:
    peers.declare_torchvision_operators()
    from torchvision import datasets, transforms

    chain = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomCrop(size * 7 // 8),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(_MEAN, _STD),
        ]
    )
    files = datasets.ImageFolder(folder, chain)
    part = torch.utils.data.Subset(files, [i for i in range(len(files)) if i % 5])
    return torch.utils.data.DataLoader(
        part,
        batch_size=batch,
        shuffle=True,
        drop_last=True,
        num_workers=min(len(os.sched_getaffinity(0)), 16),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=True,
    )
