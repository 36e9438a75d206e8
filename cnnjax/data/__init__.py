"""Data sets. `catalog`: what is known by name; `build.build`: original files to a TFDS data set; `build.load`: a
split of any by name; `pipeline`: its batches.

Nothing is imported here, so that the catalog alone costs nothing.
"""
