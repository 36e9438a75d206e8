"""Data sets. `catalog`: those that can be built by name; `build`: builds and loads them; `pipeline`: their batches.

Nothing is imported here, so that the catalog alone is cheap to import. The entry point is `build.load_dataset`.
"""
