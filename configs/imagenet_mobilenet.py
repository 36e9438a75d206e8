"""MobileNet v1 on ImageNet, with any width multiplier (Howard et al. 2017).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.56 to 2.01, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_mobilenet
    ./launch.sh train imagenet_mobilenet:mobilenet_v1_025

The paper's top-1 validation accuracy, 224x224 (Table 6): 70.6 % (width 1.0), 68.4 % (0.75), 63.7 % (0.5), 50.6 %
(0.25).

As in the paper (3.2): RMSProp as for Inception-v3 (imagenet_inception.py), but no auxiliary classifier, no label
smoothing, larger crops, and no weight decay on depthwise kernels. Weight decay of 4e-5 and initialization from a
truncated Gaussian with standard deviation 0.09 are TF-Slim's (mobilenet_v1.py). From memory: batch size 96 and learning
rate 0.045. The smallest crop is ours.
"""

from cnnjax.config import Config


def get_config(model: str = "mobilenet_v1") -> Config:
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="random_resized_crop(224, scale=(0.25, 1.0))|flip_lr",
        preprocess="resize(256)|center_crop(224)",
        normalize="symmetric",
        duration="100 epochs",
        batch_size=96,
        optimizer="rmsprop(decay=0.9, eps=1.0, momentum=0.9, tf=True)",
        lr=0.045,
        schedule="exponential(factor=0.94, every='2 epochs')",
        weight_decay=4e-5,
        decay_mask="^(?!dw).*kernel$",
        ema=0.9999,
    )
