"""The later Inceptions on ImageNet: BN-Inception, Inception-v3, Inception-v4 and Inception-ResNet-v2.

Status: not run on ImageNet here. In 200 steps on 2,000 photographs the loss falls from 2.57 to 2.46, and chance is 2.30
(experiments/jobs/recipe_cards.csv).

    ./launch.sh train imagenet_inception
    ./launch.sh train imagenet_inception:bn_inception
    ./launch.sh train imagenet_inception:inception_v4
    ./launch.sh train imagenet_inception:inception_resnet_v2
    ./launch.sh evaluate runs/NAME --preprocess='' --protocol='crop144(299)'

Top-1/top-5 validation errors with one crop, and with 144: BN-Inception 25.2/7.82 and 21.99/5.82 % (Ioffe & Szegedy
2015, 4.2); v3 21.2/5.6 % with one (Szegedy et al. 2016, abstract); v4 20.0/5.0 and 17.7/3.8 %, Inception-ResNet-v2
19.9/4.9 and 17.8/3.7 % (Szegedy et al. 2017, Tables 2 and 4).

As in the papers (2016, sec. 8; 2017, sec. 4): RMSProp with decay 0.9 and epsilon 1, a learning rate of 0.045 that falls
by 6 % every second epoch, averaged weights; v3 with label smoothing of 0.1, gradients clipped to norm 2 and 100 epochs;
weight decay of 4e-5 (Chollet 2017, 4.3). From TensorFlow's released code: momentum 0.9, averaging with decay 0.9999,
auxiliary losses of weight 0.4. From memory: crops of at least 5 % of the area, and the central 87.5 % in tests. The
papers' 50 replicas of 32 images are one batch of 1,600 here. The number of epochs of v4 is not published: here it is
200, twice that of v3.

BN-Inception is the paper's BN-x30 (4.2.1, 4.2.2): SGD with batch size 32 and a learning rate of 0.045 that falls six
times as fast as GoogLeNet's, no dropout, a fifth of the weight decay (that of Caffe, 2e-4; the paper does not give it).
"""

from cnnjax.config import Config, pick_recipe

RMSPROP = "rmsprop(decay=0.9, eps=1.0, momentum=0.9, tf=True)"
NETWORKS = {
    "bn_inception": {
        "model": "bn_inception(dropout=0.0)",
        "batch_size": 32,
        "duration": "150 epochs",
        "optimizer": "sgd(momentum=0.9)",
        "schedule": f"exponential(factor=0.96, every='{8 / 6:.3f} epochs')",
    },
    "inception_v3": {
        "model": "inception_v3_aux",
        "loss": "cross_entropy(label_smoothing=0.1)",
        "grad_clip_norm": 2.0,
    },
    "inception_v4": {"model": "inception_v4_aux", "duration": "200 epochs"},
    "inception_resnet_v2": {"model": "inception_resnet_v2_aux", "duration": "200 epochs"},
}


def get_config(network: str = "inception_v3") -> Config:
    side, resized = (224, 256) if network == "bn_inception" else (299, 342)
    defaults = {
        "batch_size": 1600,
        "duration": "100 epochs",
        "optimizer": RMSPROP,
        "schedule": "exponential(factor=0.94, every='2 epochs')",
    }
    return Config(
        dataset="imagenet2012",
        test_split="validation",
        augment=f"random_resized_crop({side}, scale=(0.05, 1.0))|flip_lr|color_jitter(0.125, 0.5, 0.5, 0.2)",
        preprocess=f"resize({resized})|center_crop({side})",
        normalize="symmetric",
        aux_weight=0.4,
        lr=0.045,
        weight_decay=4e-5,
        ema=0.9999,
        **(defaults | pick_recipe(network, NETWORKS)),
    )
