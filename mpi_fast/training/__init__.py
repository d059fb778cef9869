"""Training of the score network (torch): `network` what, `data` from what, `loop` how."""
