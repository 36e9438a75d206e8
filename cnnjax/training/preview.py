"""A contact sheet of augmentation: images of a data set beside augmented versions, as in training."""

import pathlib
from typing import Any

import jax
import numpy as np

from cnnjax import style
from cnnjax.config import Config
from cnnjax.data import images, pipeline
from cnnjax.data.build import load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.training.inputs import Splits, data_info, input_functions, open_train_source
from cnnjax.training.recipe import parse_recipe

DRAWS = 6  # augmented versions of each image


def write(
    name: str,
    augment_text: str,
    path: pathlib.Path,
    *,
    split: str = "train",
    count: int = 8,
    seed: int = 0,
    data_dir: str = "",
) -> None:
    """Writes the contact sheet of `draw` to a file whose name ends in .png.

    Raises InputError as `draw` does, for another suffix, and for count < 1.
    """
    if count < 1:
        raise InputError(f"--count={count}: expected at least 1")
    if path.suffix != ".png":
        raise InputError(f"--out={path}: expected a name that ends in .png")
    figure = draw(name, augment_text, split=split, count=count, seed=seed, data_dir=data_dir)
    style.save(figure, path.with_suffix(""), [path.suffix])


def draw(
    name: str, augment_text: str, *, split: str = "train", count: int = 8, seed: int = 0, data_dir: str = ""
) -> Any:
    """Draws a contact sheet of augmentation: a row per image, with the original and then `DRAWS` augmented versions.

    The versions come from the training pipeline with config.augment = `augment_text`, one epoch per column, without
    normalization. A column is a batch, so mixing operations mix the images of a column; captions show the mixed labels.

    Args:
      name: the data set.
      augment_text: pipeline of operations, such as 'pad_crop(4)|flip_lr'.
      split: split of the data set.
      count: number of images, at least 1, which are drawn at random.
      seed: selects the images and the augmentations.
      data_dir: folder of the data sets; '' for the default one.

    Returns:
      A matplotlib Figure.

    Raises:
      InputError: a data set, split or operation that does not exist or does not fit.
    """
    recipe = parse_recipe(
        Config(dataset=name, train_split=split, augment=augment_text, normalize="none", cache="host", seed=seed)
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    examples = load(name, split, data_dir)
    source = open_train_source(recipe, Splits(examples, None, None), mesh)
    functions = input_functions(recipe, data_info(recipe, examples, source, None))
    prepare, mix = jax.jit(functions.prepare), jax.jit(functions.mix)

    chosen = pipeline.permutation(seed, 0, len(examples))[:count].astype(np.int32)
    encoded, labels = examples.read_encoded(chosen)
    rows = [[(images.decode(data), examples.classes[label])] for data, label in zip(encoded, labels, strict=True)]
    for draw in range(DRAWS):
        epoch = np.full(len(chosen), draw, np.int32)
        batch = pipeline.read(examples, recipe.operations.host, chosen, chosen + draw * len(examples), seed)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), draw))
        augmented, targets = mix(keys[1], prepare(keys[0], batch["image"], chosen, epoch), batch["label"])
        for row, image, target in zip(rows, np.asarray(augmented), np.asarray(targets), strict=True):
            row.append((image, _format_target(target, examples.classes) if recipe.operations.mixing else ""))
    return style.sheet(
        [image for row in rows for image, _ in row],
        [caption for row in rows for _, caption in row],
        columns=1 + DRAWS,
        title=f"{name} {split}, augment={augment_text!r}",
        column_titles=["original", *(f"epoch {draw + 1}" for draw in range(DRAWS))],
    )


def _format_target(target: np.ndarray, classes: list[str]) -> str:
    """Formats class probabilities float [K] as lines, 'cat 70%' and 'dog 30%', largest first; not those below 0.5%."""
    return "\n".join(f"{classes[k]} {target[k]:.0%}" for k in np.argsort(-target) if target[k] >= 0.005)
