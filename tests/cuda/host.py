"""A stand-in for a GPU: the kernel's own LLVM IR, compiled for this CPU, member by member.

It runs all but what NVIDIA's compiler and driver add, so the numbers of the kernel and the traffic around it are
tested where there is no GPU.
"""

import ctypes
import functools

import llvmlite.binding as llvm
import numpy as np

from odec.codegen import cuda
from odec.codegen.compile import _llvm, _new_machine, object_code
from odec.codegen.cuda_driver import Occupancy
from odec.integrate.thread_ir import kinds


def all_members(launch):
    """LLVM IR of a loop over members, in place of a kernel's entry."""
    return f"""
declare void @one_member({kinds(launch.values)})
define void @{launch.name}({launch.declared}) {{
entry:
  br label %next
next:
  %member = phi i64 [ 0, %entry ], [ %after, %next ]
  call void @one_member({", ".join(launch.values)})
  %after = add i64 %member, 1
  %more = icmp slt i64 %after, %size
  br i1 %more, label %next, label %done
done:
  ret void
}}
"""


known_code = functools.cache(object_code)  # several tests run the same kernel


class HostDevice:
    """What ensemble_cuda.py asks of a Device; launches : the sizes of those there were."""

    name, cc, target, processors, resident = "this CPU", (9, 0), (9, 0), 1, 0

    def __init__(self, memory=2**30):
        self.memory, self.launches = memory, []

    def free_bytes(self):
        return self.memory

    def compiled(self, kernel):
        return HostFunction(self, kernel)

    def empty(self, shape, dtype):
        return HostArray(np.empty(shape, dtype))

    def copy_of(self, array):
        return HostArray(np.array(array))

    def wait(self):
        pass


class HostArray:
    def __init__(self, array):
        self.array, self.nbytes = array, array.nbytes

    def fill_bytes(self, byte):
        self.array.reshape(-1).view(np.uint8)[:] = byte

    def numpy(self):
        return self.array

    def public(self):
        return self.array


class HostFunction:
    def __init__(self, gpu, kernel):
        _llvm()
        launch = kernel.launch
        texts = [*kernel.llvm(), all_members(launch)]
        texts = [text.replace("@__nv_", "@") for text in (*texts, *cuda._matrix_routines(texts))]
        first, *others = (llvm.parse_assembly(cuda.HEADER.sub("", text)) for text in texts)
        for module in others:
            first.link_in(module)
        for function in first.functions:
            if not function.is_declaration and function.name != launch.name:
                function.linkage = "internal"
        self.gpu, self.occupancy = gpu, Occupancy(1, kernel.local_bytes, 1, 1.0)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(known_code(str(first))))
        self._engine.finalize_object()
        arrays = len(launch.arguments) - len(launch.numbers)
        taken = [ctypes.c_int64] * len(launch.numbers) + [ctypes.c_void_p] * arrays
        self._call = ctypes.CFUNCTYPE(None, *taken)(self._engine.get_function_address(launch.name))

    def set_constant(self, name, array):
        ctypes.memmove(self._engine.get_global_value_address(name), array.ctypes.data, array.nbytes)

    def launch(self, threads, numbers, arrays):
        self.gpu.launches.append(threads)
        self._call(*numbers, *(a.array.ctypes.data for a in arrays))
