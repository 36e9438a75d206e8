"""Many runs at once: where they are executed, and how they are watched."""
