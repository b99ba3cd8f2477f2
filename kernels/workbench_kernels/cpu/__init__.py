"""C++ kernels for the CPU: compiled once by the installed compiler."""

__all__: list[str] = []
