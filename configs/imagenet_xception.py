"""Xception on ImageNet (Chollet 2017).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.31 to 2.23, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_xception

The paper's top-1/top-5 validation accuracy with one crop: 79.0/94.5 % (Table 1).

As in the paper (4.2, 4.3): SGD with momentum 0.9, a learning rate of 0.045 that falls by 6 % every second epoch, weight
decay of 1e-5, dropout of 0.5, averaged weights, 299x299. The paper does not give batch size, epochs and augmentation:
they are those of the Inception-v3 that it compares with (imagenet_inception.py).
"""

from cnnjax.config import Config


def get_config() -> Config:
    return Config(
        model="xception",
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(299, scale=(0.05, 1.0))|flip_lr|color_jitter(0.125, 0.5, 0.5, 0.2)",
        preprocess="resize(342)|center_crop(299)",
        normalize="symmetric",
        duration="100 epochs",
        batch_size=1600,
        optimizer="sgd(momentum=0.9)",
        lr=0.045,
        schedule="exponential(factor=0.94, every='2 epochs')",
        weight_decay=1e-5,
        ema=0.9999,
    )
