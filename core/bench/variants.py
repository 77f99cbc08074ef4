"""What can be timed of the training loop."""

_NONE = ("transform=[]", "augment=[]")
_DEVICE = ("transform=[]", "augment={augment}")
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("no augmentation", (*_NONE, "dataset.cache=none")),
    "transforms": ("transforms on the CPU", ("augment=[]", "dataset.cache=none")),
    "augment": ("augmentation on the device", (*_DEVICE, "dataset.cache=none")),
    "ram": ("no augmentation, cache ram", (*_NONE, "dataset.cache=ram")),
    "device": ("no augmentation, cache device", (*_NONE, "dataset.cache=device")),
    "both": ("augmentation and cache on the device", (*_DEVICE, "dataset.cache=device")),
    "compile": ("no augmentation, torch.compile", (*_NONE, "dataset.cache=none", "train.compile=true")),
}
"""By the name that ``--only`` takes: what the tables call it, and its overrides."""
