"""Training of our network and of networks to compare with (PyTorch): see `recipes`, `loop` and `mixture`."""
