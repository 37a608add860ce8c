"""Where backbones come from: timm, torchvision and the models bundled with this package."""
