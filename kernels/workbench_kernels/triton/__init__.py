"""Kernels in Triton for CUDA GPUs of sm_80 and newer; its interpreter runs the same code on a CPU."""

__all__: list[str] = []
