"""Auxiliary classifiers of GoogLeNet: do they carry gradient to its first modules?

./launch.sh study experiments/auxiliary_classifiers.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

REMARKS = """Nothing is trained: the runs end after one step with a learning rate of 0. All arms have the auxiliary
classifiers, after modules 4a and 4d, and so the same random initial weights (Xavier); their losses count with the
weight 0.3 of the paper, or 0. The gradient is the root mean square over the convolutions of inception_3a, the first
module, for the cross-entropy of 200 training images of CIFAR-10, enlarged to 64x64. On the scale of log10, -3
is a gradient of 0.001."""
DOUBLE = "The margin of 0.3 is a factor of 2: less can be made up for by the learning rate."

CARRY = Claim(
    name="auxiliary_classifiers_carry_gradient",
    chapter="inception",
    statement="GoogLeNet's auxiliary classifiers, whose losses are weighted by 0.3, make the gradient that reaches its "
    "first modules at least twice as large.",
    source="Szegedy et al.: Going Deeper with Convolutions. CVPR 2015, sec. 5: 'increase the gradient signal that gets "
    "propagated back'",
    comparisons=(Comparison("auxiliary", "higher", "none", "log_gradient_start", margin=0.3),),
    remarks=DOUBLE,
)
NEEDLESS = Claim(
    name="batch_norm_replaces_auxiliary_classifiers",
    chapter="inception",
    statement="With batch normalization the auxiliary classifiers change the gradient of the first modules little.",
    source="taught so in lectures; Szegedy et al.: Rethinking the Inception Architecture. CVPR 2016, sec. 4, doubts "
    "that they carry gradient",
    comparisons=(Comparison("BN, auxiliary", "equal", "BN, none", "log_gradient_start", margin=0.3),),
    remarks=DOUBLE,
)

SEEDS = {"quick": 2, "standard": 3, "full": 10}


def arm(model: str, aux_weight: float) -> Config:
    """Returns the config of an arm: one step that changes nothing."""
    return Config(
        model=f"{model}(adaptive=True)", aux_weight=aux_weight, dataset="cifar10", train_split="train[:200]",
        test_split="", augment="resize(64)", preprocess="resize(64)", duration="1 steps", batch_size=10, lr=0.0,
        log_every="1 steps",
    )  # fmt: skip


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the gradient of a run's first Inception module; see `cnnjax.study.propagation.module_gradient`."""
    from cnnjax.study import propagation

    return propagation.module_gradient(folder, data_dir, "inception_3a")


def get_study(budget: str) -> Study:
    """Returns the study for a budget, which sets the number of seeds."""
    return Study(
        arms={
            "auxiliary": arm("googlenet_aux", 0.3),
            "none": arm("googlenet_aux", 0.0),
            "BN, auxiliary": arm("googlenet_bn_aux", 0.3),
            "BN, none": arm("googlenet_bn_aux", 0.0),
        },
        metrics={"log_gradient_start": "log10 of the gradient of inception_3a"},
        claims=(CARRY, NEEDLESS),
        panels=(Panel("points", "log_gradient_start", "log10 of the gradient of inception_3a"),),
        seeds=SEEDS[budget],
        max_seeds=3 * SEEDS[budget],
        measure=measure,
        remarks=REMARKS,
        vary="Set the weight of the auxiliary losses to 1 in `get_study`: how much larger is the gradient?",
    )
