"""Tells callgrind, which this program runs under, what to count. On a bare processor the calls do nothing.

A program speaks to valgrind by an instruction sequence that does nothing by itself (valgrind.h, "client requests"): four
rotations of a register by 128 bits altogether, and an exchange of a register with itself. It is put into memory here, so
that no compiler is needed.
"""

import ctypes
import mmap
import platform

_BASE = ord("C") << 24 | ord("T") << 16
_DUMP, _START, _STOP = _BASE, _BASE + 4, _BASE + 5

_X86_64 = bytes.fromhex(
    "4889f8"  # mov rax, rdi: the address of the request's code and five arguments
    "31d2"  # xor edx, edx: what comes back where there is no valgrind
    "48c1c703 48c1c70d 48c1c73d 48c1c733"  # rol rdi, 3; 13; 61; 51
    "4887db"  # xchg rbx, rbx
    "4889d0"  # mov rax, rdx
    "c3"  # ret
)


class Callgrind:
    """The tool around this process. OSError on a processor that the sequence is not known for."""

    def __init__(self) -> None:
        if platform.machine() not in {"x86_64", "AMD64"}:
            raise OSError(f"callgrind cannot be told anything on {platform.machine()}")
        self._memory = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._memory.write(_X86_64)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._call = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)

    def start(self) -> None:
        """Count from here on (with --instr-atstart=no nothing is, and a start is quick)."""
        self._request(_START)

    def stop(self) -> None:
        """Count no more, and write what was counted to the next file."""
        self._request(_STOP)
        self._request(_DUMP)

    def _request(self, code: int) -> None:
        arguments = (ctypes.c_uint64 * 6)(code)
        self._call(ctypes.addressof(arguments))
