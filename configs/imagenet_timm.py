"""ResNet-50 on ImageNet by timm's recipes A1, A2 and A3 (Wightman et al. 2021, "ResNet strikes back").

    ./launch.sh train --config=configs/imagenet_timm.py:a1
    ./launch.sh train --config=configs/imagenet_timm.py:a2
    ./launch.sh train --config=configs/imagenet_timm.py

Their top-1 validation accuracy, one crop (arXiv:2110.00476, Table 2): A1 80.4 % (600 epochs), A2 79.8 % (300), A3 78.1
% (100, images of 160x160). Not run here yet.

As in its Table 2: LAMB in batches of 2,048, binary cross-entropy, RandAugment, mixup or CutMix, repeated augmentation
and stochastic depth in A1 and A2, no decay on biases and normalisation, a cosine after five epochs of warm-up. Unlike
it: the magnitude of RandAugment does not vary about its mean (by 0.5), and images are interpolated linearly, not by
cubics.
"""

from cnnjax.config import Config, choose

# Their differences: epochs, side, magnitude, mixup, smoothing, repeats, stochastic depth, rate, decay.
RECIPES = {
    "a1": (600, 224, 7, 0.2, 0.1, 3, 0.05, 5e-3, 0.01),
    "a2": (300, 224, 7, 0.1, 0.0, 3, 0.05, 5e-3, 0.02),
    "a3": (100, 160, 6, 0.1, 0.0, 1, 0.0, 8e-3, 0.02),
}


def get_config(recipe: str = "a3") -> Config:
    epochs, side, magnitude, mixup, smoothing, repeats, depth, lr, decay = choose(recipe, RECIPES)
    batch_size = 2048
    return Config(
        model=f"resnet50_v1_5(zero_init=True, stochastic_depth={depth})",
        dataset="imagenet2012",
        test_split="validation",
        augment=f"random_resized_crop({side})|flip_lr|rand_augment(2, {magnitude})|mixup({mixup})|cutmix(1.0)",
        repeats=repeats,
        preprocess="resize(236)|center_crop(224)",
        duration=f"{epochs} epochs",
        batch_size=batch_size,
        loss=f"binary(label_smoothing={smoothing}, threshold=0.2)",
        optimizer="lamb",
        lr=lr * batch_size / 2048,
        schedule="cosine(warmup='5 epochs')",
        weight_decay=decay,
        dtype="bfloat16",
    )
