"""cnnjax: the classical convolutional networks in JAX: train, evaluate, compare and inspect them.

    import cnnjax

    model = cnnjax.create_model("resnet50", num_classes=10)          # a Flax module
    net = cnnjax.load("runs/digits")                                 # a run, 'torchvision:resnet50.v1', or a file
    net.predict(images)                                              # uint8 [N, H, W, C] -> probabilities [N, classes]
    net.features(images, "conv4_x")                                  # named feature maps
    result = cnnjax.train(cnnjax.load_config("digits_lenet5"), "runs/digits")
    cnnjax.evaluate("runs/digits", step="best")
    cnnjax.report("runs/digits")                                     # a page to open in a browser
    cnnjax.visualize.filters(net).figure()                           # pictures of what it sees
    images, labels = cnnjax.load_dataset("cifar10", "test")

Importing costs nothing: each name is loaded when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

_HOME = {  # public name -> the module that defines it
    "Config": "cnnjax.config",
    "InputError": "cnnjax.errors",
    "TrainResult": "cnnjax.training.loop",
    "TrainedNetwork": "cnnjax.evaluation.trained",
    "create_model": "cnnjax.models",
    "evaluate": "cnnjax.evaluation.evaluate",
    "list_models": "cnnjax.models",
    "load": "cnnjax.evaluation.trained",
    "load_config": "cnnjax.config_files",
    "load_dataset": "cnnjax.data.build",
    "register_augmentation": "cnnjax.register",
    "register_dataset": "cnnjax.register",
    "register_loss": "cnnjax.register",
    "register_metric": "cnnjax.register",
    "register_model": "cnnjax.register",
    "register_optimizer": "cnnjax.register",
    "register_schedule": "cnnjax.register",
    "report": "cnnjax.pages.report",
    "summary": "cnnjax.summarize",
    "train": "cnnjax.training.loop",
    "visualize": "cnnjax.visualize",  # the module itself
}

__all__ = [
    "Config",
    "InputError",
    "TrainResult",
    "TrainedNetwork",
    "create_model",
    "evaluate",
    "list_models",
    "load",
    "load_config",
    "load_dataset",
    "register_augmentation",
    "register_dataset",
    "register_loss",
    "register_metric",
    "register_model",
    "register_optimizer",
    "register_schedule",
    "report",
    "summary",
    "train",
    "visualize",
]


def __getattr__(name: str) -> Any:
    """Imports a public name from its module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'cnnjax' has no attribute {name!r}; it has {', '.join(_HOME)}")
    module = importlib.import_module(_HOME[name])
    value = module if module.__name__ == f"cnnjax.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the names of this module, including public names that are not imported yet."""
    return sorted(["__doc__", "__version__", *_HOME])


if TYPE_CHECKING:
    from cnnjax import visualize
    from cnnjax.config import Config
    from cnnjax.config_files import load_config
    from cnnjax.data.build import load_dataset
    from cnnjax.errors import InputError
    from cnnjax.evaluation.evaluate import evaluate
    from cnnjax.evaluation.trained import TrainedNetwork, load
    from cnnjax.models import create_model, list_models
    from cnnjax.pages.report import report
    from cnnjax.register import (
        register_augmentation,
        register_dataset,
        register_loss,
        register_metric,
        register_model,
        register_optimizer,
        register_schedule,
    )
    from cnnjax.summarize import summary
    from cnnjax.training.loop import TrainResult, train
