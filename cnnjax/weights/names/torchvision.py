"""torchvision's names."""

from cnnjax.weights.library import Library, rules, torch_layout

LIBRARY = Library(
    {
        "resnet": rules(
            {
                "conv1": "conv1",
                "norm1": "bn1",
                r"conv(\d)_(\d+)/conv(\d)": "layer{-1}.{-1}.conv{}",
                r"conv(\d)_(\d+)/norm(\d)": "layer{-1}.{-1}.bn{}",
                r"conv(\d)_(\d+)/shortcut_conv": "layer{-1}.{-1}.downsample.0",
                r"conv(\d)_(\d+)/shortcut_norm": "layer{-1}.{-1}.downsample.1",
                "head": "fc",
            }
        ),
    },
    **torch_layout(),
)
