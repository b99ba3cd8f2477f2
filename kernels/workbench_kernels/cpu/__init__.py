"""C++ kernels for the CPU: compiled once by the installed compiler, or shipped in a wheel."""

__all__: list[str] = []
