"""CNN backbones without their classifiers, one family a file."""
