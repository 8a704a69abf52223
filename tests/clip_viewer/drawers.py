"""Functions that draw, or fail to, in the process of a `Drawer`."""

import os
import time

import numpy as np


def draw(recipe):
    """By the first word of the recipe."""
    word = recipe.split()[0]
    if word == b"bad":
        raise ValueError("its checksum is wrong")
    if word == b"fail":
        raise RuntimeError("no EGL here")
    if word == b"die":
        os._exit(11)
    if word == b"hang":
        time.sleep(60)
    if word == b"odd":
        return np.zeros((2, 3), dtype=np.uint8), 10.0
    if word == b"where":
        return np.full((1, 2, 2, 3), len(os.getcwd()) % 256, dtype=np.uint8), 10.0
    return np.full((3, 4, 5, 3), int(recipe.split()[1]), dtype=np.uint8), 12.5
