"""Pre-activation ResNets on CIFAR-10 (He et al. 2016, "Identity Mappings").

Status: not run here.

    ./launch.sh train cifar_resnet_v2
    ./launch.sh train cifar_resnet_v2:cifar_preresnet1001
    ./launch.sh train cifar_resnet_v2 --config.dataset=cifar100

The paper's test errors, median of five runs, CIFAR-10 and CIFAR-100: 110 layers 6.37 %, 164 layers 5.46/24.33 %, 1001
layers 4.92/22.71 % (Tables 3 and 4); 1001 layers with batch size 64: 4.62 % (README of resnet-1k-layers).

As in the paper (appendix): 64,000 steps of 128 images, a learning rate of 0.1 divided by ten at 32,000 and 48,000,
warm-up of 400 steps, weight decay of 1e-4. Unlike it: the warm-up is linear, where the paper uses 0.01 and then 0.1;
images are normalized by the mean and standard deviation of each channel instead of a mean image.
"""

from cnnjax.config import Config


def get_config(model: str = "cifar_preresnet164") -> Config:
    return Config(
        model=model,
        dataset="cifar10",
        augment="pad_crop(4)|flip_lr",
        duration="64000 steps",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        lr=0.1,
        schedule="piecewise(('32000 steps', '48000 steps'), warmup='400 steps')",
        weight_decay=1e-4,
        decay_mask=".*",
    )
