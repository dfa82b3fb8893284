"""Images on their way into a model: exactly as training and evaluation read, resize and normalize them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from PIL import UnidentifiedImageError
from torch import Tensor
from torchvision.transforms import v2

from petl_bench.data.decoded import resized
from petl_bench.data.images import LIMIT, as_published, as_shown, published, shown
from petl_bench.data.tree import LITTERED, images_of_folder
from petl_bench.errors import UserError
from petl_bench.files import read_bytes
from petl_bench.train import Pixels
from petl_bench.use.files import Trained

Image = str | Path | PIL.Image.Image
"""The path of an image file, or an opened image."""


class RGB(v2.Transform):  # type: ignore[misc]
    """Convert PIL images to RGB by the rules of petl_bench.data.images.

    Args:
        as_shown: as a viewer shows them, with transparency on white and turned by their EXIF orientation;
            else by Pillow's `convert("RGB")`, as the published loaders of benchmarks do.
    """

    def __init__(self, as_shown: bool) -> None:
        super().__init__()
        self.as_shown = as_shown

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse what is no PIL image, for example a path, which torchvision would return as it is.

        Raises:
            TypeError: there is such an input.
        """
        if other := next((held for held in flat_inputs if not isinstance(held, PIL.Image.Image)), None):
            raise TypeError(f"the transform of a model takes PIL images, not {type(other).__name__}")

    def transform(self, inpt: Any, params: dict[str, Any]) -> PIL.Image.Image:
        """Return one image in RGB."""
        return shown(inpt) if self.as_shown else published(inpt)

    def read(self, path: Path) -> PIL.Image.Image:
        """Return the content of an image file in RGB.

        Raises:
            UserError: it cannot be read or decoded.
        """
        data = read_bytes(path, LIMIT)
        if not data:
            raise UserError(f"{path}: is an empty file")
        try:
            return as_shown(data) if self.as_shown else as_published(data)
        except UnidentifiedImageError as error:
            raise UserError(f"{path}: is no image that can be recognized") from error
        except Exception as error:  # decoders raise anything on damaged files
            raise UserError(f"{path}: cannot be decoded: {error}") from error

    def extra_repr(self) -> str:
        return f"as_shown={self.as_shown}"


class Square(v2.Transform):  # type: ignore[misc]
    """Resize RGB images to size x size pixels, by Pillow's bicubic filter.

    Args:
        resize: `stretch`, or `crop`: the short side to 256/224 of `size` before a center crop.
        size: side of the result in pixels.
    """

    def __init__(self, resize: str, size: int) -> None:
        super().__init__()
        self.resize, self.size = resize, size

    def transform(self, inpt: Any, params: dict[str, Any]) -> PIL.Image.Image:
        """Return one resized image."""
        return resized(inpt, self.resize, self.size)

    def extra_repr(self) -> str:
        return f"resize={self.resize}, size={self.size}"


class Normalize(v2.Transform):  # type: ignore[misc]
    """Convert uint8 images (3, S, S) to float32 and normalize them.

    Args:
        normalization: name in petl_bench.types.NORMALIZATIONS; none: values from 0 to 1.
        size: S.
    """

    def __init__(self, normalization: str, size: int) -> None:
        super().__init__()
        self.normalization = normalization
        self.pixels = Pixels(normalization, size, torch.device("cpu"))

    def transform(self, inpt: Any, params: dict[str, Any]) -> Tensor:
        """Return one image (3, S, S)."""
        return self.pixels(inpt[None])[0]

    def extra_repr(self) -> str:
        return f"normalization={self.normalization}"


class Preparation:
    """The way of images into one model.

    Args:
        trained: the adapter file of the model.

    Attributes:
        transform: PIL image -> (3, S, S), float32: the input of the model.
    """

    def __init__(self, trained: Trained) -> None:
        size = trained.backbone.image_size
        self._rgb, self._square = RGB(trained.as_shown), Square(trained.resize, size)
        normalize = Normalize(trained.facts.normalization, size)
        self.transform = v2.Compose([self._rgb, self._square, v2.PILToTensor(), normalize])

    def __call__(self, image: Image) -> Tensor:
        """Return an image in the size of the input, not normalized yet: (3, S, S), uint8.

        Raises:
            UserError: its file cannot be read, or it is no image.
        """
        if isinstance(image, str | Path):
            rgb = self._rgb.read(Path(image))
        elif isinstance(image, PIL.Image.Image):
            try:
                rgb = self._rgb(image)
            except Exception as error:  # decoders raise anything on damaged files
                name = getattr(image, "filename", "") or "an image that was given opened"
                raise UserError(f"{name}: cannot be decoded: {error}") from error
        else:
            raise UserError(f"an image is a path or a PIL image, not {type(image).__name__}")
        return v2.functional.pil_to_tensor(self._square(rgb))


def found_images(paths: Iterable[str | Path]) -> tuple[list[Path], list[str]]:
    """Return the images that paths of files and folders name, and remarks about what else is in the folders.

    Raises:
        UserError: a path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    remarks = []
    for path in map(Path, paths):
        try:
            is_folder = path.is_dir()
            if not is_folder and not path.exists():
                raise UserError(f"{path}: no such file or folder")
            images, left_out = images_of_folder(path) if is_folder else ([path], {})
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(f"{path}: cannot be read: {reason}") from error
        if not images:
            raise UserError(f"{path}: this folder holds no image")
        counts = [f"{len(names)} {reason}" for reason, names in left_out.items() if reason != LITTERED]
        remarks += [f"{path}: left out are {', '.join(counts)}"] if counts else []
        found += images
    return found, remarks
