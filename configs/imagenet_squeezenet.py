"""SqueezeNet on ImageNet, as in the authors' Caffe solver (Iandola et al. 2016).

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss does not fall: 2.30 at first, 2.30 at the
end, and chance is 2.30 (experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_squeezenet
    ./launch.sh train imagenet_squeezenet:squeezenet1_1

Top-1/top-5 validation accuracy with the center crop: 57.5/80.3 % (the paper's Table 2), 60.4/82.5 % with simple
bypasses (Table 3); at least 80.3 % top-5 for version 1.1 (the authors' README).

As in solver.prototxt: batch size 512 in 16 micro-batches, a learning rate of 0.04 that falls linearly to 0 in 170,000
steps, weight decay of 2e-4, crops of 227 from 256x256. Unlike it: Glorot initialization for the last convolution, too,
instead of a Gaussian with standard deviation 0.01.
"""

from cnnjax.config import Config


def get_config(model: str = "squeezenet1_0") -> Config:
    return Config(
        model=model,
        dataset="imagenet2012",
        test_split="validation",
        augment="resize((256, 256))|random_crop(227)|flip_lr",
        preprocess="resize((256, 256))|center_crop(227)",
        normalize="caffe",
        duration="170000 steps",
        batch_size=512,
        grad_accum_steps=16,
        optimizer="sgd(momentum=0.9)",
        lr=0.04,
        schedule="polynomial(power=1.0)",
        weight_decay=2e-4,
    )
