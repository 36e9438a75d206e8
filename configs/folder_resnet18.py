"""ResNet-18 from scratch on your own photographs, at 128x128: a plain recipe, and a modern one.

Result here: test accuracy on Imagenette 68.1 % (plain), 44.7 % (modern) (seed 0; two CPU cores, jax 0.10.2).

    ./launch.sh data build flowers --source=DIR
    ./launch.sh train folder_resnet18
    ./launch.sh train folder_resnet18:modern --config.dataset=flowers

DIR is a tree DIR/<split>/<class>/*.jpg with the splits train and val; set --config.test_split for another. Our runs had
2,000 training and 1,000 test photographs at 64x64 and 30 epochs, with resize(73)|center_crop(64) in tests. With five
crops the plain recipe has 69.0 %. The modern one is far from converged. The cores, of an AMD EPYC, trained 175 images/s
with the plain recipe, and the input pipeline took 1 % of the time.

The plain recipe is fb.resnet.torch's (imagenet_resnet_torch.py) without its color augmentation, and with a cosine
schedule instead of steps, for a few thousand images. The modern one adds, as imagenet_torchvision.py: TrivialAugment,
random erasing, mixup or CutMix, label smoothing and averaged weights, and its residual branches start at zero. It needs
more epochs.
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
