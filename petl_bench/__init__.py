"""petl-bench: quantized adapters on frozen vision backbones, measured under one protocol."""

__version__ = "0.1.0"
