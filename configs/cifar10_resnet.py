"""CIFAR ResNets and plain nets as in their paper (He et al. 2016, "Deep Residual Learning", sec. 4.2).

Result here: 91.29 % test accuracy, an error of 8.71 %, with ResNet-20 in bfloat16 (seed 0; two cores of an AMD EPYC
with AVX512-BF16, jax 0.10.2, November 2026).

    ./launch.sh train cifar10_resnet
    ./launch.sh train cifar10_resnet --config.dtype=bfloat16
    ./launch.sh train cifar10_resnet:cifar_resnet56

The paper's test errors: 8.75 % (20 layers), 7.51 % (32), 7.17 % (44), 6.97 % (56), 6.61 +- 0.16 % (110, five runs),
7.93 % (1202). The result here is the test accuracy after the last of 64,000 steps, which take 2.3 hours at 1,000
images/s; the run shared its cores with other work and took longer.

As in the paper: 45,000 training and 5,000 validation images, weight decay on every parameter, warm-up for networks of
110 layers and more. Unlike it: images are normalized by the mean and standard deviation of each channel instead of a
mean image, as in the authors' later Torch code.
"""

from cnnjax.config import Config


def get_config(model: str = "cifar_resnet20") -> Config:
    warmup = "400 steps" if "110" in model or "1202" in model else "0 steps"
    return Config(
        model=model,
        dataset="cifar10",
        train_split="train[:45000]",
        val_split="train[45000:]",
        augment="pad_crop(4)|flip_lr",
        duration="64000 steps",
        batch_size=128,
        lr=0.1,
        optimizer="sgd(momentum=0.9)",
        schedule=f"piecewise(('32000 steps', '48000 steps'), factor=0.1, warmup='{warmup}')",
        weight_decay=1e-4,
        decay_mask=".*",
    )
