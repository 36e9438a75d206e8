"""LeNet-5 on scikit-learn's handwritten digits: real data that need no download, and the first thing to run.

./launch.sh train --config=configs/digits_lenet5.py
"""

from cnnjax.config import Config


def get_config() -> Config:
    return Config(
        model="lenet5",
        dataset="digits",
        train_split="train[:90%]",
        val_split="train[90%:]",
        augment="resize(28)|pad_crop(2)",
        preprocess="resize(28)",
        duration="40 epochs",
        batch_size=64,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.05,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="20 steps",
        eval_every="5 epochs",
        checkpoint_every="5 epochs",
    )
