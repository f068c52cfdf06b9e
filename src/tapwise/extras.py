"""Packages that Tapwise uses where they are installed: what each is for, and which extra brings it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

from tapwise.errors import MissingPackageError


class Extra(NamedTuple):
    """What brings a package, and what isn't to be had without it."""

    name: str
    purpose: str


PACKAGES = {
    "soundfile": Extra("io", "sound files (WAV, FLAC)"),
    "polars": Extra("io", "tables (CSV, TSV, Parquet)"),
    "safetensors": Extra("io", "checkpoints and saved states (.safetensors)"),
    "scipy": Extra("io", "designed filters (lowpass and its like, Resample)"),
    "anywidget": Extra("notebook", "the page as a notebook's widget"),
    "matplotlib": Extra("figures", "pictures beside SVG (PNG, PDF, GIF, APNG)"),
    "zarr": Extra("scale", "Zarr stores"),
    "h5py": Extra("scale", "HDF5 files"),
    "dask": Extra("scale", "Dask arrays"),
    "distributed": Extra("scale", "clusters of Dask"),
    "onnx": Extra("onnx", "export to ONNX"),
    "onnxscript": Extra("onnx", "export to ONNX"),
}


def sentence(package: str) -> str:
    """What is said of a package that is missing.

    Example:
        >>> sentence("soundfile")
        "sound files (WAV, FLAC): the package soundfile is not installed: pip install 'tapwise[io]'"
    """
    extra = PACKAGES[package]
    return f"{extra.purpose}: the package {package} is not installed: pip install 'tapwise[{extra.name}]'"


def is_installed(package: str) -> bool:
    """Whether a package is there; it isn't imported."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):  # a finder that refuses it; taken out of sys.modules by hand
        return False


def need(module: str) -> Any:
    """A module of one of these packages, imported.

    Raises:
        MissingPackageError: the package isn't installed.
    """
    package = module.partition(".")[0]
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingPackageError(sentence(package), name=package) from None
