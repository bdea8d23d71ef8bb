"""The command line: thin Hydra mains. Nothing else in the package knows Hydra."""
