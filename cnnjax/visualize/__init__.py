"""Pictures of a network and its data: filters, feature maps, receptive fields, attribution and more.

    import cnnjax

    net = cnnjax.load("runs/digits")
    result = cnnjax.visualize.maps(net, images[0], layer="c3")
    result.maps                          # NumPy arrays
    result.figure()                      # a matplotlib figure
    result.note                          # what the picture says, in one line
    cnnjax.visualize.drawing("resnet50").figure()    # layers and blocks, for a slide

Pictures are in the house style of `cnnjax.style` and `cnnjax.colors`. `cnnjax visualize` draws the same from the
command line; `kinds.py` is the table of what it draws. Importing costs nothing: each name is loaded when it is first
used. No module here has the name of a public function, which it would hide.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {  # public name -> the module that defines it
    "drawing": "cnnjax.summarize.drawing",
    "explain": "cnnjax.visualize.explanations",
    "localize": "cnnjax.visualize.localization",
    "filters": "cnnjax.visualize.kernels",
    "gabor": "cnnjax.visualize.gabor_fits",
    "maps": "cnnjax.visualize.feature_maps",
    "optimized_images": "cnnjax.visualize.optimize",
    "receptive_fields": "cnnjax.visualize.receptive_field",
    "strongest_patches": "cnnjax.visualize.patches",
}

__all__ = [
    "drawing", "explain", "filters", "gabor", "localize", "maps", "optimized_images", "receptive_fields",
    "strongest_patches",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Imports a public name from its module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'cnnjax.visualize' has no attribute {name!r}; it has {', '.join(_HOME)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the names of this module, including public names that are not imported yet."""
    return sorted(["__doc__", *_HOME])


if TYPE_CHECKING:
    from cnnjax.summarize.drawing import drawing
    from cnnjax.visualize.explanations import explain
    from cnnjax.visualize.feature_maps import maps
    from cnnjax.visualize.gabor_fits import gabor
    from cnnjax.visualize.kernels import filters
    from cnnjax.visualize.localization import localize
    from cnnjax.visualize.optimize import optimized_images
    from cnnjax.visualize.patches import strongest_patches
    from cnnjax.visualize.receptive_field import receptive_fields
