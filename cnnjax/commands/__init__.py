"""The commands of `cnnjax`, one module each: `run(parser, argv)` adds its flags, reads them and calls one function."""
