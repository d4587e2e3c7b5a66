"""A kernel of a kilobyte and a half in Linux' bzImage format, which shows its command line on the PC's console.

It has the header that a boot loader reads and fills in (Linux: Documentation/arch/x86/boot.rst, protocol 2.03), and
16-bit code that prints what `cmd_line_ptr` points at, a plus if it was given an initrd, and a full stop: SeaBIOS sends
a character to the serial line when the next one comes.
"""

from __future__ import annotations

import struct

_SECTOR = 512
_SETUP_SECTORS = 1  # after the first
_LOADED_HIGH = 1
_CODE_AT = 0x240

# mov eax,[228h]; shr eax,4; mov es,ax; mov si,[228h]; and si,15
# next: es lodsb; test al,al; jz end; mov ah,14; mov bx,7; int 10h; jmp next
# end: cmp dword [21Ch],0; jz over; mov al,'+'; mov ah,14; mov bx,7; int 10h
# over: mov al,32; mov ah,14; int 10h; mov al,46; mov ah,14; int 10h; halt: hlt; jmp halt
_CODE = bytes.fromhex(
    "66a12802 66c1e804 8ec0 8b362802 83e60f26ac 84c0 7409 b40e bb0700 cd10 ebf1"
    "66833e1c0200 7409 b02b b40e bb0700 cd10"
    "b020 b40e cd10 b02e b40e cd10 f4 ebfd"
)


def speaking_kernel() -> bytes:
    """The kernel's file."""
    image = bytearray((1 + _SETUP_SECTORS) * _SECTOR + _SECTOR)
    struct.pack_into("<BHIHHHH", image, 0x1F1, _SETUP_SECTORS, 0, _SECTOR // 16, 0, 0, 0, 0xAA55)
    struct.pack_into("<BB4sH", image, 0x200, 0xEB, _CODE_AT - 0x202, b"HdrS", 0x0203)
    image[0x211] = _LOADED_HIGH
    struct.pack_into("<I", image, 0x214, 0x100000)  # code32_start
    struct.pack_into("<I", image, 0x22C, 0x37FFFFFF)  # initrd_addr_max
    image[_CODE_AT : _CODE_AT + len(_CODE)] = _CODE
    return bytes(image)
