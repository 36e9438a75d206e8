"""Corruptions against the package imagecorruptions, which has ImageNet-C's, at 224x224 and where nothing is random."""

from typing import Any

import numpy as np
import pytest

from cnnjax.data.corruptions import corrupt

# How far a value may differ: theirs computes zoom_blur in float32, and rounds down just below whole numbers.
TOLERANCE = {"brightness": 1, "contrast": 1, "saturate": 1, "jpeg_compression": 0, "defocus_blur": 1, "zoom_blur": 1}


@pytest.mark.parametrize("name", TOLERANCE)
def test_it_equals_imagecorruptions(name: str) -> None:
    theirs: Any = pytest.importorskip("imagecorruptions")
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 1, (224, 224, 3)), axis=0), axis=1)
    image = np.clip(128 + smooth, 0, 255).astype(np.uint8)
    for severity in range(1, 6):
        wanted = theirs.corrupt(image, severity, name)
        got = corrupt(image, rng, name, severity)
        assert np.abs(got.astype(int) - wanted).max() <= TOLERANCE[name]
        assert np.mean(got != wanted) < 0.15
