"""Editable install only: ``pip install -e .``; `core`, `plugins` and `registry` are generic import names."""

from setuptools import find_namespace_packages, setup

setup(
    name="hepar",
    version="0.1.0",
    description="Liver and liver-tumour segmentation on CT: plain PyTorch, plugins, YAML",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_namespace_packages(include=["core", "core.*", "plugins", "plugins.*"]),
    py_modules=["registry"],
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "segmentation-models-pytorch>=0.4",
        "timm>=1.0",
        "nibabel>=5.2",
        "numpy>=1.26",
        "h5py>=3.10",
        "hdf5plugin>=4.4",  # bitshuffle-lz4 for the store
        "pyyaml>=6.0",
        "tensorboard>=2.15",
        "albumentations>=2.0.8,<2.1",  # its successor is AGPL
        "opencv-python-headless>=4.9",  # resampling; albumentations brings it too
        "connected-components-3d>=3.16",  # lesions: many times faster than scipy.ndimage.label
        "isal>=1.6",  # gzip through ISA-L
        "scipy>=1.11",
        "pydicom>=3.0",  # DICOM headers and geometry
        "python-gdcm>=3.0.24",  # DICOM pixels: JPEG-2000, JPEG-LS, lossless JPEG, RLE in one well-kept decoder
        "highdicom>=0.25",  # DICOM segmentations
        "SimpleITK>=2.3",  # NRRD and MetaImage
        "jinja2>=3.1",  # the audit's page, every value escaped
        "matplotlib>=3.8",
        "tqdm>=4.66",
    ],
    extras_require={
        "wandb": ["wandb>=0.19"],
        "dev": [
            "wandb>=0.19",
            "pytest>=8.0",
            "pytest-timeout>=2.3",
            "pytest-xdist>=3.5",  # the tests start many processes that wait for each other: two at a time
            "hypothesis>=6.100",
            "monai>=1.5",  # metrics are compared with those of three independent packages
            "MedPy>=0.5.2",
            "surface-distance>=0.1",
            "playwright>=1.49",  # drives an installed Chromium, to test the pages as they are seen
            "pyjpegls>=1.5",  # and JPEG-LS ones
            "ruff>=0.9",
            "mypy>=1.14",
            "types-PyYAML",
            "types-tqdm",
            "setuptools>=70.1",
            "wheel",
        ],
    },
)
