"""LeNet-5 and another small network, counted: feature maps, parameters, connections, and images of other sizes.

./launch.sh study experiments/arithmetic_lenet.py
"""

from cnnjax.study.facts import Fact, Number, Numbers
from cnnjax.summarize import Layer, summary

LECTURES = "taught so in lectures"
LENET = "LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 1998"
SMALL = "conv(32, 5)|relu|max_pool(2)|conv(64, 5)|relu|conv(128, 5)|relu|{}|dense(500)|relu|dense"


def taught_layers() -> list[Layer]:
    """Lists the layers of LeNet-5 as it is taught, for images of 32x32, of which 28x28 is padded by its C1."""
    return list(summary("lenet5_tanh").layers)


def shapes() -> Numbers:
    """Reads the sizes of LeNet-5's layers."""
    convs, dense = taught_layers()[:5], taught_layers()[5:]
    sides, channels = (tuple(row.output[i] for row in convs) for i in (0, 2))
    return {"sides": sides, "channels": channels, "fully connected": tuple(row.output[0] for row in dense)}


def parameters() -> Numbers:
    """Counts the parameters of LeNet-5 as it is taught."""
    counts = {"C1": "c1", "C3": "c3", "C5": "c5", "F6": "f6", "output": "output"}
    params = {row.name: row.params for row in taught_layers()}
    return {name: params[layer] for name, layer in counts.items()} | {"total": sum(params.values())}


def original() -> Numbers:
    """Counts the parameters of LeNet-5 as it was published."""
    network = summary("lenet5_1998")
    params = {row.name.upper(): row.params for row in network.layers}
    return params | {"total": network.params}


def connections() -> Numbers:
    """Counts the connections of LeNet-5 as it was published, biases included."""
    count = 84 * 10  # of the output: distances to fixed codes
    for row in summary("lenet5_1998").layers:
        # A unit of a pool sums four values, and has a bias.
        count += 5 * row.activations if row.kind == "average pool" else row.macs + row.activations
    return {"connections": count}


def weight_sharing() -> Numbers:
    """Compares the parameters of LeNet-5's C1 to its connections, and to a fully connected layer's."""
    c1 = summary("lenet5_1998").layers[0]
    dense = summary("mlp(features=(4704,), norm='none')", (32, 32, 1)).layers[0]
    return {"parameters": c1.params, "connections": c1.macs + c1.activations, "fully connected": dense.params}


def flattened() -> Numbers:
    """Counts the values that LeNet-5's S4 passes on."""
    return {"values": taught_layers()[3].activations}


def global_mean() -> Numbers:
    """Counts the parameters of a small network with a global mean, and with flattening, on 28x28."""
    mean, flat = (summary(f"sequential('{SMALL.format(join)}')", (28, 28, 1)) for join in ("gap", "flatten"))
    *convs, first, last = [row.params for row in mean.layers if row.params]
    return {
        "convolutions": tuple(convs),
        "first fully connected": first,
        "second fully connected": last,
        "total": mean.params,
        "total if flattened": flat.params,
    }


def other_sizes() -> Numbers:
    """Counts the same two networks' parameters on images of 28x28 and of 56x56."""
    counts = {
        join: [summary(f"sequential('{SMALL.format(join)}')", (side, side, 1)).params for side in (28, 56)]
        for join in ("gap", "flatten")
    }
    return {
        "parameters with a global mean, 28x28 and 56x56": tuple(counts["gap"]),
        "parameters with flattening, 28x28 and 56x56": tuple(counts["flatten"]),
    }


def fully_connected() -> Numbers:
    """Counts the weights of one fully connected unit on two sizes of color images."""
    rows = [summary("mlp(features=(1,))", (side, side, 3)).layers[0] for side in (32, 200)]
    return {f"weights on {side}x{side}x3": row.params - row.biases for side, row in zip((32, 200), rows, strict=True)}


def get_facts() -> tuple[Fact, ...]:
    """Returns the facts about LeNet-5 and small networks."""
    return (
        Fact(
            name="lenet_shapes",
            chapter="convolution",
            statement="LeNet-5's feature maps have sides of 28, 14, 10, 5 and 1; then come 84 units and 10 outputs.",
            source=f"{LENET}, Fig. 2",
            numbers=(
                Number("sides", right=(32 - 4, 28 // 2, 14 - 4, 10 // 2, 5 - 4), taught=(28, 14, 10, 5, 1)),
                Number("channels", right=(6, 6, 16, 16, 120), taught=(6, 6, 16, 16, 120)),
                Number("fully connected", right=(84, 10), taught=(84, 10)),
            ),
            compute=shapes,
            why="Its images are 32x32: digits of 28x28 with a border of two pixels.",
        ),
        Fact(
            name="lenet_parameters",
            chapter="convolution",
            statement="LeNet-5 has 156, 2,416, 48,120, 10,164 and 850 parameters in its layers: 61,706.",
            source=LECTURES,
            numbers=(
                Number("C1", right=6 * (25 + 1), taught=156),
                Number("C3", right=16 * (25 * 6 + 1), taught=2416),
                Number("C5", right=120 * (25 * 16 + 1), taught=48120),
                Number("F6", right=84 * (120 + 1), taught=10164),
                Number("output", right=10 * (84 + 1), taught=850),
                Number("total", right=156 + 2416 + 48120 + 10164 + 850, taught=61706),
            ),
            compute=parameters,
            why="These are the numbers of the network as it is taught today: C3 sees all six maps, pools have no "
            "parameters, the output is linear.",
        ),
        Fact(
            name="lenet_1998_parameters",
            chapter="convolution",
            statement="LeNet-5 as published has 60,000 trainable parameters, 1,516 of them in C3.",
            source=f"{LENET}, sec. II.B",
            numbers=(
                Number("C1", right=6 * (25 + 1), taught=156),
                Number("S2", right=6 * 2, taught=12),
                Number("C3", right=25 * (6 * 3 + 9 * 4 + 1 * 6) + 16, taught=1516),
                Number("S4", right=16 * 2, taught=32),
                Number("C5", right=120 * (25 * 16 + 1), taught=48120),
                Number("F6", right=84 * (120 + 1), taught=10164),
                Number("total", right=60_000, taught=60_000),
            ),
            compute=original,
            why="A table connects C3's 16 maps to three, four or six of the six maps before; pools have a factor and a "
            "bias; the output compares with fixed codes.",
        ),
        Fact(
            name="lenet_1998_connections",
            chapter="convolution",
            statement="LeNet-5 as published has 340,908 connections.",
            source=f"{LENET}, sec. II.B",
            numbers=[
                Number("connections", right=122_304 + 5_880 + 151_600 + 2_000 + 48_120 + 10_164 + 840, taught=340_908)
            ],
            compute=connections,
            why="Layer by layer, from C1 to the output: 122,304 + 5,880 + 151,600 + 2,000 + 48,120 + 10,164 + 840.",
        ),
        Fact(
            name="weight_sharing_count",
            chapter="convolution",
            statement="LeNet-5's C1 has 122,304 connections, but only 156 parameters, for its weights are shared.",
            source=f"{LENET}, sec. II.B",
            numbers=(
                Number("parameters", right=6 * 26, taught=156),
                Number("connections", right=28 * 28 * 6 * 26, taught=122_304),
                Number("fully connected", right=(32 * 32 + 1) * 28 * 28 * 6),
            ),
            compute=weight_sharing,
            why="Local windows cut the 4.8 M connections of a full layer to 122,304, and sharing cuts these to 156 "
            "parameters.",
        ),
        Fact(
            name="lenet_flatten",
            chapter="convolution",
            statement="LeNet-5's last feature maps are flattened to 200 values.",
            source=LECTURES,
            numbers=[Number("values", right=5 * 5 * 16, taught=200)],
            compute=flattened,
            why="16 maps of 5x5 are 400 values. 200 would be 8 maps.",
        ),
        Fact(
            name="global_mean_parameters",
            chapter="pooling",
            statement="With a global mean before the fully connected layers, these have 64,500 and 5,010 parameters, "
            "and the network has 326,534.",
            source=LECTURES,
            numbers=(
                Number("convolutions", right=(32 * 26, 64 * (25 * 32 + 1), 128 * (25 * 64 + 1))),
                Number("first fully connected", right=500 * (128 + 1), taught=64_500),
                Number("second fully connected", right=10 * (500 + 1), taught=5_010),
                Number("total", right=832 + 51_264 + 204_928 + 64_500 + 5_010, taught=326_534),
                Number("total if flattened", right=832 + 51_264 + 204_928 + 500 * (4 * 4 * 128 + 1) + 5_010),
            ),
            compute=global_mean,
            why="The network is `sequential`'s own example: 5x5 convolutions to 32, 64 and 128 channels, a mean of "
            "each channel, 500 units. Without the mean it has four times as many parameters on digits of 28x28.",
        ),
        Fact(
            name="any_size",
            chapter="convolution",
            statement="A convolutional network takes images of any size; a fully connected layer fixes the size.",
            source=LECTURES,
            numbers=(
                Number("parameters with a global mean, 28x28 and 56x56", right=(326_534,) * 2, taught=(326_534,) * 2),
                Number(
                    "parameters with flattening, 28x28 and 56x56",
                    right=(1_286_534, 1_286_534 + 500 * 128 * (18**2 - 4**2)),
                ),
            ),
            compute=other_sizes,
            why="Convolutions and a mean have the same parameters for every size. A layer on flattened maps has as "
            "many as the maps have values: 4x4 of them here, or 18x18.",
        ),
        Fact(
            name="unit_on_image",
            chapter="convolution",
            statement="A fully connected unit has 3,072 weights on a 32x32 color image, and 120,000 on one of 200x200.",
            source=LECTURES,
            numbers=(
                Number("weights on 32x32x3", right=32 * 32 * 3, taught=3_072),
                Number("weights on 200x200x3", right=200 * 200 * 3, taught=120_000),
            ),
            compute=fully_connected,
            why="It has one weight per pixel and color. A 5x5 filter has 75 on both.",
        ),
    )
