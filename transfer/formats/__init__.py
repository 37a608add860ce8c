"""Export of trained models as ONNX, torch.export, plain safetensors or timm."""

from transfer.formats.write import export

__all__ = ["export"]
