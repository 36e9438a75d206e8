"""Squeeze-and-excitation networks on ImageNet (Hu et al. 2018).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 16.11 to 2.34, and chance is
2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_senet
    ./launch.sh train imagenet_senet:se_resnext50_32x4d

Top-1/top-5 validation errors of the weights that the authors released, one crop (their README.md): SE-ResNet-50
22.37/6.36, 101 21.75/5.72, 152 21.34/5.54, SE-ResNeXt-50 20.97/5.54 %. They were trained with batch size 256, a
learning rate of 0.1, more epochs, rotations of 10 degrees and pixel jitter; the paper's own errors are higher.

As in the paper: batch size 1,024, a learning rate of 0.6 divided by ten every 30 of 100 epochs, crops of random size
and aspect ratio, flips, He initialization, the mean color subtracted. From memory: weight decay of 1e-4. Unlike it:
classes are not balanced within a batch.
"""

from cnnjax.config import Config


def get_config(model: str = "se_resnet50") -> Config:
    batch_size = 1024
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(224)|flip_lr",
        preprocess="resize(256)|center_crop(224)",
        normalize="centered",
        duration="100 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9)",
        lr=0.6 * batch_size / 1024,
        schedule="piecewise(('30 epochs', '60 epochs', '90 epochs'))",
        weight_decay=1e-4,
    )
