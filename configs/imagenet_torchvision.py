"""ResNet-50 and others on ImageNet with torchvision's recipe of 2021 (its weights IMAGENET1K_V2).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 19.98 to 2.35, and chance is
2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_torchvision
    ./launch.sh train imagenet_torchvision:resnext101_32x8d

torchvision's top-1 validation accuracy, one crop (metadata of its weights): ResNet-50 80.858, 101 81.886, 152 82.284,
ResNeXt-50 (32x4d) 81.198, ResNeXt-101 (32x8d) 82.834, WRN-50-2 81.602 %.

As in its references/classification: TrivialAugment, random erasing, mixup or CutMix, label smoothing, repeated
augmentation with four copies, crops of 176 in training and 224 in tests, no weight decay on normalization, 600 epochs
with a cosine schedule and five epochs of warm-up, averaged weights. Unlike torchvision, which updates the average every
32 steps with a decay computed from 0.99998, every step updates it here, with the decay that gives the same average.
"""

from cnnjax.config import Config


def get_config(model: str = "resnet50_v1_5") -> Config:
    batch_size, epochs, every = 1024, 600, 32
    update_weight = (1 - 0.99998) * batch_size * every / epochs  # of the new weights, in torchvision's average
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(176)|flip_lr|trivial_augment|random_erasing(0.1)|mixup(0.2)|cutmix(1.0)",
        repeated_augment=4,
        preprocess="resize(232)|center_crop(224)",
        duration=f"{epochs} epochs",
        batch_size=batch_size,
        loss="cross_entropy(label_smoothing=0.1)",
        optimizer="sgd(momentum=0.9)",
        lr=0.5 * batch_size / 1024,
        schedule="cosine(warmup='5 epochs')",
        weight_decay=2e-5,
        decay_mask="kernel$|^head/bias$",
        ema=(1 - update_weight) ** (1 / every),
        dtype="bfloat16",
    )
