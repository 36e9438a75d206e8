"""How other libraries name what our networks have."""

from cnnjax.weights.library import Library
from cnnjax.weights.names import caffe, keras, slim, torchvision

LIBRARIES: dict[str, Library] = {
    "torchvision": torchvision.LIBRARY,
    "keras": keras.LIBRARY,
    "slim": slim.LIBRARY,
    "caffe": caffe.LIBRARY,
}
