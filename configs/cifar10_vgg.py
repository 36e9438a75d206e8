"""VGG-A, or a deeper variant, on CIFAR-10, without batch normalization, with the paper's optimizer.

Status: not run here in full. 5 epochs of VGG-A on 20,000 images gave 60.0 % (seed 0; CPU, jax 0.10.2).

    ./launch.sh train cifar10_vgg
    ./launch.sh train cifar10_vgg:vgg_d

The paper has no result on CIFAR-10. In our short run, with batches of 64, the loss fell from 2.3 to 1.1.
experiments/deep_vgg.py compares initializations of D, with some of which it does not learn at all.

Unlike the paper: images of 32x32 end in feature maps of 1x1, so one fully connected layer after dropout replaces three;
initialization is He's, the network's default. As in the paper (Simonyan & Zisserman 2015, sec. 3.1): momentum 0.9,
weight decay 5e-4, a learning rate of 0.01, divided by ten when the validation error stops improving.
"""

from cnnjax.config import Config


def get_config(model: str = "vgg_a") -> Config:
    return Config(
        model=f"{model}(head='gap')",
        dataset="cifar10",
        train_split="train[:45000]",
        val_split="train[45000:]",
        augment="pad_crop(4)|flip_lr",
        duration="74 epochs",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        lr=0.01,
        schedule="plateau(factor=0.1, patience=5, lowest=0.001)",
        weight_decay=5e-4,
    )
