"""AutoAugment: augmentation policies found by search (Cubuk et al. 2019, arXiv:1805.09501, appendix)."""

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.augment.policies import OP_INDEX, STANDARD_SPACE, apply, signed
from cnnjax.errors import unknown

Array = jax.Array


def auto_augment(
    key: Array, image: Array, mean: Array, policy: str = "imagenet", interpolation: str = "nearest"
) -> Array:
    """Applies a random sub-policy of AutoAugment: two operations, each with a probability and a strength of its own.

    `image` is float32 [H, W, C] in [0, 1]. `policy` names a list of 25 sub-policies, 'imagenet', 'cifar10' or 'svhn'
    (Cubuk et al. 2019, appendix), which have equal chances. `mean` [1, 1, C] fills pixels from outside the image.
    `interpolation`, 'nearest' or 'bilinear', is for shears, translations and rotations.
    """
    if policy not in POLICIES:
        raise unknown("auto_augment: policy", policy, POLICIES)
    numbers, probabilities, bins = POLICIES[policy]
    table = STANDARD_SPACE.table(image.shape, 10)
    pair_key, key = jax.random.split(key)
    pair = jax.random.randint(pair_key, (), 0, len(numbers))
    units, signs = jax.random.uniform(key, (2, 2))
    chosen = jnp.where(units < jnp.array(probabilities)[pair], jnp.array(numbers)[pair], 0)
    strengths = signed(signs, chosen, table[chosen, jnp.array(bins)[pair]])
    return apply(image, chosen, strengths, mean, interpolation)


def _parse_policy(text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parses lines such as 'posterize 0.4 8 | rotate 0.6 9': pairs of an operation, its probability and strength bin.

    Returns three arrays [25, 2]: operations (int, indices into `OP_NAMES`), probabilities (float32) and bins (int, 0 to
    9).
    """
    words = np.array([[operation.split() for operation in line.split("|")] for line in text.strip().splitlines()])
    names, probabilities, bins = np.moveaxis(words, -1, 0)
    return np.vectorize(OP_INDEX.get)(names), probabilities.astype(np.float32), bins.astype(int)


# Pairs of operation, probability and bin (0 to 9); operations without a strength have bin 0.
POLICIES = {
    name: _parse_policy(text)
    for name, text in {
        "imagenet": """
            posterize 0.4 8 | rotate 0.6 9
            solarize 0.6 5 | autocontrast 0.6 0
            equalize 0.8 0 | equalize 0.6 0
            posterize 0.6 7 | posterize 0.6 6
            equalize 0.4 0 | solarize 0.2 4
            equalize 0.4 0 | rotate 0.8 8
            solarize 0.6 3 | equalize 0.6 0
            posterize 0.8 5 | equalize 1.0 0
            rotate 0.2 3 | solarize 0.6 8
            equalize 0.6 0 | posterize 0.4 6
            rotate 0.8 8 | color 0.4 0
            rotate 0.4 9 | equalize 0.6 0
            equalize 0.0 0 | equalize 0.8 0
            invert 0.6 0 | equalize 1.0 0
            color 0.6 4 | contrast 1.0 8
            rotate 0.8 8 | color 1.0 2
            color 0.8 8 | solarize 0.8 7
            sharpness 0.4 7 | invert 0.6 0
            shear_x 0.6 5 | equalize 1.0 0
            color 0.4 0 | equalize 0.6 0
            equalize 0.4 0 | solarize 0.2 4
            solarize 0.6 5 | autocontrast 0.6 0
            invert 0.6 0 | equalize 1.0 0
            color 0.6 4 | contrast 1.0 8
            equalize 0.8 0 | equalize 0.6 0
        """,
        "cifar10": """
            invert 0.1 0 | contrast 0.2 6
            rotate 0.7 2 | translate_x 0.3 9
            sharpness 0.8 1 | sharpness 0.9 3
            shear_y 0.5 8 | translate_y 0.7 9
            autocontrast 0.5 0 | equalize 0.9 0
            shear_y 0.2 7 | posterize 0.3 7
            color 0.4 3 | brightness 0.6 7
            sharpness 0.3 9 | brightness 0.7 9
            equalize 0.6 0 | equalize 0.5 0
            contrast 0.6 7 | sharpness 0.6 5
            color 0.7 7 | translate_x 0.5 8
            equalize 0.3 0 | autocontrast 0.4 0
            translate_y 0.4 3 | sharpness 0.2 6
            brightness 0.9 6 | color 0.2 8
            solarize 0.5 2 | invert 0.0 0
            equalize 0.2 0 | autocontrast 0.6 0
            equalize 0.2 0 | equalize 0.6 0
            color 0.9 9 | equalize 0.6 0
            autocontrast 0.8 0 | solarize 0.2 8
            brightness 0.1 3 | color 0.7 0
            solarize 0.4 5 | autocontrast 0.9 0
            translate_y 0.9 9 | translate_y 0.7 9
            autocontrast 0.9 0 | solarize 0.8 3
            equalize 0.8 0 | invert 0.1 0
            translate_y 0.7 9 | autocontrast 0.9 0
        """,
        "svhn": """
            shear_x 0.9 4 | invert 0.2 0
            shear_y 0.9 8 | invert 0.7 0
            equalize 0.6 0 | solarize 0.6 6
            invert 0.9 0 | equalize 0.6 0
            equalize 0.6 0 | rotate 0.9 3
            shear_x 0.9 4 | autocontrast 0.8 0
            shear_y 0.9 8 | invert 0.4 0
            shear_y 0.9 5 | solarize 0.2 6
            invert 0.9 0 | autocontrast 0.8 0
            equalize 0.6 0 | rotate 0.9 3
            shear_x 0.9 4 | solarize 0.3 3
            shear_y 0.8 8 | invert 0.7 0
            equalize 0.9 0 | translate_y 0.6 6
            invert 0.9 0 | equalize 0.6 0
            contrast 0.3 3 | rotate 0.8 4
            invert 0.8 0 | translate_y 0.0 2
            shear_y 0.7 6 | solarize 0.4 8
            invert 0.6 0 | rotate 0.8 4
            shear_y 0.3 7 | translate_x 0.9 3
            shear_x 0.1 6 | invert 0.6 0
            solarize 0.7 2 | translate_y 0.6 7
            shear_y 0.8 4 | invert 0.8 0
            shear_x 0.7 9 | translate_y 0.8 3
            shear_y 0.8 5 | autocontrast 0.7 0
            shear_x 0.7 2 | invert 0.1 0
        """,
    }.items()
}

OPS = {"auto_augment": auto_augment}
