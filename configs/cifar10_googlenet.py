"""GoogLeNet with its auxiliary classifiers on CIFAR-10: its form for small images, from scratch.

    ./launch.sh train --config=configs/cifar10_googlenet.py

There is no paper's number. Ours, of a beginning (2,000 of the images, 4 epochs in batches of 32, seed 0): loss 2.78 ->
2.05, test accuracy 19.4 % of 1,000. Two CPU cores (AMD EPYC, jax 0.10.2, oneDNN 3.2)
train 10 images/s.

conv1 is 3x3, and nothing has a stride before inception_3a, so that the modules see maps of 32x32 to 8x8; all else is
the paper's (Szegedy et al. 2015): Glorot's start, auxiliary losses of weight 0.3, dropout, momentum of 0.9 and a
polynomial decay, as in imagenet_googlenet.py:caffe.
"""

from cnnjax.config import Config


def get_config() -> Config:
    return Config(
        model="googlenet_aux(small_images=True)",
        dataset="cifar10",
        train_split="train[:45000]",
        val_split="train[45000:]",
        augment="pad_crop(4)|flip_lr",
        duration="60 epochs",
        batch_size=128,
        aux_weight=0.3,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="polynomial(power=0.5)",
        weight_decay=2e-4,
        lr_factors="bias$:2",
    )
