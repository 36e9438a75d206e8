"""The kinds of pictures that `cnnjax visualize` draws. Cheap to import: a kind imports its own module when it draws.

To add a kind: write a function that yields (stem of the file name, result) for a `Request`, and add a row to `KINDS`.
The command, its help, its completion and its tests then have it. Keyword arguments of the function, annotated and
explained in its docstring, are set on the command line by a call string: --what='maps(order="index")'.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from cnnjax.data.build import Split
    from cnnjax.evaluation.trained import TrainedNetwork


class Result(Protocol):
    """The result of a kind: a frozen dataclass of NumPy arrays, numbers and names, which can draw itself."""

    @property
    def note(self) -> str:
        """Returns what the picture says, in one line with numbers; '' if nothing."""
        ...

    def figure(self) -> "Figure":
        """Draws the result, independent of pyplot."""
        ...


Pictures = Iterable[tuple[str, Result]]  # (stem of the file name, '' for a kind with a single picture; result)


def _no_split() -> "Split":
    """Stands for `Request.open_split` of a request without a data set. Raises AssertionError."""
    raise AssertionError("the request has no data set")


def _ignore(done: int, total: int) -> None:
    """Drops a report of progress: the default of `Request.progress`."""


@dataclasses.dataclass(frozen=True)
class Request:
    """Asks a kind for pictures of a network.

    Attributes:
      net: the trained network.
      images: uint8 [H, W, C] of any sizes; () for a kind that needs none.
      names: a name of each image for file names, all different.
      labels: class index of each image; None for an image without a label.
      open_split: opens the split of a data set that a kind searches, of the network's own data unless another is given.
      layer: name of a layer, as in `net.features`; '' for the kind's own choice.
      channel: a channel of the layer; None for the kind's own choice.
      class_index: a class; None for the kind's own choice.
      is_frame: there are several requests, one per checkpoint, whose pictures are compared.
      progress: called with the number of steps done and the total, by a kind that takes long over one picture.
    """

    net: "TrainedNetwork"
    images: Sequence["np.ndarray"] = ()
    names: Sequence[str] = ()
    labels: Sequence[int | None] = ()
    open_split: Callable[[], "Split"] = _no_split
    layer: str = ""
    channel: int | None = None
    class_index: int | None = None
    is_frame: bool = False
    progress: Callable[[int, int], None] = _ignore

    def named_images(self) -> Iterator[tuple[str, "np.ndarray"]]:
        """Yields (name, image) of each image."""
        return zip(self.names, self.images, strict=True)


@dataclasses.dataclass(frozen=True)
class Kind:
    """A row of `KINDS`.

    Attributes:
      help: what is drawn, for --help: a noun phrase without a full stop.
      needs: what the request has to have besides the network: 'images', a 'data set' to search, or only the 'network'.
      draw: (request, own keyword arguments) -> pictures, one after another.
      cheap: takes few seconds on a CPU, and is drawn where the command line names no kinds.
      uses: the fields of the request that choose what is drawn, of 'layer', 'channel' and 'class_index'.
    """

    help: str
    needs: Literal["network", "images", "data set"]
    draw: Callable[..., Pictures]
    cheap: bool = False
    uses: tuple[str, ...] = ()


def _joined(*words: str | int | None) -> str:
    """Joins the words that are given to a stem: 'conv1', 'conv1-3'."""
    return "-".join(str(word) for word in words if word not in (None, ""))


def _maps(request: Request, order: str = "") -> Pictures:
    """Draws the channels of request.layer, or some of all layers. `order` is 'activation' or, as in frames, 'index'."""
    from cnnjax.visualize.feature_maps import maps

    for name, image in request.named_images():
        by = order or ("index" if request.is_frame else "activation")
        result = maps(request.net, image, layer=request.layer, channel=request.channel, order=by)
        yield _joined(request.layer or "layers", request.channel, name), result


def _receptive_fields(request: Request, row: int | None = None, column: int | None = None) -> Pictures:
    """Draws the receptive fields of a unit, averaged over the images: at `row` and `column` of request.layer's maps."""
    from cnnjax.errors import InputError
    from cnnjax.visualize.receptive_field import receptive_fields

    if (row is None) != (column is None):
        given = f"row={row}" if column is None else f"column={column}"
        raise InputError(
            f"receptive_fields({given}): expected a row and a column, as in receptive_fields(row=3, column=4)"
        )
    position = None if row is None or column is None else (row, column)
    options = {"layer": request.layer, "channel": request.channel, "position": position}
    yield request.layer, receptive_fields(request.net, request.images, **options)


def _patches(request: Request, rule: str = "") -> Pictures:
    """Searches the data set for the strongest patches of request.layer. `rule` projects them, as 'deconvnet' does."""
    from cnnjax.visualize.patches import strongest_patches

    options = {"layer": request.layer, "channel": request.channel, "rule": rule, "progress": request.progress}
    result = strongest_patches(request.net, request.open_split(), **options)
    yield result.layer, result


def _attribution(request: Request, methods: str = "integrated_gradients", check: bool = True) -> Pictures:
    """Explains the predictions by `methods`, joined by '+', as in 'cam+guided'. `check` adds the sanity check."""
    from cnnjax.visualize.explanations import explain

    for method in methods.split("+"):
        options = {"class_index": request.class_index, "layer": request.layer, "progress": request.progress}
        yield method, explain(request.net, request.images, method=method, check=check, **options)


def _localization(
    request: Request, methods: str = "cam+gradient+guided+smoothgrad+occlusion", images: int = 200
) -> Pictures:
    """Scores methods of attribution, joined by '+' in `methods`, on a number of `images` of a data set with boxes."""
    from cnnjax.visualize.localization import localize

    options = {"methods": methods.split("+"), "count": images, "progress": request.progress}
    yield "", localize(request.net, request.open_split(), **options)


def _filters(request: Request, scale: str = "all", examples: int = 0) -> Pictures:
    """Draws the filters of a convolution. `scale` is 'all' or 'each'; `examples` images tell which filters are dead."""
    from cnnjax.visualize.inputs import choose_examples
    from cnnjax.visualize.kernels import filters

    images = choose_examples(request.open_split(), examples).images if examples else ()
    result = filters(request.net, images, layer=request.layer, channel=request.channel, scale=scale)
    yield _joined(result.layer, request.channel), result


def _gabor(request: Request, seed: int = 0) -> Pictures:
    """Draws filters of a convolution beside fitted Gabor functions. `seed` is that of the random filters."""
    from cnnjax.visualize.gabor_fits import gabor

    result = gabor(request.net, layer=request.layer, seed=seed)
    yield result.layer, result


def _optimized(
    request: Request, objective: str = "mean", prior: str = "", steps: int = 128, count: int = 16, real: int = 2000
) -> Pictures:
    """Optimizes an image for request.channel, for request.class_index, or for `count` channels of request.layer.

    Without a layer, these are the classes. `objective` is 'mean' or 'center', `prior` 'data', 'natural' or 'none'; see
    `optimize.optimized_images`. At most `real` images of the split, equally spaced, are searched for the best.
    """
    from cnnjax.errors import InputError
    from cnnjax.visualize.inputs import equally_spaced
    from cnnjax.visualize.optimize import LOGITS, optimized_images

    if real < 1:
        raise InputError(f"optimized(real={real}): expected at least 1")
    split = request.open_split()
    images, _ = split.read(equally_spaced(len(split), real))
    layer, chosen = request.layer or LOGITS, request.channel
    if request.class_index is not None and layer == LOGITS:
        chosen = request.class_index
    result = optimized_images(
        request.net, images, layer=layer, channels=() if chosen is None else [chosen], count=count,
        objective=objective, prior=prior, steps=steps, progress=request.progress,
    )  # fmt: skip
    yield _joined(layer, chosen), result


KINDS: Mapping[str, Kind] = MappingProxyType({
    "filters": Kind("filters of a convolution, the first by default: as images, or by input channel; norms, dead ones",
                    "network", _filters, cheap=True, uses=("layer", "channel")),
    "gabor": Kind("similarity of filters to Gabor functions, compared with random filters", "network", _gabor,
                  uses=("layer",)),
    "maps": Kind("feature maps of an image: the channels of a layer, or the strongest ones of every layer", "images",
                 _maps, cheap=True, uses=("layer", "channel")),
    "receptive_fields": Kind("pixels that a unit of a layer can see, and those that affect it most", "images",
                             _receptive_fields, cheap=True, uses=("layer", "channel")),
    "patches": Kind("the nine patches that excite a channel most, with their deconvnet projections", "data set",
                    _patches, uses=("layer", "channel")),
    "attribution": Kind("which pixels support a class: integrated gradients, CAM, occlusion, SmoothGrad, ..., each "
                        "beside its sanity check", "images", _attribution, uses=("layer", "class_index")),
    "localization": Kind("how well attribution finds the boxes of a data set, such as digits_clutter: IoU and the "
                         "pointing game", "data set", _localization),
    "optimized": Kind("images optimized to excite channels or classes, beside the real ones that excite them most",
                      "data set", _optimized, uses=("layer", "channel", "class_index")),
})  # fmt: skip


def default_kinds() -> list[str]:
    """Returns the names of the cheap kinds, which are drawn where none are named."""
    return [name for name, kind in KINDS.items() if kind.cheap]


def bind(text: str) -> dict[str, Callable[..., Pictures]]:
    """Parses the call strings of kinds, joined by commas: 'filters,maps(order="index")'; '' for the cheap kinds.

    Returns {name: function with the argument `request`}, in this order. Raises InputError for an unknown kind or
    argument.
    """
    from cnnjax import spec
    from cnnjax.errors import InputError

    draws = {name: kind.draw for name, kind in KINDS.items()}
    bound: dict[str, Callable[..., Pictures]] = {}
    for call in spec.parse_list(text or ",".join(default_kinds())):
        if call.name in bound:
            raise InputError(f"--what={text}: {call.name!r} is given twice")
        bound[call.name] = spec.find("kind of picture", call, draws, request=None)
    return bound
