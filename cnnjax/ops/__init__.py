"""JAX primitives for convolutions and pools, and optional C++ that makes them, and JPEG decoding, faster on CPUs."""
