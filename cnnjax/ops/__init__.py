"""C++ that makes a CPU faster, where it can be compiled: without it, everything works."""
