"""How other libraries name what our networks have."""

from cnnjax.weights.library import Library
from cnnjax.weights.names import torchvision

LIBRARIES: dict[str, Library] = {"torchvision": torchvision.LIBRARY}
