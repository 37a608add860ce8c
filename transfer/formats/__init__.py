"""Trained models in the formats that others use: ONNX, torch.export, plain safetensors, timm."""

from transfer.formats.write import export

__all__ = ["export"]
