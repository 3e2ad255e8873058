"""A stand-in for a GPU: the kernel's own LLVM IR, compiled for this CPU, member by member.

It runs all but what NVIDIA's compiler and driver add, so the numbers of the kernel and the traffic around it are
tested where there is no GPU.
"""

import ctypes

import llvmlite.binding as llvm
import numpy as np

from odec.codegen import cuda
from odec.codegen.compile import _llvm, _new_machine, object_code
from odec.codegen.cuda_driver import Occupancy
from odec.integrate.thread_kernel import READ, WRITTEN, Asked, _declared, _kinds

VALUES = ["i64 %member", *(f"i64 %{f}" for f in Asked._fields), *(f"ptr %{name}" for name in READ | WRITTEN)]
ALL_MEMBERS = f"""
declare void @one_member({_kinds(VALUES)})
define void @ensemble({_declared()}) {{
entry:
  br label %next
next:
  %member = phi i64 [ 0, %entry ], [ %after, %next ]
  call void @one_member({", ".join(VALUES)})
  %after = add i64 %member, 1
  %more = icmp slt i64 %after, %size
  br i1 %more, label %next, label %done
done:
  ret void
}}
"""


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
        texts = [*kernel.llvm(), ALL_MEMBERS]
        texts = [text.replace("@__nv_", "@") for text in (*texts, *cuda._matrix_routines(texts))]
        first, *others = (llvm.parse_assembly(cuda.HEADER.sub("", text)) for text in texts)
        for module in others:
            first.link_in(module)
        for function in first.functions:
            if not function.is_declaration and function.name != "ensemble":
                function.linkage = "internal"
        self.gpu, self.occupancy = gpu, Occupancy(1, kernel.local_bytes, 1, 1.0)
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _new_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_code(str(first))))
        self._engine.finalize_object()
        kinds = [ctypes.c_int64] * len(Asked._fields) + [ctypes.c_void_p] * len(READ | WRITTEN)
        self._call = ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address("ensemble"))

    def set_constant(self, name, array):
        ctypes.memmove(self._engine.get_global_value_address(name), array.ctypes.data, array.nbytes)

    def launch(self, threads, numbers, arrays):
        self.gpu.launches.append(threads)
        self._call(*numbers, *(a.array.ctypes.data for a in arrays))
