"""Root file systems with Debian's own Pythons, made as images are made and kept from one session to the next."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from squall.agent.image.bases.debian import BaseUnavailable, find_base, make_debian
from squall.agent.image.layer.store import LayerStore
from squall.agent.image.machine.settings import read_machine_settings
from squall.agent.image.machine.tool import Output
from squall.protocol.image import ImageConfig, cache_key
from squall.protocol.image_steps import debian_slim
from tests.e2e.installation import find_in_cache, keep_layers_in_cache


@dataclass(frozen=True, slots=True)
class Debian:
    """A base and what containers of it start with."""

    root: str
    image: ImageConfig


def debian_with(python_version: str, data_dir: Path) -> Debian:
    """The Debian that has this Python; made below the data directory, and kept, if no session has left it.

    Skips the test where it cannot be had.
    """
    step = debian_slim(python_version)
    own_key = cache_key("debian", step)
    # The end-to-end suite keeps its bases under the first key; as an image, or served by a registry, they do not serve.
    for path in (find_in_cache(cache_key("", step)), find_in_cache(own_key)):
        if path is not None and (path / "fs").is_dir():
            found = json.loads((path / "manifest.json").read_text())
            if "suite" in found["facts"]:
                return _debian(str(path / "fs"), found["layer_id"], found["facts"])
    settings = read_machine_settings(os.environ)
    base = find_base(python_version, settings)
    if base is None:
        pytest.skip(f"no mirror in the apt sources of this machine has a suite with Python {python_version}")
    store = LayerStore(data_dir)
    try:
        with store.scratch() as scratch:
            root = scratch.path / "fs"
            facts = make_debian(base, settings, scratch, root, Output())
            layer = store.commit(scratch, root, own_key, facts, replaces=False)
    except BaseUnavailable as error:
        pytest.skip(str(error))
    keep_layers_in_cache(data_dir)
    return _debian(layer.path, layer.layer_id, layer.facts)


def _debian(root: str, layer_id: str, facts: Mapping[str, str]) -> Debian:
    image = ImageConfig(python_path=facts["python_path"], python_version=facts["python_version"], layers=(layer_id,))
    return Debian(root, image)
