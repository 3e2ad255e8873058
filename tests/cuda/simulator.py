"""The kernels' readable Python under Numba's CUDA simulator: cases by name, and gradients, written to a file.

NUMBA_ENABLE_CUDASIM=1 python simulator.py OUT.npz NAME ...
"""

import sys

import numpy as np
from cases import CASES, PULLED, gradient_record, on_gpu, pulled, record, standing_for_a_gpu
from numba import cuda

from odec.codegen.cuda_driver import Occupancy


class SimulatedDevice:
    """What ensemble_cuda.py asks of a Device."""

    name, cc, target, processors, resident = "Numba's simulator", (9, 0), (9, 0), 1, 0

    def free_bytes(self):
        return 2**30

    def compiled(self, kernel):
        return SimulatedFunction(kernel)

    def empty(self, shape, dtype):
        return SimulatedArray(np.empty(shape, dtype))

    def copy_of(self, array):
        return SimulatedArray(np.array(array))

    def wait(self):
        pass


class SimulatedArray:
    def __init__(self, array):
        self.array = array

    def fill_bytes(self, byte):
        self.array.reshape(-1).view(np.uint8)[:] = byte

    def numpy(self):
        return self.array


class SimulatedFunction:
    """The kernel as Python: flat arrays in, and the constants as arguments."""

    def __init__(self, kernel):
        self.namespace, self.kernel, self.constants = {}, kernel, {}
        self.occupancy = Occupancy(1, kernel.local_bytes, 2, 1.0)
        exec(compile(kernel.python(), "<ensemble>", "exec"), self.namespace)

    def set_constant(self, name, array):
        self.constants[name] = array.copy()

    def launch(self, threads, numbers, arrays):
        flat = [a.array.reshape(-1) for a in arrays]
        flat = [a if a.size else np.empty(1, a.dtype) for a in flat]
        with np.errstate(all="ignore"):
            self.namespace[self.kernel.name][-(-threads // 2), 2](*numbers, *self.constants.values(), *flat)


if __name__ == "__main__":
    assert not hasattr(cuda, "cudadrv") or "simulator" in cuda.cudadrv.__name__, "set NUMBA_ENABLE_CUDASIM=1"
    out, *names = sys.argv[1:]
    found = {name: record(on_gpu(SimulatedDevice(), CASES[name])) for name in names}
    with standing_for_a_gpu(SimulatedDevice()):
        found |= {f"gradient of {name}": gradient_record(pulled(CASES[name], "cuda")) for name in PULLED}
    np.savez(out, **{f"{name}/{part}": a for name, parts in found.items() for part, a in parts.items()})
