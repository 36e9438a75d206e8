"""cnnjax: the classical convolutional networks in JAX, trained, evaluated and compared from config files."""

__version__ = "0.1.0"
