"""Training of the network, and of what it is compared with (torch): `recipes` what, `loop` how, `mixture` from what."""
