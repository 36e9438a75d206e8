"""References of keras.applications, whose weights are in wide use."""

from tests.parity.keras_harness import KerasReference

SIZES = ((64, 64), (97, 71))
AT_VGG = ((64, 96), (75, 97))  # last maps of 2x3, as few as the full connections have weights for
AT_INCEPTION = ((107, 128), (139, 124))
AT_MOBILENET = ((64, 64), (63, 96))  # Keras pads odd sides otherwise than TF-Slim: only the first layer meets one here
AT_XCEPTION = ((71, 71), (96, 85))

NORM = "norm_epsilon=1.001e-5, norm_momentum=0.99"
MOBILENET = 'dropout=0.0, activation="relu6", same=True'

ROWS = [
    *(KerasReference(f"vgg{n}(dropout=0.0)", f"VGG{n}", AT_VGG, batch=2) for n in (16, 19)),
    *(
        KerasReference(f"resnet{n}(use_bias=True, {NORM})", f"ResNet{n}", SIZES, last="_0_", unit=r"conv\d_block\d+")
        for n in (50, 101, 152)
    ),
    *(
        KerasReference(
            f'resnet{n}_v2(layout="keras", {NORM})', f"ResNet{n}V2", SIZES, last="_0_", unit=r"conv\d_block\d+"
        )
        for n in (50, 101, 152)
    ),
    # Keras's statistics keep 0.99 of the old ones.
    KerasReference(
        "inception_v3(dropout=0.0, norm_scale=False, norm_momentum=0.99)",
        "InceptionV3",
        AT_INCEPTION,
        batch=2,
        made=True,
    ),
    KerasReference(
        "inception_resnet_v2(dropout=0.0, norm_scale=False, norm_momentum=0.99)",
        "InceptionResNetV2",
        AT_INCEPTION,
        batch=2,
        made=True,
    ),
    KerasReference("xception(dropout=0.0)", "Xception", AT_XCEPTION),
    *(KerasReference(f"densenet{n}({NORM})", f"DenseNet{n}", SIZES) for n in (121, 169, 201)),
    *(
        KerasReference(f"{ours}({MOBILENET})", "MobileNet", AT_MOBILENET, {"dropout": 0.0, "alpha": alpha})
        for ours, alpha in (
            ("mobilenet_v1", 1.0),
            ("mobilenet_v1_075", 0.75),
            ("mobilenet_v1_050", 0.5),
            ("mobilenet_v1_025", 0.25),
        )
    ),
]

PUBLISHED = {}
ALONE = {}
