"""Training: a config is parsed (recipe), assembled (setup), and run (loop)."""
