"""ResNet-18 from scratch on photographs of your own, at 128x128: a plain recipe, and a modern one.

    ./launch.sh data build flowers --source=DIR
    ./launch.sh train --config=configs/folder_resnet18.py
    ./launch.sh train --config=configs/folder_resnet18.py:modern --config.dataset=flowers

DIR is a tree DIR/<split>/<class>/*.jpg with the splits train and val; --config.test_split names another. There is no
paper's number. Ours, on 2,000 of Imagenette's photographs at 64x64, 30 epochs, seed 0, tested on 1,000 others behind
resize(73)|center_crop(64): plain 68.1 %, and 69.0 % over five crops; modern 44.7 %, which still had most to learn.
Two CPU cores (AMD EPYC, jax 0.10.2) trained 175 images/s, plain, and input took 1 % of the time.

Plain is fb.resnet.torch's (imagenet_resnet_torch.py) without its colours, and a cosine in place of steps, for a few
thousand images. Modern adds what imagenet_torchvision.py has: TrivialAugment, random erasing, mixup or CutMix, label
smoothing, averaged weights, and blocks that start as their shortcuts; it wants more epochs.
"""

from cnnjax.config import Config, pick_recipe

RECIPES = {
    "plain": {
        "model": "resnet18",
        "augment": "random_resized_crop(128)|flip_lr",
        "duration": "60 epochs",
        "weight_decay": 5e-4,
    },
    "modern": {
        "model": "resnet18(zero_init=True)",
        "augment": "random_resized_crop(128)|flip_lr|trivial_augment|random_erasing(0.1)|mixup(0.2)|cutmix(1.0)",
        "duration": "120 epochs",
        "weight_decay": 5e-4,
        "loss": "cross_entropy(label_smoothing=0.1)",
        "ema": 0.999,
    },
}


def get_config(recipe: str = "plain") -> Config:
    batch_size = 64
    return Config(
        dataset="flowers",
        test_split="val",
        preprocess="resize(146)|center_crop(128)",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 256,
        schedule="cosine(warmup='5 epochs')",
        eval_batch_size=100,
        checkpoint_every="5 epochs",
        log_every="1 epochs",
        **pick_recipe(recipe, RECIPES),
    )
