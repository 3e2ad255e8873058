"""What is asked of NVIDIA's driver, by a stand-in for its library whose GPU memory is the host's; and its absence."""

import ctypes
import ctypes.util

import numpy as np
import pytest
from cases import CASES, solved

from odec.codegen import cuda_driver
from odec.codegen.cuda_driver import Device, DriverError
from odec.errors import ArgumentError

ATTRIBUTES = {16: 4, 75: 8, 76: 6, 39: 1536, 13: 1_500_000}
OF_FUNCTIONS = {0: 1024, 3: 992, 4: 136}


class Driver:
    """libcuda as this host would have it: functions of the same names, arguments and error codes."""

    def __init__(self, gpus=1, memory=10_000):
        self.gpus, self.memory, self.held, self.launched, self.pushed = gpus, memory, {}, [], 0

    def __getattr__(self, name):
        raise AttributeError(f"the driver has no {name}")

    def cuInit(self, flags):
        return 0

    def cuDeviceGetCount(self, count):
        count._obj.value = self.gpus
        return 0

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):
        context._obj.value = 4711
        return 0

    def cuCtxPushCurrent_v2(self, context):
        self.pushed += 1
        return 0

    def cuCtxPopCurrent_v2(self, context):
        self.pushed -= 1
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = b"Stand-in"
        return 0

    def cuDeviceGetAttribute(self, value, which, device):
        value._obj.value = ATTRIBUTES[which]
        return 0

    def cuMemGetInfo_v2(self, free, total):
        free._obj.value = self.memory - sum(len(b) for b in self.held.values())
        return 0

    def cuMemAlloc_v2(self, place, size):
        block = ctypes.create_string_buffer(size.value)
        if size.value > self.memory:
            return 2
        place._obj.value = ctypes.addressof(block)
        self.held[place._obj.value] = block
        return 0

    def cuMemFree_v2(self, place):
        del self.held[place.value]
        return 0

    def cuMemcpyHtoD_v2(self, to, source, size):
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuMemcpyDtoH_v2(self, to, source, size):
        ctypes.memmove(to.value, source.value, size.value)
        return 0

    def cuMemsetD8_v2(self, to, byte, size):
        ctypes.memset(to.value, byte.value, size.value)
        return 0

    def cuModuleLoadData(self, module, text):
        module._obj.value = 1 if text.value.startswith(b"//") else 0
        return 0 if module._obj.value else 218

    def cuModuleGetFunction(self, function, module, name):
        function._obj.value = 2
        return 0

    def cuModuleGetGlobal_v2(self, place, size, module, name):
        self.constant = ctypes.create_string_buffer(16)
        place._obj.value, size._obj.value = ctypes.addressof(self.constant), 16
        return 0

    def cuFuncGetAttribute(self, value, which, function):
        value._obj.value = OF_FUNCTIONS[which]
        return 0

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, count, function, block, shared):
        count._obj.value = 65536 // (136 * block)
        return 0

    def cuLaunchKernel(self, function, gx, gy, gz, bx, by, bz, shared, stream, values, extra):
        assert (gy, gz, by, bz, shared, stream, extra) == (1, 1, 1, 1, 0, None, None)
        self.launched.append((gx, bx, [ctypes.c_int64.from_address(v).value for v in values]))
        return 0

    def cuCtxSynchronize(self):
        return 0

    def cuGetErrorString(self, code, word):
        word._obj.value = b"out of memory" if code == 2 else b"something else"
        return 0


class Text:
    name = "ensemble"

    def ptx(self, cc):
        return f"// {cc}"


def test_a_gpu_tells_what_it_is():
    gpu = Device(Driver())
    assert (gpu.name, gpu.cc, gpu.target, gpu.processors, gpu.resident) == ("Stand-in", (8, 6), (8, 6), 4, 6144)
    assert gpu.free_bytes() == 10_000


def test_arrays_come_back_as_they_went_and_their_memory_is_freed():
    driver = Driver()
    gpu = Device(driver)
    array = np.arange(12.0).reshape(3, 4)
    there = gpu.copy_of(array)
    np.testing.assert_array_equal(there.numpy(), array)
    there.fill_bytes(0xFF)
    assert np.isnan(there.numpy()).all()
    face = there.__cuda_array_interface__
    assert face["shape"] == (3, 4) and face["typestr"] == "<f8" and face["data"] == (there.address, False)
    assert driver.held and driver.pushed == 0
    del there
    assert not driver.held


def test_a_launch_passes_numbers_and_addresses_in_blocks_of_full_occupancy():
    driver = Driver()
    gpu = Device(driver)
    function = gpu.compiled(Text())
    assert (function.occupancy.registers, function.occupancy.local_bytes, function.occupancy.block) == (136, 992, 32)
    assert function.occupancy.share == pytest.approx(480 / 1536)
    function.set_constant("shared_rules", np.array([1.0, 2.0]))
    assert np.frombuffer(driver.constant, float).tolist() == [1.0, 2.0]
    array = gpu.empty((4,), float)
    function.launch(100, (100, 7), [array])
    assert driver.launched == [(4, 32, [100, 7, array.address])]


def test_what_the_driver_refuses_is_named():
    with pytest.raises(DriverError, match=r"driver refused cuMemAlloc_v2: out of memory \(error 2\)") as raised:
        Device(Driver()).empty((10**6,), float)
    assert raised.value.code == 2


def test_a_computer_without_a_gpu_is_told_so():
    with pytest.raises(ArgumentError, match="its driver is here, but it shows none; use target='cpu'"):
        Device(Driver(gpus=0))


def test_a_gpu_too_old_is_told_so(monkeypatch):
    monkeypatch.setitem(ATTRIBUTES, 75, 6)
    with pytest.raises(ArgumentError, match=r"Stand-in has compute capability \(6, 6\); \(7, 0\) or later is needed"):
        _ = Device(Driver()).target


def test_a_computer_without_the_driver_is_told_so(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    cuda_driver.device.cache_clear()
    with pytest.raises(ArgumentError, match="target 'cuda' needs a GPU of NVIDIA and its driver"):
        solved(CASES["rows"], "cuda")
