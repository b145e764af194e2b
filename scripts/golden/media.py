"""Writes the images and videos of kimi-chat's tests, and what the reference's preprocessing makes of them.

Usage: media.py, with the packages of requirements-media.txt. The reference is Pillow and numpy alone: Kimi K2.6's preprocessor
(decode, scale down, pad, cut into patches) written down once more.
"""

import hashlib
import io
import json
import math
import struct
import subprocess
import zlib
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from PIL import Image

OUT = Path(__file__).parents[2] / "crates/kimi-chat/tests/data/media"
PATCH, SIDE, IMAGE_LIMIT, FRAME_LIMIT = 14, 512, 16384, 4096


def fit(width: int, height: int, limit: int) -> tuple[int, int]:
    patches = max(1, width // PATCH) * max(1, height // PATCH)
    scale = min(1.0, math.sqrt(limit / patches), SIDE * PATCH / width, SIDE * PATCH / height)
    return tuple(min(max(1, int(length * scale)), SIDE * PATCH) for length in (width, height))


def patches(images: list[Image.Image], limit: int) -> np.ndarray:
    """[frames, rows, columns, 3, 14, 14], u8."""
    size = fit(*images[0].size, limit)
    frames = []
    for image in images:
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC))
        height, width, _ = pixels.shape
        pixels = np.pad(pixels, ((0, -height % 28), (0, -width % 28), (0, 0)))
        rows, columns = pixels.shape[0] // PATCH, pixels.shape[1] // PATCH
        frames.append(pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 4, 1, 3))
    return np.stack(frames)


def golden(patches: np.ndarray) -> dict:
    grid = patches.shape[:3]
    digest = hashlib.sha256(struct.pack("<3Q", *grid) + patches.tobytes()).hexdigest()
    return {"grid": grid, "hash": digest}


def png16(colour_type: int, samples: np.ndarray) -> bytes:
    """A PNG of 16 bits a sample, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def saved(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pattern(width: int, height: int) -> Image.Image:
    """Edges and slopes in all colours; a small file."""
    y, x = np.mgrid[:height, :width]
    planes = [(x // 5 + y // 7) % 3 * 127, (x + y) // 9 % 2 * 255, (x % 40) * 6]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def images(random: np.random.Generator) -> dict[str, bytes]:
    rgba = random.integers(0, 256, (17, 23, 4), np.uint8)
    palette = Image.fromarray(rgba[..., :3]).quantize(11)
    frames = [Image.fromarray(random.integers(0, 256, (9, 30, 3), np.uint8)).quantize(7) for _ in range(2)]
    return {
        "alpha.png": saved(Image.fromarray(rgba), "png"),
        "palette.png": saved(palette, "png", transparency=3),
        "two_colours.png": saved(Image.fromarray(rgba[..., 0]).convert("1"), "png"),
        "grey.png": saved(Image.fromarray(rgba[..., 0]), "png"),
        "grey16.png": png16(0, random.integers(0, 512, (5, 6, 1))),
        "grey_alpha16.png": png16(4, random.integers(0, 65536, (5, 6, 2))),
        "rgb16.png": png16(2, random.integers(0, 65536, (5, 6, 3))),
        "alpha16.png": png16(6, random.integers(0, 65536, (5, 6, 4))),
        "first_of_two.gif": saved(frames[0], "gif", save_all=True, append_images=frames[1:], duration=100),
        "rgb.bmp": saved(Image.fromarray(rgba[..., :3]), "bmp"),
        "lossless.webp": saved(Image.fromarray(rgba[..., :3]), "webp", lossless=True),
        "one_pixel.png": saved(Image.new("RGB", (1, 1), (250, 2, 77)), "png"),
        # Scaled down because of a side, and because of all patches together.
        "wide.png": saved(pattern(7300, 90), "png", optimize=True),
        "large.png": saved(pattern(1900, 2011).quantize(64), "png", optimize=True),
    }


def animation(random: np.random.Generator) -> tuple[bytes, list[dict]]:
    """Thirteen pictures, 200 ms each: 5 a second, of which two a second are seen."""
    pictures = [Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).quantize(5) for _ in range(13)]
    data = saved(pictures[0], "gif", save_all=True, append_images=pictures[1:], duration=200, disposal=1)
    file = Image.open(io.BytesIO(data))
    fps = file.n_frames / (file.n_frames * 0.2)
    count = max(round(file.n_frames * min(2.0, fps) / fps), 1)
    seen = np.round(np.linspace(0, file.n_frames - 1, count)).astype(int).tolist()
    frames = []
    for index in seen:
        file.seek(index)
        frames.append(file.convert("RGB"))
    clips = [
        golden(patches(frames[start : start + 4], FRAME_LIMIT)) | {"start": seen[start] / fps}
        for start in range(0, count, 4)
    ]
    return data, clips


def video(name: str, levels: list[int], *options: str) -> None:
    """One frame for each level of grey, 12 a second, with a white corner."""
    frames = np.repeat(np.array(levels, np.uint8), 64 * 48 * 3).reshape(-1, 48, 64, 3).copy()
    frames[:, :16, :16] = 235
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", "64x48", "-r", "12", "-i", "-", "-fflags", "+bitexact", "-pix_fmt", "yuv420p", *options]
    subprocess.run([*command, OUT / name], input=frames.tobytes(), check=True)


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(14)
    goldens = {}
    for name, data in images(random).items():
        (OUT / name).write_bytes(data)
        goldens[name] = golden(patches([Image.open(OUT / name)], IMAGE_LIMIT))
    # Decoders of JPEG differ in the last bits, so the pixels themselves are kept. Its EXIF data says: turn it.
    turned = Image.Exif()
    turned[0x0112] = 6
    (OUT / "photo.jpg").write_bytes(saved(pattern(42, 28), "jpeg", quality=90, exif=turned))
    (OUT / "photo.patches").write_bytes(patches([Image.open(OUT / "photo.jpg")], IMAGE_LIMIT).tobytes())
    data, goldens["moving.gif"] = animation(random)
    (OUT / "moving.gif").write_bytes(data)
    levels = [20 + 6 * frame for frame in range(36)]
    video("reordered.mp4", levels, "-c:v", "libx264", "-bf", "3", "-g", "20", "-movflags", "+faststart")
    video("baseline.mov", levels[:13], "-c:v", "libx264", "-profile:v", "baseline")
    video("mpeg4.mp4", levels[:3], "-c:v", "mpeg4")
    (OUT / "golden.json").write_text(json.dumps(goldens, indent=1) + "\n")


if __name__ == "__main__":
    main()
