"""Lists of the convolutional families of timm and torchvision, which neither package marks.

timm keeps each family in a module (``timm.models.resnet``), so a family is named by its module. A module in neither
list is new: a test fails, and its models are not listed until it is added to one of them.
"""

from fnmatch import fnmatchcase

_CNN = """
byobnet convmixer convnext cspnet cspnext densenet dla dpn efficientnet fasternet fastvit focalnet ghostnet
hardcorenas hgnet hrnet inception_next inception_resnet_v2 inception_v3 inception_v4 lcnetv2 mambaout metaformer
mobilenetv3 nasnet nfnet pnasnet rdnet regnet repghost repvit res2net resnest resnet resnetv2 rexnet selecsls senet
sknet starnet tresnet vgg vovnet xception xception_aligned
"""

# Transformers, MLPs, state-space models, and networks whose blocks mix convolution with self-attention.
_NOT_CNN = """
beit byoanet cait coat convit cpubone crossvit csatv2 davit deepseek_vit deit edgenext efficientformer
efficientformer_v2 efficientvim efficientvit_mit efficientvit_msra eva gcvit gemma4_vit hiera hieradet_sam2 iformer
levit lowformer maxxvit mlp_mixer mobilenetv5 mobilevit mvitv2 naflexvit nest nextvit pit pvt_v2 qwen3_vit sequencer
shvit swiftformer swin_transformer swin_transformer_v2 swin_transformer_v2_cr tiny_vit tnt twins vision_transformer
vision_transformer_hybrid vision_transformer_relpos vision_transformer_sam visformer vitamin volo xcit
"""

# Members of the CNN modules that do have self-attention blocks.
ATTENTION = ("bat_resnext26ts", "caformer_*", "fastvit_ma36", "fastvit_mci*", "fastvit_sa*", "mobilenetv4_hybrid_*")

# Modules of torchvision.models with classification CNNs.
_TORCHVISION = """
alexnet convnext densenet efficientnet googlenet inception mnasnet mobilenetv2 mobilenetv3 regnet resnet
shufflenetv2 squeezenet vgg
"""

CNN, NOT_CNN, TORCHVISION = (frozenset(text.split()) for text in (_CNN, _NOT_CNN, _TORCHVISION))


def is_cnn(module: str, architecture: str) -> bool:
    """Return whether timm's `architecture`, of ``timm.models.<module>``, is a convolutional network.

    Examples
    --------
    >>> is_cnn("mobilenetv3", "mobilenetv4_conv_small"), is_cnn("mobilenetv3", "mobilenetv4_hybrid_large")
    (True, False)
    """
    return module in CNN and not any(fnmatchcase(architecture, pattern) for pattern in ATTENTION)
