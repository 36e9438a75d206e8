"""A small network on cluttered digits with bounding boxes, to measure whether it looks at the digit.

Result here: 92.7 % test accuracy (seed 0; two CPU cores, jax 0.10.2, November 2026).

    ./launch.sh train digits_clutter
    ./launch.sh visualize runs/digits_clutter --what=localization

The network ends in a global mean, so that its class activation maps are exact, at 16x16 positions. The run took 7
minutes, on cores that were busy. The digits of the test images are in no training image. Of 90 of these images, class
activation maps point at the digit in 100 % (27 % for the middle of the image), and their boxes have a mean IoU of 0.66
(0.20); with shuffled weights 18 % and 0.11.
"""

from cnnjax.config import Config

LAYERS = "|".join(
    [
        "conv(16, 5, stride=2, padding='same')|batch_norm|relu",
        "conv(32, 5, stride=2, padding='same')|batch_norm|relu",
        *["conv(48, 3, padding='same')|batch_norm|relu"] * 3,
        "gap|dense",
    ]
)


def get_config() -> Config:
    return Config(
        model=f'sequential("{LAYERS}")',
        dataset="digits_clutter",
        augment="pad_crop(4)",
        duration="8 epochs",
        batch_size=128,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="20 steps",
        eval_every="2 epochs",
        checkpoint_every="2 epochs",
    )
