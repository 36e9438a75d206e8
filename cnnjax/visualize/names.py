"""The layers, channels and classes of a network by name, checked: shared by all kinds of pictures."""

import functools

from cnnjax.errors import InputError, unknown
from cnnjax.evaluation import probe
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.models import create_model
from cnnjax.spec import with_argument

LOGITS = "logits"


def layer_shapes(net: TrainedNetwork) -> dict[str, tuple[int, ...]]:
    """Returns {layer: shape of its activations}, in the order of execution.

    The layers are those of `net.features`. Shapes are [height, width, channels] or [features], for an image of the size
    that the network was trained on.
    """
    return dict(_layer_shapes(net.config.model, len(net.classes), tuple(net.data.shape)))


@functools.lru_cache(maxsize=64)  # a large network traces for seconds
def _layer_shapes(model: str, num_classes: int, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Does the work of `layer_shapes`."""
    text = with_argument(model, ["features_only"], True)
    return probe.layer_shapes(create_model(text, num_classes), shape)


def check_layer(net: TrainedNetwork, layer: str, with_logits: bool = False) -> tuple[int, ...]:
    """Returns the shape of a layer's activations, as `layer_shapes` does.

    `with_logits` makes 'logits' a layer, too. Raises InputError for an unknown layer, which lists the layers.
    """
    shapes = layer_shapes(net) | ({LOGITS: (len(net.classes),)} if with_logits else {})
    if layer not in shapes:
        raise unknown(f"layer of {net.config.model!r}:", layer, shapes)
    return shapes[layer]


def check_channel(net: TrainedNetwork, layer: str, channel: int, with_logits: bool = False) -> int:
    """Returns `channel`. Raises InputError unless the layer exists and has this channel."""
    count = check_layer(net, layer, with_logits)[-1]
    if not 0 <= channel < count:
        raise InputError(f"channel {channel} of {layer!r}: expected 0 to {count - 1}")
    return channel


def class_index(net: TrainedNetwork, text: str) -> int:
    """Returns the index of a class, given by its name or as a number.

    A name comes before a number: '7' is the class called '7' if there is one. Raises InputError for an unknown class.
    """
    if text in net.classes:
        return net.classes.index(text)
    if text.isdecimal():
        if int(text) < len(net.classes):
            return int(text)
        raise InputError(f"class {text}: expected 0 to {len(net.classes) - 1}, or a name")
    raise unknown("class", text, net.classes)
