"""The images, as Home Assistant's collection of brands asks for them."""

from typing import Final

from PIL import Image
import pytest

from .test_integration import FOLDER

IMAGES: Final = FOLDER / "brand"
KINDS: Final = ("icon", "logo", "dark_icon", "dark_logo")
SIZES: Final = {"": 256, "@2x": 512}


def test_all_images_exist_and_nothing_else() -> None:
    names = {f"{kind}{suffix}.png" for kind in KINDS for suffix in SIZES}
    assert {file.name for file in IMAGES.iterdir()} == names


@pytest.mark.parametrize("suffix", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_image_has_its_size_and_is_trimmed_to_the_edge(kind: str, suffix: str) -> None:
    with Image.open(IMAGES / f"{kind}{suffix}.png") as image:
        assert image.format == "PNG"
        assert image.mode == "RGBA"
        assert image.height == SIZES[suffix]
        if kind.endswith("icon"):
            assert image.width == image.height
        else:
            assert image.width > 2 * image.height
        assert image.getchannel("A").getextrema() == (0, 255)
        assert image.getchannel("A").getbbox() == (0, 0, *image.size)


@pytest.mark.parametrize("suffix", SIZES)
@pytest.mark.parametrize("kind", ["icon", "logo"])
def test_a_dark_theme_has_the_same_image_in_other_colors(kind: str, suffix: str) -> None:
    with (
        Image.open(IMAGES / f"{kind}{suffix}.png") as light,
        Image.open(IMAGES / f"dark_{kind}{suffix}.png") as dark,
    ):
        assert dark.getchannel("A").tobytes() == light.getchannel("A").tobytes()
        assert dark.tobytes() != light.tobytes()
