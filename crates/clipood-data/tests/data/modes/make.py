"""Makes the small images of this folder and what Pillow reads from them: python make.py (Pillow 11.3).

Every image is W x H pixels of seeded noise, in one of the modes and encodings that the preprocess goldens leave out. `expected.safetensors` holds
`Image.open(file).convert("RGB")` of each, uint8 [height, width, 3].
"""

import io
import json
import os
import random
import struct
import zlib

from PIL import Image

W, H = 23, 17
HERE = os.path.dirname(os.path.abspath(__file__))
rng = random.Random(20)


def noise(n):
    return bytes(rng.randrange(256) for _ in range(n))


def put(name, data):
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)


def save(name, image, **options):
    buffer = io.BytesIO()
    image.save(buffer, **options)
    put(name, buffer.getvalue())


def png(name, colour, depth, row_bytes, chunks=(), rows=None):
    """A PNG of a colour type and depth that Pillow cannot write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = rows or [noise(row_bytes) for _ in range(H)]
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, colour, 0, 0, 0))
    extra = b"".join(chunk(kind, data) for kind, data in chunks)
    put(name, b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", packed) + chunk(b"IEND", b""))


def gif(name, canvas, frame, transparent=None, interlace=False, palette_of=256, local=False):
    """A GIF of one frame (left, top, width, height) on a canvas; compressed with clear codes only (9-bit codes)."""
    left, top, width, height = frame
    bits, count = 0, 0
    out = bytearray()

    def code(value):
        nonlocal bits, count
        bits |= value << count
        count += 9
        while count >= 8:
            out.append(bits & 255)
            bits >>= 8
            count -= 8

    for index in range(width * height):
        if index % 200 == 0:
            code(256)
        code(rng.randrange(palette_of))
    code(257)
    out.append(bits & 255)
    size = palette_of.bit_length() - 2
    table = noise(3 * palette_of)
    data = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0 if local else 0x80 | size, 3, 0)
    data += b"" if local else table
    if transparent is not None:
        data += b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    flags = (0x40 if interlace else 0) | (0x80 | size if local else 0)
    data += b"," + struct.pack("<HHHHB", left, top, width, height, flags) + (table if local else b"") + b"\x08"
    for start in range(0, len(out), 255):
        block = bytes(out[start : start + 255])
        data += bytes([len(block)]) + block
    put(name, data + b"\0;")


def smooth(channels):
    """Smooth colours, for the lossy encoders."""
    data = bytes((x * 7 * (c + 1) + y * 11) % 512 // 2 for y in range(H) for x in range(W) for c in range(channels))
    return Image.frombytes({1: "L", 3: "RGB", 4: "RGBA"}[channels], (W, H), data)


rgb = Image.frombytes("RGB", (W, H), noise(3 * W * H))
rgba = Image.frombytes("RGBA", (W, H), noise(4 * W * H))
grey = Image.frombytes("L", (W, H), noise(W * H))
one_bit = Image.frombytes("1", (W, H), noise((W + 7) // 8 * H))
palette = grey.copy()
palette.putpalette(noise(768))
cmyk = Image.frombytes("CMYK", (W, H), noise(4 * W * H))

low = [b"".join(struct.pack(">H", rng.randrange(400)) for _ in range(W)) for _ in range(H)]
png("png_grey16.png", 0, 16, 2 * W)
png("png_grey16_low.png", 0, 16, 2 * W, rows=low)
png("png_grey_alpha16.png", 4, 16, 4 * W)
png("png_rgb16.png", 2, 16, 6 * W)
png("png_rgba16.png", 6, 16, 8 * W)
png("png_grey2.png", 0, 2, (W + 3) // 4)
png("png_grey4.png", 0, 4, (W + 1) // 2)
png("png_grey_key.png", 0, 8, W, [(b"tRNS", b"\0\x10")])
png("png_rgb_key.png", 2, 8, 3 * W, [(b"tRNS", b"\0\x10\0\x20\0\x30")])
png("png_palette1.png", 3, 1, (W + 7) // 8, [(b"PLTE", noise(6))])
png("png_palette2_alpha.png", 3, 2, (W + 3) // 4, [(b"PLTE", noise(12)), (b"tRNS", b"\0\x80")])
png("png_palette4.png", 3, 4, (W + 1) // 2, [(b"PLTE", noise(48))])
png("png_palette_short.png", 3, 8, W, [(b"PLTE", noise(300))])
gif("gif_plain.gif", (W, H), (0, 0, W, H))
gif("gif_interlaced.gif", (W, H), (0, 0, W, H), interlace=True)
gif("gif_transparent.gif", (W, H), (0, 0, W, H), transparent=7)
gif("gif_offset.gif", (W, H), (5, 3, 11, 9))
gif("gif_offset_transparent.gif", (W, H), (5, 3, 11, 9), transparent=9)
gif("gif_beyond_canvas.gif", (10, 8), (3, 2, 11, 9))
gif("gif_local_palette.gif", (W, H), (0, 0, W, H), local=True, palette_of=64)
save("gif_animated.gif", palette, format="GIF", save_all=True, append_images=[rgb.convert("P")])
for name, image in [("1bit", one_bit), ("grey", grey), ("palette", palette), ("rgba", rgba)]:
    save(f"bmp_{name}.bmp", image, format="BMP")
for name, image in [("1bit", one_bit), ("grey", grey), ("palette", palette), ("rgba", rgba), ("cmyk", cmyk)]:
    save(f"tiff_{name}.tiff", image, format="TIFF")
for compression in ["tiff_lzw", "tiff_adobe_deflate", "packbits"]:
    save(f"tiff_{compression}.tiff", rgb, format="TIFF", compression=compression)
save("tiff_pages.tiff", rgb, format="TIFF", save_all=True, append_images=[grey.convert("RGB")])
save("tiff_grey16.tiff", Image.frombytes("I;16", (W, H), noise(2 * W * H)), format="TIFF")
save("webp_rgba_lossless.webp", rgba, format="WEBP", lossless=True, exact=True)
save("webp_animated.webp", rgb, format="WEBP", lossless=True, save_all=True, append_images=[grey.convert("RGB")])
save("webp_lossy.webp", smooth(3), format="WEBP", quality=80)
save("webp_rgba_lossy.webp", smooth(4), format="WEBP", quality=80)
save("pnm_grey.pgm", grey, format="PPM")
save("pnm_rgb.ppm", rgb, format="PPM")
save("pnm_1bit.pbm", one_bit, format="PPM")
save("jpeg_rgb.jpg", smooth(3), format="JPEG", keep_rgb=True, quality=95)
save("jpeg_restart.jpg", smooth(3), format="JPEG", restart_marker_rows=1, quality=95)

header, blob = {}, b""
for name in sorted(os.listdir(HERE)):
    if name.endswith((".py", ".safetensors", ".md")):
        continue
    image = Image.open(os.path.join(HERE, name)).convert("RGB")
    data = image.tobytes()
    header[name] = {"dtype": "U8", "shape": [image.height, image.width, 3], "data_offsets": [len(blob), len(blob) + len(data)]}
    blob += data
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
put("expected.safetensors", struct.pack("<Q", len(text)) + text + blob)
