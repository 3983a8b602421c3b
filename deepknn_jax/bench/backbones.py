"""Every published backbone's training and evaluation step, beside torchvision's or timm's own."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deepknn_jax import models
from deepknn_jax.bench import peers
from deepknn_jax.bench.timing import Row, Side, compare
from deepknn_jax.bench.training import torch_evaluation, torch_side, xla_evaluation, xla_side

# Our name -> the package of the peer and its name there.
PEERS = {
    "resnet18": ("torchvision", "resnet18"),
    "resnet34": ("torchvision", "resnet34"),
    "resnet50": ("torchvision", "resnet50"),
    "resnet101": ("torchvision", "resnet101"),
    "seresnet50": ("timm", "seresnet50"),
    "legacy_seresnet50": ("timm", "legacy_seresnet50"),
    "densenet121": ("torchvision", "densenet121"),
    "efficientnet_lite0": ("timm", "tf_efficientnet_lite0"),
    "inception_resnet_v2": ("timm", "inception_resnet_v2"),
    "vgg19": ("torchvision", "vgg19"),
}


def measure(
    *, names: Sequence[str] = tuple(PEERS), batch: int = 8, size: int = 224, repeats: int = 5
) -> Iterator[Row]:
    """Two rows a backbone, one step in a call; classes of four images, so that positives exist.

    A row's mebibytes are of XLA what it plans for a step beside its arguments and results; of torch
    by how much the process's peak (on a GPU: what it allocated) grows in the first steps of a
    process of its own, gradients and momentum among it.
    """
    images, labels, rows_1xB = batch_of(batch, size)
    # A view in channels_last order, as torch reads NHWC memory.
    turned = images.transpose(0, 3, 1, 2)
    for name in names:
        torch, network, variables = None, None, None
        if (theirs := peer(name)) is not None:
            torch, network = theirs
            variables = variables_of(name, torch, network)
        model = models.build(name)
        evaluation = {"xla": xla_evaluation(model, images, variables)}
        train = {"xla": xla_side(model, images, labels, rows_1xB, variables)[0]}
        if torch is not None:
            evaluation["torch"] = torch_evaluation(torch, network, turned)
            train["torch"] = torch_side(torch, network, turned, labels, rows_1xB)
        for kind, sides in (("evaluation", evaluation), ("train", train)):
            task = f"{name} {kind} step, B {batch}, {size} px"
            row = compare(task, sides, repeats=repeats, tolerance=1e-2)
            mebibytes = {"xla": sides["xla"].mebibytes}
            if torch is not None:
                mebibytes["torch"] = _in_process_of_its_own(name, kind, batch, size)
            yield row._replace(mebibytes=mebibytes)


def batch_of(batch: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images [B, S, S, 3] by chance, labels [B] of four images a class, and one batch's rows."""
    images = np.random.default_rng(0).normal(size=(batch, size, size, 3)).astype(np.float32)
    return images, np.arange(batch) // 4, np.arange(batch)[None, :]


def peer(name: str) -> tuple[ModuleType, Any] | None:
    """The torch package and the published model without its classifier, or None where absent."""
    package, their_name = PEERS[name]
    torch, library = peers.load("torch"), peers.load(package)
    if torch is None or library is None:
        return None
    torch.manual_seed(0)
    if package == "timm":
        # timm's legacy_seresnet50 drops a fifth of the features in training; ours has no dropout.
        return torch, library.create_model(their_name, num_classes=0, drop_rate=0.0)
    model = getattr(library.models, their_name)(weights=None)
    if name == "vgg19":
        model.avgpool = torch.nn.AdaptiveAvgPool2d(1)
    classifier = "fc" if hasattr(model, "fc") else "classifier"
    setattr(model, classifier, torch.nn.Identity())
    return torch, model


def variables_of(name: str, torch: ModuleType, network: Any) -> dict[str, Any]:
    """The backbone's variables from the peer's parameters."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "peer.pth"
        torch.save(network.state_dict(), path)
        return models.load_weights(name, path)


def _in_process_of_its_own(name: str, kind: str, batch: int, size: int) -> float:
    command = [sys.executable, "-m", "deepknn_jax.bench.torch_memory"]
    arguments = [name, kind, str(batch), str(size)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def torch_mebibytes(name: str, kind: str, batch: int, size: int) -> float:
    """By how much the peak memory of this process grows over two of torch's steps, in MiB."""
    found = peer(name)
    assert found is not None, "torch is absent"
    torch, network = found
    images, labels, rows_1xB = batch_of(batch, size)
    turned = images.transpose(0, 3, 1, 2)
    side: Side
    if kind == "evaluation":
        side = torch_evaluation(torch, network, turned)
    else:
        side = torch_side(torch, network, turned, labels, rows_1xB)
    peers.restart_peak(torch)
    before = peers.peak_mebibytes(torch)
    side.run()
    side.run()
    return peers.peak_mebibytes(torch) - before
