"""ResNet-50 on ImageNet in large batches: 256 to 8,192 images with SGD, more with LARS.

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 3.00 to 2.17, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_resnet50
    ./launch.sh train imagenet_resnet50:8192
    ./launch.sh train imagenet_resnet50:32768

SGD as in Goyal et al. 2017 (arXiv:1706.02677): a learning rate proportional to the batch size (sec. 2.1), 5 epochs of
warm-up (sec. 2.2), batch statistics of 32 images on any number of devices (sec. 2.3), and residual branches that start
at zero (sec. 5.1). The paper's top-1 validation errors: 23.60 +- 0.12 % with batches of 256, 23.74 +- 0.09 % with 8,192
(Table 1). LARS (You et al. 2017, arXiv:1708.03888) has the learning rates and warm-ups of TensorFlow's official ResNet.

`imagenet2012` is the data set as TFDS prepares it, with file_format="array_record".
"""

from cnnjax.config import Config


def get_config(batch: str = "256") -> Config:
    batch_size = int(batch)
    config = Config(
        model="resnet50_v1_5(zero_init=True, ghost_batch_size=32)",
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(224)|flip_lr",
        preprocess="resize(256)|center_crop(224)",
        duration="90 epochs",
        batch_size=batch_size,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.1 * batch_size / 256,
        schedule="piecewise(('30 epochs', '60 epochs', '80 epochs'), warmup='5 epochs')",
        weight_decay=1e-4,
        dtype="bfloat16",
    )
    if batch_size > 8192:
        config.optimizer = "lars"
        config.lr, warmup = (25.0, 5) if batch_size < 32768 else (32.0, 14)
        config.schedule = f"polynomial(power=2, warmup='{warmup} epochs')"
    return config
