"""What Pillow makes of images: the expectations of `loader/src/transform/pillow.rs`.

pillow.py photos DIR N       writes N JPEGs of many sizes and kinds
pillow.py kinds DIR          writes an image of every kind that the loader reads, each with Pillow's pixels beside it
pillow.py transform DIR      carries out DIR/plan.txt: lines of `file mode size left top width height`
pillow.py colour DIR         changes the colours of DIR/pixels: lines `change factor` in DIR/plan.txt
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

folder = Path(sys.argv[2])
random = np.random.default_rng(7)


def photo(width, height):
    """Light that changes slowly, things with edges, and the noise of a sensor."""
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    waves = [np.sin(2 * np.pi * (random.normal(0, 2) * x + random.normal(0, 2) * y) + c) for c in range(3)]
    pixels = 128 + 70 * np.stack(waves, axis=-1)
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        corners = [(int(random.integers(0, width)), int(random.integers(0, height))) for _ in range(3)]
        colour = tuple(int(value) for value in random.integers(0, 256, 3))
        draw.polygon(corners, fill=colour) if random.random() < 0.6 else draw.line(corners, fill=colour, width=3)
    noisy = np.asarray(image) + random.normal(0, random.uniform(0, 9), (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def photos(count):
    for number in range(count):
        # Fewer of the large ones; some smaller than what they become.
        width, height = (int(size) for size in np.exp(random.uniform(np.log(70), np.log(1200), 2)))
        image = photo(width, height)
        settings = {"quality": int(random.integers(60, 98)), "subsampling": int(random.integers(0, 3))}
        if number % 10 == 3:
            settings["progressive"] = True
        if number % 20 == 5:
            image = image.convert("L")
            settings.pop("subsampling")
        image.save(folder / f"{number:04}.jpg", **settings)


def over_white(image):
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion cuts everything beyond 255 off.
        return Image.fromarray(np.round(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def kinds():
    base = photo(97, 61)
    alpha = Image.fromarray(random.integers(0, 256, (61, 97), dtype=np.uint8))
    rgba = base.copy()
    rgba.putalpha(alpha)
    grey_alpha = Image.merge("LA", (base.convert("L"), alpha))
    deep = Image.fromarray(random.integers(0, 65536, (61, 97), dtype=np.uint16))
    palette = base.quantize(200)
    images = {
        "rgb.jpg": (base, {"quality": 92}),
        "progressive.jpg": (base, {"progressive": True}),
        "grey.jpg": (base.convert("L"), {}),
        "cmyk.jpg": (base.convert("CMYK"), {"quality": 92}),
        "rgb.png": (base, {}),
        "grey.png": (base.convert("L"), {}),
        "bits.png": (base.convert("1"), {}),
        "palette.png": (palette, {}),
        "transparent-palette.png": (palette, {"transparency": 3}),
        "rgba.png": (rgba, {}),
        "grey-alpha.png": (grey_alpha, {}),
        "deep.png": (deep, {}),
        "lossy.webp": (base, {"quality": 90}),
        "lossless.webp": (base, {"lossless": True}),
        "rgba.webp": (rgba, {"lossless": True, "exact": True}),
        "palette.gif": (palette, {}),
        "animation.gif": (palette, {"save_all": True, "append_images": [palette.rotate(90)] * 2}),
        "animation.webp": (base, {"save_all": True, "append_images": [base.rotate(90)], "lossless": True}),
        "rgb.bmp": (base, {}),
        "grey.bmp": (base.convert("L"), {}),
        "rgb.tif": (base, {}),
        "packed.tif": (base, {"compression": "tiff_lzw"}),
        "grey.tif": (base.convert("L"), {}),
        "full.avif": (base, {"quality": 95, "subsampling": "4:4:4"}),
        "half.avif": (base, {"quality": 95, "subsampling": "4:2:2"}),
        "quarter.avif": (base, {"quality": 95}),
        "grey.avif": (base.convert("L"), {"quality": 95}),
        "rgba.avif": (rgba, {"quality": 95, "subsampling": "4:4:4"}),
    }
    for name, (image, settings) in images.items():
        image.save(folder / name, **settings)
        expected = over_white(Image.open(folder / name))
        (folder / name).with_suffix(Path(name).suffix + ".rgb").write_bytes(expected.tobytes())


def in_order(image, size):
    """Rows first, then columns: what `resize` itself did in all versions before 13."""
    return image.resize((size[0], image.height), Image.BICUBIC).resize(size, Image.BICUBIC)


def as_installed(image, size):
    return image.resize(size, Image.BICUBIC)


def shown(image, mode, size, box, resize):
    """torchvision's RandomResizedCrop with a crop that was drawn elsewhere, and OpenCLIP's transforms for evaluation."""
    if mode == "train":
        left, top, width, height = box
        return resize(image.crop((left, top, left + width, top + height)), (size, size))
    width, height = image.size
    if mode == "squash":
        return resize(image, (size, size))
    if mode == "longest":
        ratio = max(width, height) / size
        image = resize(image, (round(width / ratio), round(height / ratio)))
        square = Image.new("RGB", (size, size), (9, 8, 7))
        square.paste(image, ((size - image.width) // 2, (size - image.height) // 2))
        return square
    if width <= height:
        resized = (size, int(size * height / width))
    else:
        resized = (int(size * width / height), size)
    image = resize(image, resized)
    left, top = (int(round((length - size) / 2.0)) for length in resized)
    return image.crop((left, top, left + size, top + size))


def planes(image):
    return np.asarray(image).transpose(2, 0, 1).tobytes()


def transform():
    with open(folder / "expected", "wb") as expected, open(folder / "installed", "wb") as installed:
        for line in (folder / "plan.txt").read_text().splitlines():
            name, mode, *numbers = line.split()
            size, *box = (int(number) for number in numbers)
            image = Image.open(folder / name).convert("RGB")
            expected.write(planes(shown(image, mode, size, box, in_order)))
            installed.write(planes(shown(image, mode, size, box, as_installed)))


def turned(image, turn):
    hue, saturation, value = image.convert("HSV").split()
    steps = np.array(int(turn * 255)).astype(np.uint8)
    hue = Image.fromarray(np.asarray(hue) + steps)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


def colour():
    side = 256
    pixels = np.frombuffer((folder / "pixels").read_bytes(), np.uint8).reshape(3, side, side)
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    changes = {
        "brightness": lambda factor: ImageEnhance.Brightness(image).enhance(factor),
        "contrast": lambda factor: ImageEnhance.Contrast(image).enhance(factor),
        "saturation": lambda factor: ImageEnhance.Color(image).enhance(factor),
        "hue": lambda factor: turned(image, factor),
        "grey": lambda _: image.convert("L").convert("RGB"),
    }
    with open(folder / "expected", "wb") as expected:
        for line in (folder / "plan.txt").read_text().splitlines():
            change, factor = line.split()
            expected.write(planes(changes[change](float(factor))))


{
    "photos": lambda: photos(int(sys.argv[3])),
    "kinds": kinds,
    "transform": transform,
    "colour": colour,
}[sys.argv[1]]()
