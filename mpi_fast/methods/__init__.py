"""Methods to compare with: each is called like a `Reconstructor`, rows in, images out."""
