"""Which shared libraries a shared library needs, read from the file itself. Pure."""

import mmap
import struct

_LOAD, _DYNAMIC = 1, 2  # types of program headers
_END, _NEEDED, _STRINGS = 0, 1, 5  # tags of dynamic entries
_PROGRAM_HEADER = struct.Struct("<IIQQQQ")  # type, flags, offset, address, (physical address,) size in the file
_ENTRY = struct.Struct("<qQ")


class MalformedLibraryError(ValueError):
    """The bytes are no shared library of a 64-bit little-endian machine."""


def needed(library: bytes | mmap.mmap) -> list[str]:
    """The names in its DT_NEEDED entries, in their order."""
    if library[:6] != b"\x7fELF\x02\x01":
        raise MalformedLibraryError("not an ELF file of 64 bits, little-endian")
    try:
        return _needed(library)
    except (struct.error, ValueError) as error:
        raise MalformedLibraryError(f"a damaged ELF file: {error}") from None


def _needed(library: bytes | mmap.mmap) -> list[str]:
    (headers_at,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    headers = [_PROGRAM_HEADER.unpack_from(library, headers_at + number * size) for number in range(count)]

    def offset_of(wanted: int) -> int:
        for kind, _, offset, address, _, file_bytes in headers:
            if kind == _LOAD and address <= wanted < address + file_bytes:
                return int(offset + wanted - address)
        raise ValueError(f"address {wanted:#x} is in no segment")

    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, file_bytes in headers:
        if kind == _DYNAMIC:
            entries += _ENTRY.iter_unpack(library[offset : offset + file_bytes - file_bytes % _ENTRY.size])
    tags = [tag for tag, _ in entries]
    entries = entries[: tags.index(_END)] if _END in tags else entries
    names = [value for tag, value in entries if tag == _NEEDED]
    if not names:
        return []
    strings_at = offset_of(next((value for tag, value in entries if tag == _STRINGS), 0))
    return [_text(library, strings_at + name) for name in names]


def _text(library: bytes | mmap.mmap, begin: int) -> str:
    text, end, _ = library[begin : begin + 4096].partition(b"\0")
    if not end:
        raise ValueError("a name without an end")
    return text.decode("utf-8", "backslashreplace")
