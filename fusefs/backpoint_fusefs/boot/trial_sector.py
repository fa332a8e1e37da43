"""A boot sector that tells whether a CPU is one: 512 bytes for `accelerator.py`.

Goes from real mode over paging into long mode, takes a thousand interrupts, runs forty million
instructions and ends QEMU by its exit port. The interrupts are where a KVM that only looks like one
gives up, the instructions what one that emulates each of them does not finish in time.
"""

from __future__ import annotations

from typing import Final

EXIT_PORT: Final = 0xF4
"""Of QEMU's isa-debug-exit: a byte n written there ends QEMU with the code 2n + 1."""
PASSED: Final = 2 * 0x2A + 1
_SECTOR_SIZE: Final = 512

# Loaded at 0x7c00. Page tables at 0x1000, 0x2000, 0x3000: 2 MiB, mapped one to one; the table of
# interrupts at 0x4000.
_CODE: Final = (
    # 16 bits
    # _start:
    "fa"  # cli
    "31c0"  # xor ax,ax
    "8ed8"  # mov ax,ds
    "8ec0"  # mov ax,es
    "8ed0"  # mov ax,ss
    "bc007c"  # mov 0x7c00,sp
    "fc"  # cld
    "bf0010"  # mov 0x1000,di
    "b90018"  # mov 0x1800,cx
    "f3ab"  # rep stosw
    "c70600100320"  # movw 0x2003,0x1000
    "c70600200330"  # movw 0x3003,0x2000
    "c70600308300"  # movw 0x0083,0x3000
    "0f0116d87c"  # lgdt gdtr
    "0f20e0"  # mov cr4,eax
    "0ca0"  # or 0xa0,al
    "0f22e0"  # mov eax,cr4
    "66b800100000"  # mov 0x1000,eax
    "0f22d8"  # mov eax,cr3
    "66b9800000c0"  # mov 0xc0000080,ecx
    "0f32"  # rdmsr
    "80cc01"  # or 0x1,ah
    "0f30"  # wrmsr
    "0f20c0"  # mov cr0,eax
    "660d01000080"  # or 0x80000001,eax
    "0f22c0"  # mov eax,cr0
    "ea5b7c0800"  # ljmp 8,long
    # 64 bits
    # long:
    "b810000000"  # mov 16,eax
    "8ed8"  # mov eax,ds
    "8ed0"  # mov eax,ss
    "bf00400000"  # mov 0x4000,edi
    "8d054b000000"  # lea handler(rip),eax
    "66898700020000"  # mov ax,0x200(rdi)
    "c787020200000800008e"  # movl 0x8e000008,0x202(rdi)
    "c7870602000000000000"  # movl 0,0x206(rdi)
    "c7870a02000000000000"  # movl 0,0x20a(rdi)
    "0f011c25de7c0000"  # lidt idtr
    "bbe8030000"  # mov 1000,ebx
    # again:
    "cd20"  # int 0x20
    "ffcb"  # dec ebx
    "75fa"  # jnz again
    "b9002d3101"  # mov 20000000,ecx
    # spin:
    "ffc9"  # dec ecx
    "75fc"  # jnz spin
    "b02a"  # mov 0x2a,al
    "66baf400"  # mov 0xf4,dx
    "ee"  # out al,dx
    # stop:
    "f4"  # hlt
    "ebfd"  # jmp stop
    # handler:
    "48cf"  # iretq
    "0f1f4000"  # .align 8
    # gdt:
    "0000000000000000"  # .quad 0
    "00000000009a2000"  # .quad 0x00209a0000000000
    "0000000000920000"  # .quad 0x0000920000000000
    # gdtr:
    "1700"  # .word 23
    "c07c0000"  # .long gdt
    # idtr:
    "ff03"  # .word 0x3ff
    "0040000000000000"  # .quad 0x4000
)
TRIAL_SECTOR: Final = bytes.fromhex(_CODE).ljust(_SECTOR_SIZE - 2, b"\0") + b"\x55\xaa"
