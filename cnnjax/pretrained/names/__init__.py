"""Libraries whose array names we know, by name; see `cnnjax.pretrained.library`."""

from cnnjax.pretrained.library import Library
from cnnjax.pretrained.names import akamaster, caffe, keras, pytorchcv, slim, timm, torchvision

LIBRARIES: dict[str, Library] = {
    "torchvision": torchvision.LIBRARY,
    "timm": timm.LIBRARY,
    "timm_legacy": timm.LEGACY,
    "akamaster": akamaster.LIBRARY,
    "pytorchcv": pytorchcv.LIBRARY,
    "keras": keras.LIBRARY,
    "slim": slim.LIBRARY,
    "caffe": caffe.LIBRARY,
}
