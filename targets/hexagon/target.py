"""Hexagon target tags, and the LLVM targets behind them.

QEMU 7.2 emulates one CPU model, v67, and runs integer code of later generations too, because the kernels use
no instruction that v67 lacks. What ran bit-exact under ``qemu-hexagon -cpu v67``, for `linear_w8a8` of
64 x 512 x 512 (packets of the whole call):

    tag               v65     v66     v68     v69     v73     v75     v79     v81
    ran exactly       yes     yes     yes     yes     yes     yes     yes     yes
    packets           68433   68433   68433   68371   68371   68371   68371   68371

HVX floating point (v68 on) does not run there, and nothing was run on a phone. TVM has no tags for v79 and
v81; their memory and context counts are those of v75.
"""

from __future__ import annotations

from dataclasses import dataclass

import tvm

from targets.errors import TargetError

_VTCM_BYTES = {65: 256 << 10, 66: 256 << 10, 68: 4 << 20}
_VTCM_BYTES |= dict.fromkeys((69, 73, 75, 79, 81), 8 << 20)


@dataclass(frozen=True)
class HexagonTarget:
    """One generation of the Hexagon NPU.

    ``tag`` is TVM's target tag (v79 and v81 follow its form), ``version`` the architecture version (68 for
    v68), ``vtcm_bytes`` the size of the tightly coupled memory, ``contexts`` the number of hardware threads
    that own an HVX context, and ``hvx_float`` whether HVX has floating point (v68 on).
    ``bytes_per_packet`` is the memory bandwidth in units of one context's issue rate: 26 bytes are 26 GB/s
    at 1 GHz, the published reading speed of HVX.
    """

    tag: str
    version: int
    vtcm_bytes: int
    contexts: int
    hvx_float: bool
    bytes_per_packet: float = 26.0

    @property
    def mcpu(self) -> str:
        """LLVM's and clang's name of the CPU, for example ``hexagonv68``."""
        return f"hexagonv{self.version}"

    def llvm_target(self) -> tvm.target.Target:
        """The LLVM target that builds objects for this NPU under Linux (static musl) with 128-byte HVX."""
        return tvm.target.Target(
            {
                "kind": "llvm",
                "mtriple": "hexagon-unknown-linux-musl",
                "mcpu": self.mcpu,
                "mattr": [f"+hvxv{self.version}", "+hvx-length128b"],
                "keys": ["hexagon", "cpu"],
            }
        )


_TARGETS = {
    f"qcom/hexagon-v{version}": HexagonTarget(
        f"qcom/hexagon-v{version}", version, vtcm_bytes, contexts=4, hvx_float=version >= 68
    )
    for version, vtcm_bytes in _VTCM_BYTES.items()
}


def hexagon_target(tag: str) -> HexagonTarget:
    """The target called ``tag``, for example ``qcom/hexagon-v68``; raises TargetError for an unknown tag."""
    if tag not in _TARGETS:
        known = ", ".join(sorted(_TARGETS))
        raise TargetError(f"unknown Hexagon target {tag!r}; known targets are {known}")
    return _TARGETS[tag]


def host_target() -> tvm.target.Target:
    """The LLVM target of the CPU this runs on: the target of the ``host`` device."""
    triple = tvm.target.codegen.llvm_get_system_triple()
    return tvm.target.Target(
        {"kind": "llvm", "mtriple": triple, "mcpu": tvm.target.codegen.llvm_get_system_cpu()}
    )


def supports_vnni(target: tvm.target.Target) -> bool:
    """Whether ``target`` has the 512-bit form of vpdpbusd."""
    return bool(tvm.target.codegen.target_has_features("avx512vnni", target))
