"""Classes that states and parameters are made of in the tests of structures and of saved models."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Body(NamedTuple):
    place: np.ndarray
    speed: float


@dataclass
class Arm:
    length: float
    body: Body
