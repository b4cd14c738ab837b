"""Of /proc/cpuinfo what a compiler goes by."""

import torch

from p2p.deploy import instructions

X86 = """processor\t: 0
flags\t\t: fpu vme sse4_2 sse avx512_vnni avx2 hypervisor constant_tsc amx_bf16 ssse3 md_clear
power management:

processor\t: 1
flags\t\t: fpu vme sse
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd evtstrm sve2 i8mm cpuid\n"


def test_instructions_are_told_from_what_no_compiler_uses(tmp_path, monkeypatch):
    monkeypatch.setattr(instructions, "CPUINFO", tmp_path / "cpuinfo")
    assert instructions.instructions() == torch.backends.cpu.get_cpu_capability()  # no such file: no Linux
    (tmp_path / "cpuinfo").write_text(X86)
    assert instructions.instructions() == "amx_bf16 avx2 avx512_vnni sse sse4_2 ssse3"
    (tmp_path / "cpuinfo").write_text(ARM)
    assert instructions.instructions() == "asimd i8mm sve2"
    (tmp_path / "cpuinfo").write_text("processor : 0\n")
    assert instructions.instructions() == torch.backends.cpu.get_cpu_capability()


def test_names_of_this_machine():
    assert instructions.instructions()
