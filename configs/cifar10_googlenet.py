"""GoogLeNet with auxiliary classifiers on CIFAR-10: a variant for small images, from scratch.

Status: not run here in full. 4 epochs on 2,000 images gave 19.4 % (seed 0; two CPU cores, AMD EPYC, jax 0.10.2).

    ./launch.sh train cifar10_googlenet

The paper has no result on CIFAR-10. In our short trial, with batches of 32, the loss fell from 2.78 to 2.05; the test
accuracy is that of 1,000 images. The two CPU cores trained 10 images/s, with oneDNN 3.2.

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
