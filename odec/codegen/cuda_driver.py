"""The GPU, through the functions of NVIDIA's driver: what is asked of it here has been the same since CUDA 4.

It works in the context that other libraries of the process share (CuPy, PyTorch, Numba), on its default stream.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
import weakref
from dataclasses import dataclass

import numpy as np

from odec.codegen.cuda import CAPABILITIES
from odec.errors import ArgumentError, CompileError

NAME_BYTES = 256
OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
# CUdevice_attribute and CUfunction_attribute, by their numbers in cuda.h.
PROCESSORS, MAJOR, MINOR, THREADS_EACH, CLOCK = 16, 75, 76, 39, 13
MOST_THREADS, LOCAL_BYTES, REGISTERS = 0, 3, 4
BLOCKS = tuple(range(32, 257, 32))  # threads a block: a warp that has ended frees its block's place the sooner
LOCAL_LIMIT = 512 * 1024  # bytes of local memory that a thread can have (CUDA C++ programming guide, table 30)


class DriverError(CompileError):
    """What NVIDIA's driver refused, with its own word for it."""

    def __init__(self, message, code):
        super().__init__(message)
        self.code = code

    def __reduce__(self):
        return type(self), (self.args[0], self.code)


@functools.cache
def device():
    """The first GPU of this process.

    Raises
    ------
    ArgumentError : there is no driver, or no GPU
    """
    return Device(_library())


def _library():
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        return ctypes.CDLL(name)
    except OSError:
        raise ArgumentError(
            f"target 'cuda' needs a GPU of NVIDIA and its driver, and there is no {name} here; use target='cpu', or "
            "run this where `nvidia-smi` lists a GPU."
        ) from None


class Device:
    """A GPU. name; cc : its compute capability; processors; clock : in Hz; resident : threads that it can hold."""

    def __init__(self, library, number=0):
        self._library = library
        count = ctypes.c_int()
        if library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count)) or count.value <= number:
            raise ArgumentError(
                "target 'cuda' needs a GPU of NVIDIA; its driver is here, but it shows none; use target='cpu', or look "
                "at `nvidia-smi` and at CUDA_VISIBLE_DEVICES."
            )
        self._device, self._context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(self._device), number)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        name = ctypes.create_string_buffer(NAME_BYTES)
        self._call("cuDeviceGetName", name, NAME_BYTES, self._device)
        self.name, self.cc = name.value.decode(), (self._attribute(MAJOR), self._attribute(MINOR))
        self.processors, self.clock = self._attribute(PROCESSORS), 1e3 * self._attribute(CLOCK)
        self.resident = self.processors * self._attribute(THREADS_EACH)

    @property
    def target(self):
        """The compute capability to make code for: the latest known one that this GPU runs."""
        older = [cc for cc in CAPABILITIES if cc <= self.cc]
        if not older:
            raise ArgumentError(
                f"target 'cuda': {self.name} has compute capability {self.cc}; {CAPABILITIES[0]} or later is needed; "
                "use target='cpu'."
            )
        return older[-1]

    def free_bytes(self):
        """Bytes of memory that nobody uses."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value

    def compiled(self, kernel):
        """The Function of what makes PTX for a compute capability: an object with `name` and `ptx(cc)`."""
        ptx, name = kernel.ptx(self.target), kernel.name
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), ctypes.c_char_p(ptx.encode()))
        self._call("cuModuleGetFunction", ctypes.byref(function), module, name.encode())
        return Function(self, module, function)

    def empty(self, shape, dtype):
        """A DeviceArray; its numbers are whatever lay there."""
        return DeviceArray(self, shape, dtype)

    def copy_of(self, array):
        """A DeviceArray with the numbers of an array."""
        array = np.ascontiguousarray(array)
        found = self.empty(array.shape, array.dtype)
        if array.nbytes:
            self._call("cuMemcpyHtoD_v2", ctypes.c_uint64(found.address), ctypes.c_void_p(array.ctypes.data),
                       ctypes.c_size_t(array.nbytes))  # fmt: skip
        return found

    def wait(self):
        """Wait for what was launched; an error in it is raised here."""
        self._call("cuCtxSynchronize")

    # ---- the driver

    def _attribute(self, which):
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), which, self._device)
        return value.value

    def _call(self, function, *arguments):
        """Call the driver in our context, whatever context the thread had, and has again after it."""
        library, inside = self._library, self._context.value is not None
        if inside:
            library.cuCtxPushCurrent_v2(self._context)
        try:
            code = getattr(library, function)(*arguments)
        finally:
            if inside:
                library.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        if code:
            word = ctypes.c_char_p()
            library.cuGetErrorString(code, ctypes.byref(word))
            said = (word.value or b"no more is known").decode()
            raise DriverError(f"target 'cuda': NVIDIA's driver refused {function}: {said} (error {code}).", code)


class DeviceArray:
    """Numbers in the memory of a GPU, freed with the last reference. shape, dtype, nbytes, address"""

    def __init__(self, gpu, shape, dtype):
        self.shape, self.dtype, self._gpu = tuple(shape), np.dtype(dtype), gpu
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize
        place = ctypes.c_uint64()
        gpu._call("cuMemAlloc_v2", ctypes.byref(place), ctypes.c_size_t(max(self.nbytes, 1)))
        self.address = place.value
        weakref.finalize(self, _free, gpu, place.value).atexit = False  # the driver frees all that a process had

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3,
                "strides": None, "stream": 1}  # fmt: skip

    def fill_bytes(self, byte):
        """Set every byte."""
        if self.nbytes:
            self._gpu._call("cuMemsetD8_v2", ctypes.c_uint64(self.address), ctypes.c_ubyte(byte),
                            ctypes.c_size_t(self.nbytes))  # fmt: skip

    def numpy(self):
        """A copy as a NumPy array."""
        found = np.empty(self.shape, self.dtype)
        if found.nbytes:
            self._gpu._call("cuMemcpyDtoH_v2", ctypes.c_void_p(found.ctypes.data), ctypes.c_uint64(self.address),
                            ctypes.c_size_t(found.nbytes))  # fmt: skip
        return found

    def public(self):
        """The same memory as an array of CuPy, or of Numba where CuPy is not installed."""
        if importlib.util.find_spec("cupy") is not None:
            return importlib.import_module("cupy").asarray(self)
        from numba import cuda

        return cuda.as_cuda_array(self)


def _free(gpu, address):
    gpu._call("cuMemFree_v2", ctypes.c_uint64(address))


@dataclass(frozen=True)
class Occupancy:
    """How a kernel fills a GPU: registers and bytes of local memory of a thread, threads of a block, and the share of
    the threads that a processor can hold."""

    registers: int
    local_bytes: int
    block: int
    share: float


class Function:
    """A kernel on a GPU, and the constants that it reads."""

    def __init__(self, gpu, module, function):
        self._gpu, self._module, self._function = gpu, module, function
        self.occupancy = self._occupancy()

    def set_constant(self, name, array):
        """Write an array into the constant memory that the kernel knows by a name."""
        place, size = ctypes.c_uint64(), ctypes.c_size_t()
        self._gpu._call("cuModuleGetGlobal_v2", ctypes.byref(place), ctypes.byref(size), self._module, name.encode())
        assert size.value == array.nbytes and array.flags.c_contiguous
        self._gpu._call("cuMemcpyHtoD_v2", place, ctypes.c_void_p(array.ctypes.data), size)

    def launch(self, threads, numbers, arrays):
        """Start so many threads; the kernel takes integers, then arrays."""
        values = [*(ctypes.c_int64(number) for number in numbers), *(ctypes.c_uint64(a.address) for a in arrays)]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        block = self.occupancy.block
        self._gpu._call("cuLaunchKernel", self._function, -(-threads // block), 1, 1, block, 1, 1, 0, None, pointers,
                        None)  # fmt: skip

    def _occupancy(self):
        """The block that fills the processors best; of several the smallest."""
        found, best = ctypes.c_int(), (0, 0)
        for block in BLOCKS:
            if block > self._number(MOST_THREADS):
                break
            self._gpu._call("cuOccupancyMaxActiveBlocksPerMultiprocessor", ctypes.byref(found), self._function, block,
                            ctypes.c_size_t(0))  # fmt: skip
            best = max(best, (found.value * block, -block))
        each = self._gpu.resident // self._gpu.processors
        return Occupancy(self._number(REGISTERS), self._number(LOCAL_BYTES), -best[1], best[0] / each)

    def _number(self, which):
        value = ctypes.c_int()
        self._gpu._call("cuFuncGetAttribute", ctypes.byref(value), which, self._function)
        return value.value
