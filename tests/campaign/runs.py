"""Kinds of a run's own files, damaged, and the run going on: its child starts JAX."""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from campaign.inputs import IMAGES, JSON, Kind, images, loaded
from campaign.mutations import Draw, damaged, hostile_json
from support.runs import small_config

LEFT = ("results.json", "embeddings.npz", "neighbors.csv")  # of a run that has finished


def goes_on(epochs: int) -> Callable[[Draw], None]:
    """The run of two epochs is to be finished, or to have more."""

    def read(draw: Draw) -> None:
        from deepknn_jax.trainer import loop

        results = loop.run(small_config(epochs=epochs), Path("run"))
        assert 0.5 < results["test"]["5"]["acc"] <= 1

    return read


def as_config(draw: Draw) -> None:
    """The command with the run's config.json as its config."""
    from deepknn_jax import main

    sys.argv = ["deepknn_jax", "--config=run/config.json", "--mode=inspect"]
    main.cli()


def records(data: bytes, draw: Draw) -> tuple[str, bytes]:
    """metrics.jsonl with one line changed."""
    lines = data.decode().splitlines()
    at = draw.randrange(len(lines))
    if draw.random() < 0.3:
        return damaged(data, draw)
    what, line = hostile_json(lines[at], draw)
    return what, b"\n".join([each.encode() for each in lines[:at]] + [line, b""]) + "\n".join(
        lines[at + 1 :]
    ).encode()


def kinds(run: Path, compiled: Path) -> dict[str, Kind]:
    """All such kinds by name; `compiled` is a folder for what JAX compiles."""
    for option, value in {
        "jax_compilation_cache_dir": str(compiled),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }.items():
        jax.config.update(option, value)

    def finished(folder: Path) -> None:
        shutil.copytree(run, folder / "run")

    def unfinished(folder: Path) -> None:
        finished(folder)
        for name in LEFT:
            (folder / "run" / name).unlink()

    def cached(folder: Path) -> None:
        images(IMAGES["png RGB"][0], ".png")(folder)
        loaded("class_folders", size=8, split="stratified")(random.Random(0), folder)

    on, more = goes_on(2), goes_on(3)
    again = loaded("class_folders", size=8, split="stratified")
    return {
        "goes on: config": Kind(unfinished, "run/config.json", JSON, on),
        "goes on: records": Kind(unfinished, "run/metrics.jsonl", records, more),
        "goes on: records of the end": Kind(unfinished, "run/metrics.jsonl", records, on),
        "goes on: results": Kind(finished, "run/results.json", JSON, on),
        "goes on: inputs": Kind(unfinished, "run/inputs.npz", damaged, on),
        "goes on: checkpoint": Kind(unfinished, "run/checkpoints/*/**/*", damaged, more),
        "config.json as --config": Kind(finished, "run/config.json", JSON, as_config),
        "cache: meta": Kind(cached, "cache/*/meta.json", JSON, again),
        "cache: images": Kind(cached, "cache/*/images.npy", damaged, again),
    }
