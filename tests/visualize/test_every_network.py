"""Every kind of picture of every network of the zoo."""

from typing import Any

import pytest
from matplotlib.figure import Figure

from cnnjax import InputError
from cnnjax.visualize import kernels, kinds
from cnnjax.visualize.kinds import KINDS, Request
from tests.models import zoo
from tests.visualize.networks import images, trained
from tests.visualize.test_kinds import FAST

OTHERS = ("localization", "optimized")  # read a split; they have tests of their own
MODELS = [text for text in zoo.COMPUTED if "features_only" in zoo.fields_of(text) and text != "mlp"]


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("name", [name for name in KINDS if name not in OTHERS])
@pytest.mark.parametrize("model", MODELS)
def test_each_kind_draws_each_network(model: str, name: str) -> None:
    net = trained(model)
    pixels: Any = images(net, 2)
    request = Request(net, (pixels[0],), ("first",), (None,), lambda: pixels)
    (draw,) = kinds.bind(FAST.get(name, name)).values()
    if name == "gabor" and min(next(iter(kernels.convolutions(net).values()), (0,))[:2]) < 5:
        with pytest.raises(InputError, match=r"too small for a Gabor function|has no convolution"):
            list(draw(request=request))
        return
    pictures = list(draw(request=request))
    assert pictures
    for _, result in pictures:
        assert isinstance(result.figure(), Figure)
        assert "\n" not in result.note
