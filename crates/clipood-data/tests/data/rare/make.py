"""Makes the rare and damaged images of this folder and what Pillow reads from them: python make.py (Pillow 12.3.0, numpy).

`expected.safetensors` holds `Image.open(file).convert("RGB")` of each file that Pillow reads, uint8 [height, width, 3], and
`refused.json` the error of each that it does not. Every image is W x H pixels of a gradient with seeded noise.
"""

import io
import json
import os
import random
import struct
import zlib

import numpy as np
from PIL import Image, TiffImagePlugin, __version__

W, H = 37, 26
HERE = os.path.dirname(os.path.abspath(__file__))
rng = random.Random(25)
numbers = np.random.default_rng(25)
assert __version__ == "12.3.0", __version__


def put(name, data):
    with open(os.path.join(HERE, name), "wb") as file:
        file.write(data)


def encoded(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def array(channels, high=256, kind=np.uint8):
    y, x = np.mgrid[0:H, 0:W]
    smooth = np.stack([(x * (c + 2) * 3 + y * 5) % 256 for c in range(channels)], axis=-1)
    rough = smooth + numbers.integers(-20, 21, smooth.shape)
    return (np.clip(rough, 0, 255) * (high // 256)).astype(kind)


rgb = Image.fromarray(array(3))
grey = Image.fromarray(array(1)[..., 0])
rgba = Image.fromarray(array(4))
grey_alpha = Image.merge("LA", [grey, Image.fromarray(array(1)[..., 0])])
palette = rgb.quantize(40)
one_bit = grey.convert("1")
cmyk = Image.frombytes("CMYK", (W, H), array(4).tobytes())
grey16 = array(1, 65536, np.uint16)[..., 0] + numbers.integers(0, 256, (H, W)).astype(np.uint16)
low16 = numbers.integers(0, 600, (H, W)).astype(np.uint16)


# --- JPEG ---
def jpeg(**options):
    return encoded(options.pop("image", rgb), "JPEG", **{"quality": 85, **options})


for name, sampling in [("444", "4:4:4"), ("422", "4:2:2"), ("420", "4:2:0")]:
    put(f"jpeg_{name}.jpg", jpeg(subsampling=sampling))
    put(f"jpeg_{name}_progressive.jpg", jpeg(subsampling=sampling, progressive=True))
for width, height in [(1, 1), (2, 1), (1, 2), (3, 3), (8, 17), (17, 8), (16, 16), (33, 31)]:
    image = rgb.resize((width, height))
    put(f"jpeg_420_{width}x{height}.jpg", jpeg(image=image))
put("jpeg_422_5x4.jpg", jpeg(image=rgb.resize((5, 4)), subsampling="4:2:2"))


def resampled(data, factors):
    """A three-component file of another sampling: the frame header says so; the data fit only by chance."""
    at = data.index(b"\xff\xc0")
    changed = bytearray(data)
    for component, factor in enumerate(factors):
        changed[at + 11 + 3 * component] = factor
    return bytes(changed)


# The scan of a 4:2:2 file has the blocks of a 4:4:0 file, with rows and columns exchanged.
put("jpeg_440.jpg", resampled(jpeg(subsampling="4:2:2", image=rgb.crop((0, 0, 32, 16))), [0x12, 0x11, 0x11]))
put("jpeg_411.jpg", resampled(jpeg(subsampling="4:2:0", image=rgb.crop((0, 0, 32, 16))), [0x41, 0x11, 0x11]))
put("jpeg_441.jpg", resampled(jpeg(subsampling="4:2:0", image=rgb.crop((0, 0, 16, 26))), [0x14, 0x11, 0x11]))
put("jpeg_grey.jpg", jpeg(image=grey))
put("jpeg_cmyk.jpg", jpeg(image=cmyk))
put("jpeg_rgb.jpg", jpeg(keep_rgb=True))
adobe = b"\xff\xee" + struct.pack(">H5sHHHB", 14, b"Adobe", 100, 0, 0, 0)
plain = jpeg()
jfif = plain.index(b"\xff\xe0")
without_jfif = plain[:jfif] + plain[jfif + 18 :]
for transform in (0, 1, 2, 7):
    put(f"jpeg_adobe{transform}.jpg", without_jfif[:2] + adobe[:-1] + bytes([transform]) + without_jfif[2:])
    put(f"jpeg_adobe{transform}_jfif.jpg", plain[:20] + adobe[:-1] + bytes([transform]) + plain[20:])
    inks = jpeg(image=cmyk)
    at = inks.index(b"Adobe") + 11
    put(f"jpeg_inks_adobe{transform}.jpg", inks[:at] + bytes([transform]) + inks[at + 1 :])
inks = jpeg(image=cmyk)
at = inks.index(b"\xff\xee")
put("jpeg_inks_plain.jpg", inks[:at] + inks[at + 16 :])
ids = bytearray(without_jfif)
frame, scan = ids.index(b"\xff\xc0"), ids.index(b"\xff\xda")
for component, letter in enumerate(b"RGB"):
    ids[frame + 10 + 3 * component] = ids[scan + 5 + 2 * component] = letter
put("jpeg_ids_rgb.jpg", bytes(ids))
restart = jpeg(restart_marker_blocks=1)
marks = [i for i in range(restart.index(b"\xff\xda"), len(restart)) if restart[i] == 255 and 0xD0 <= restart[i + 1] <= 0xD7]
put("jpeg_restart.jpg", restart)
put("jpeg_restart_lost.jpg", restart[: marks[1]] + restart[marks[1] + 2 :])
put("jpeg_restart_lost_last.jpg", restart[: marks[-1]] + restart[marks[-1] + 2 :])
put("jpeg_restart_lost_interval.jpg", restart[: marks[0]] + restart[marks[1] :])
put("jpeg_restart_lost_two.jpg", restart[: marks[0]] + restart[marks[2] :])
put("jpeg_restart_twice.jpg", restart[: marks[1]] + restart[marks[0] :])
put("jpeg_restart_renumbered.jpg", restart[: marks[1] + 1] + b"\xd5" + restart[marks[1] + 2 :])
progressive = jpeg(progressive=True)
body = progressive.rindex(b"\xff\xda")
put("jpeg_scans_missing.jpg", progressive[:body] + b"\xff\xd9")
put("jpeg_early_end.jpg", plain[: len(plain) - 300] + b"\xff\xd9")
put("jpeg_no_end.jpg", plain[:-2])
put("jpeg_cut.jpg", plain[: len(plain) // 2])
put("jpeg_more_behind.jpg", plain + b"more bytes" * 20)
put("jpeg_stray_bytes.jpg", plain[:20] + b"stray" + plain[20:])
put("jpeg_12_bits.jpg", plain.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"))
flipped = bytearray(plain)
flipped[-200] ^= 0x55
put("jpeg_flipped_bits.jpg", bytes(flipped))
exif = Image.Exif()
exif[0x0112] = 6
put("jpeg_orientation6.jpg", jpeg(exif=exif))


# --- PNG ---
def chunk(kind, data, crc=None):
    value = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", value)


def png(colour, depth, rows, before=b"", idat=None, end=None, interlace=0, size=(W, H), crcs=()):
    data = zlib.compress(b"".join(b"\0" + bytes(row) for row in rows)) if idat is None else idat
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, interlace), dict(crcs).get("IHDR"))
    end = chunk(b"IEND", b"") if end is None else end
    return b"\x89PNG\r\n\x1a\n" + header + before + chunk(b"IDAT", data, dict(crcs).get("IDAT")) + end


def packed(values, bits):
    per = 8 // bits
    rows = []
    for row in values:
        padded = list(row) + [0] * (-len(row) % per)
        rows.append([sum(v << (8 - bits * (i + 1)) for i, v in enumerate(padded[j : j + per])) for j in range(0, len(padded), per)])
    return rows


colours = array(3).reshape(H, -1)
big = np.asarray(grey16, ">u2").view(np.uint8).reshape(H, -1)
lows = np.asarray(low16, ">u2").view(np.uint8).reshape(H, -1)
rgb16 = numbers.integers(0, 65536, (H, 3 * W)).astype(">u2").view(np.uint8).reshape(H, -1)
put("png_rgb.png", png(2, 8, colours))
put("png_grey16.png", png(0, 16, big))
put("png_grey16_key.png", png(0, 16, big, chunk(b"tRNS", bytes(big[0][:2]))))
put("png_grey16_low_key.png", png(0, 16, lows, chunk(b"tRNS", bytes(lows[0][:2]))))
put("png_rgb16_key.png", png(2, 16, rgb16, chunk(b"tRNS", bytes(rgb16[0][:6]))))
for bits in (1, 2, 4):
    values = numbers.integers(0, 1 << bits, (H, W)).tolist()
    key = struct.pack(">H", values[0][0])
    put(f"png_grey{bits}.png", png(0, bits, packed(values, bits)))
    put(f"png_grey{bits}_key.png", png(0, bits, packed(values, bits), chunk(b"tRNS", key)))
    table = bytes(rng.randrange(256) for _ in range(3 << bits))
    put(f"png_palette{bits}.png", png(3, bits, packed(values, bits), chunk(b"PLTE", table) + chunk(b"tRNS", b"\x00\x80"[:bits])))
    short = table[: 3 * max(1, (1 << bits) // 2)]
    put(f"png_palette{bits}_short.png", png(3, bits, packed(values, bits), chunk(b"PLTE", short)))
put("png_palette8.png", encoded(palette, "PNG"))
put("png_palette8_key.png", encoded(palette, "PNG", transparency=3))
for name, image in [("rgb", rgb), ("palette", palette), ("grey", grey), ("grey_alpha", grey_alpha), ("one_bit", one_bit)]:
    put(f"png_{name}_saved.png", encoded(image, "PNG"))


def interlaced(values, channels):
    data = b""
    for x0, y0, dx, dy in [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]:
        part = values[y0::dy, x0::dx]
        if part.size:
            data += b"".join(b"\0" + row.tobytes() for row in part)
    return zlib.compress(data)


put("png_interlaced.png", png(2, 8, [], idat=interlaced(array(3), 3), interlace=1))
put("png_interlaced_1x1.png", png(2, 8, [], idat=interlaced(array(3)[:1, :1], 3), interlace=1, size=(1, 1)))
put("png_no_end.png", png(2, 8, colours, end=b""))
put("png_half_end.png", png(2, 8, colours, end=b"\0\0\0\0IE"))
put("png_cut_crc.png", png(2, 8, colours, end=b"")[:-2])
put("png_cut.png", png(2, 8, colours)[:-600])
put("png_crc_header.png", png(2, 8, colours, crcs=[("IHDR", 1)]))
put("png_crc_data.png", png(2, 8, colours, crcs=[("IDAT", 1)]))
put("png_crc_text.png", png(2, 8, colours, chunk(b"tEXt", b"a\0b", 1)))
put("png_crc_palette.png", png(3, 1, packed([[0] * W] * H, 1), chunk(b"PLTE", bytes(6), 1)))
put("png_crc_behind.png", png(2, 8, colours, end=chunk(b"tEXt", b"a\0b", 1) + chunk(b"IEND", b"")))
put("png_crc_end.png", png(2, 8, colours, end=chunk(b"IEND", b"", 1)))
raw = zlib.compress(b"".join(b"\0" + bytes(row) for row in colours))
put("png_adler.png", png(2, 8, [], idat=raw[:-4] + b"\1\2\3\4"))
put("png_no_adler.png", png(2, 8, [], idat=raw[:-4]))
put("png_more_data.png", png(2, 8, list(colours) + list(colours)))
put("png_few_rows.png", png(2, 8, colours[:-3]))
put("png_short_row.png", png(2, 8, [], idat=zlib.compress(b"".join(b"\0" + bytes(r) for r in colours)[:-5])))
put("png_bad_filter.png", png(2, 8, [], idat=zlib.compress(b"".join(b"\7" + bytes(r) for r in colours))))
put("png_private_critical.png", png(2, 8, colours, chunk(b"ABCD", b"x")))
put("png_private.png", png(2, 8, colours, chunk(b"abCD", b"x")))
put("png_no_palette.png", png(3, 1, packed([[0] * W] * H, 1)))
put("png_text_bomb.png", png(2, 8, colours, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3 << 20), 9))))
put("png_profile_bomb.png", png(2, 8, colours, chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(3 << 20), 9))))
put("png_profile_broken.png", png(2, 8, colours, chunk(b"iCCP", b"a\0\0broken")))
put("png_animated.png", encoded(rgb, "PNG", save_all=True, append_images=[rgb.rotate(90).resize((W, H))]))
put("png_default_image.png", encoded(rgb, "PNG", save_all=True, default_image=True, append_images=[rgb.rotate(90).resize((W, H))]))


# --- TIFF ---
def tiff(name, image, **options):
    try:
        put(f"tiff_{name}.tif", encoded(image, "TIFF", **options))
    except Exception as error:
        print("not written:", name, error)


for compression in ["raw", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits", "zstd", "jpeg", "lzma"]:
    for name, image in [("rgb", rgb), ("grey", grey), ("palette", palette), ("rgba", rgba), ("cmyk", cmyk)]:
        if compression in ("jpeg", "lzma") and name not in ("rgb", "grey"):
            continue
        tiff(f"{name}_{compression.removeprefix('tiff_')}", image, compression=None if compression == "raw" else compression)
for compression in ["raw", "group3", "group4", "tiff_ccitt", "tiff_lzw"]:
    tiff(f"one_bit_{compression.removeprefix('tiff_')}", one_bit, compression=None if compression == "raw" else compression)
tiff("grey_alpha", grey_alpha)
tiff("int32", Image.fromarray(grey16.astype(np.int32) - 300))
tiff("int32_low", Image.fromarray(low16.astype(np.int32) - 200))
tiff("float", Image.fromarray((low16 / 1.7 - 40).astype(np.float32)))
tiff("float_unit", Image.fromarray((low16 / 600).astype(np.float32)))
tiff("grey16", Image.fromarray(grey16))
tiff("grey16_low", Image.fromarray(low16))
tiff("grey16_lzw", Image.fromarray(low16), compression="tiff_lzw")
tiff("lab", Image.frombytes("LAB", (W, H), array(3).tobytes()))
tiff("ycbcr", rgb.convert("YCbCr"))
tiff("bigtiff", rgb, big_tiff=True)
tiff("predictor", rgb, compression="tiff_lzw", tiffinfo={317: 2})
tiff("pages", grey, save_all=True, append_images=[rgb])
tiff("strips", rgb, compression="tiff_lzw", strip_size=500)
for value in range(1, 10):
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[274] = value
    tiff(f"orientation{value}", rgb, tiffinfo=info)
info = TiffImagePlugin.ImageFileDirectory_v2()
info[274] = 6
tiff("orientation6_lzw", rgb, tiffinfo=info, compression="tiff_lzw")
tiff("palette_orientation8", palette, tiffinfo={274: 8})


def bare_tiff(name, entries, data, order="<"):
    """A TIFF of one strip; entries are (tag, type, values)."""
    kinds = {1: "B", 3: "H", 4: "I", 11: "f"}
    entries = sorted(entries + [(256, 3, [W]), (257, 3, [H])] + ([(273, 4, [8])] if not any(e[0] == 273 or e[0] == 324 for e in entries) else []))
    start = 8 + len(data) + len(data) % 2
    directory, extra = b"", b""
    behind = start + 2 + 12 * len(entries) + 4
    for tag, kind, values in entries:
        content = struct.pack(f"{order}{len(values)}{kinds[kind]}", *values)
        if len(content) > 4:
            place = struct.pack(order + "I", behind + len(extra))
            extra += content + b"\0" * (len(content) % 2)
        else:
            place = content.ljust(4, b"\0")
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    directory = struct.pack(order + "H", len(entries)) + directory + bytes(4)
    put(f"tiff_{name}.tif", head + data + b"\0" * (len(data) % 2) + directory + extra)


def bare(name, samples, bits, photometric, extra=(), planar=1, order="<", data=None, format=None):
    array_ = np.asarray(samples)
    body = array_.tobytes() if data is None else data
    count = 1 if array_.ndim == 2 else array_.shape[-1 if planar == 1 else 0]
    entries = [(258, 3, [bits] * count), (259, 3, [1]), (262, 3, [photometric]), (277, 3, [count]), (278, 3, [H]), (284, 3, [planar])]
    if planar == 1:
        entries += [(279, 4, [len(body)])]
    else:
        size = len(body) // count
        entries += [(279, 4, [size] * count), (273, 4, [8 + size * i for i in range(count)])]
    if format:
        entries += [(339, 3, [format] * count)]
    bare_tiff(name, entries + list(extra), body, order)


bare("planar", array(3).transpose(2, 0, 1).copy(), 8, 2, planar=2)
bare("big_endian", array(3), 8, 2, order=">")
bare("grey16_big_endian", low16.astype(">u2"), 16, 1, order=">")
bare("min_is_white", array(1)[..., 0], 8, 0)
bare("grey16_min_is_white", low16, 16, 0)
bare("rgb16", numbers.integers(0, 65536, (H, W, 3)).astype("<u2"), 16, 2)
bare("rgb16_big_endian", numbers.integers(0, 65536, (H, W, 3)).astype(">u2"), 16, 2, order=">")
bare("rgba16", numbers.integers(0, 65536, (H, W, 4)).astype("<u2"), 16, 2, [(338, 3, [2])])
bare("rgba_associated", array(4), 8, 2, [(338, 3, [1])])
bare("rgbx", array(4), 8, 2, [(338, 3, [0])])
bare("rgb_plus_unknown", array(4), 8, 2)
bare("grey4", array(1)[..., 0], 4, 1, data=bytes(rng.randrange(256) for _ in range((W + 1) // 2 * H)))
bare("grey2", array(1)[..., 0], 2, 1, data=bytes(rng.randrange(256) for _ in range((W + 3) // 4 * H)))
for bits in (1, 2, 4, 8):
    table = [rng.randrange(65536) for _ in range(3 << bits)]
    bare(f"palette{bits}", array(1)[..., 0], bits, 3, [(320, 3, table)], data=bytes(rng.randrange(256) for _ in range((W * bits + 7) // 8 * H)))
bare("int8", array(1)[..., 0].astype(np.int8), 8, 1, format=2)
bare("int16", (low16.astype(np.int16) - 300), 16, 1, format=2)
bare("uint32", low16.astype(np.uint32), 32, 1, format=1)
bare("float64", low16.astype(np.float64), 64, 1, format=3)
bare("float_big_endian", (low16 / 2).astype(">f4"), 32, 1, format=3, order=">")
bare("float_min_is_white", (low16 / 2).astype("<f4"), 32, 0, format=3)
bare("cmyk_planar", array(4).transpose(2, 0, 1).copy(), 8, 5, planar=2)
bare("ycbcr_bare", array(3), 8, 6, [(530, 3, [1, 1])])
bare("cielab_bare", array(3), 8, 8)
tile = np.zeros((H, W, 3), np.uint8)
padded = np.pad(array(3), ((0, 32 - H), (0, 48 - W), (0, 0)))
tiles = [padded[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16, 32)]
bare_tiff(
    "tiled",
    [(258, 3, [8] * 3), (259, 3, [1]), (262, 3, [2]), (277, 3, [3]), (322, 3, [16]), (323, 3, [16]), (324, 4, [8 + 768 * i for i in range(6)]), (325, 4, [768] * 6)],
    b"".join(tiles),
)
cut = encoded(rgb, "TIFF")
put("tiff_cut.tif", cut[:-400])


# --- BMP ---
def bmp(name, bits, compression, rows, masks=b"", table=b"", height=H, header=40, size_image=0):
    data = b"".join(rows)
    body = struct.pack("<IiiHHIIiiII", header, W, height, 1, bits, compression, size_image or len(data), 0, 0, len(table) // 4, 0)
    body += masks + table
    put(f"bmp_{name}.bmp", b"BM" + struct.pack("<IHHI", 14 + len(body) + len(data), 0, 0, 14 + len(body)) + body + data)


def lines(width_bytes):
    return [bytes(rng.randrange(256) for _ in range(width_bytes)) + b"\0" * (-width_bytes % 4) for _ in range(H)]


def bits_of(*masks):
    return struct.pack(f"<{len(masks)}I", *masks)


bmp("555", 16, 0, lines(2 * W))
bmp("555_masks", 16, 3, lines(2 * W), bits_of(0x7C00, 0x3E0, 0x1F))
bmp("565_masks", 16, 3, lines(2 * W), bits_of(0xF800, 0x7E0, 0x1F))
bmp("444_masks", 16, 3, lines(2 * W), bits_of(0xF00, 0xF0, 0xF))
bmp("24", 24, 0, lines(3 * W))
bmp("24_top_down", 24, 0, lines(3 * W), height=-H)
bmp("32", 32, 0, lines(4 * W))
bmp("32_masks", 32, 3, lines(4 * W), bits_of(0xFF0000, 0xFF00, 0xFF))
bmp("32_masks_rgb", 32, 3, lines(4 * W), bits_of(0xFF, 0xFF00, 0xFF0000))
bmp("32_masks_high", 32, 3, lines(4 * W), bits_of(0xFF000000, 0xFF0000, 0xFF00))
bmp("32_v4_alpha", 32, 3, lines(4 * W), bits_of(0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52), header=108)
for bits in (1, 2, 4, 8):
    table = b"".join(bytes(rng.randrange(256) for _ in range(3)) + b"\0" for _ in range(1 << bits))
    bmp(f"palette{bits}", bits, 0, lines((W * bits + 7) // 8), table=table)
    bmp(f"palette{bits}_short", bits, 0, lines((W * bits + 7) // 8), table=table[: 2 << bits])
table = b"".join(bytes(rng.randrange(256) for _ in range(3)) + b"\0" for _ in range(256))
rle = [b"".join(bytes([rng.randrange(1, 6), rng.randrange(256)]) for _ in range(12)) + b"\0\0" for _ in range(H)]
bmp("rle8_short_rows", 8, 1, rle + [b"\0\1"], table=table)
full = []
for _ in range(H):
    row, left = b"", W
    while left:
        run = min(left, rng.randrange(1, 9))
        if run >= 3 and rng.random() < 0.5:
            row += bytes([0, run]) + bytes(rng.randrange(256) for _ in range(run)) + b"\0" * (run % 2)
        else:
            row += bytes([run, rng.randrange(256)])
        left -= run
    full.append(row + b"\0\0")
bmp("rle8", 8, 1, full + [b"\0\1"], table=table)
bmp("rle8_delta", 8, 1, full[:5] + [b"\0\2\3\2"] + [b"\x05\x09\0\0"] + [b"\0\1"], table=table)
bmp("rle4", 4, 2, [bytes([W, rng.randrange(256), 0, 0]) for _ in range(H)] + [b"\0\1"], table=table[:64])
core = struct.pack("<IHHHH", 12, W, H, 1, 24)
put("bmp_core.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 26) + core + b"".join(lines(3 * W)))
put("bmp_cut.bmp", encoded(rgb, "BMP")[:-100])

# --- PNM ---
flat = array(3).reshape(-1)
put("pnm_ascii.ppm", b"P3\n# a comment\n%d %d\n255\n" % (W, H) + b" ".join(b"%d" % v for v in flat))
put("pnm_ascii_grey.pgm", b"P2 %d %d 200 " % (W, H) + b" ".join(b"%d" % (v * 200 // 255) for v in array(1).reshape(-1)))
put("pnm_ascii_bits.pbm", b"P1 %d %d\n" % (W, H) + b" ".join(b"%d" % rng.randrange(2) for _ in range(W * H)))
put("pnm_ascii_bits_packed.pbm", b"P1 %d %d\n" % (W, H) + b"".join(b"%d" % rng.randrange(2) for _ in range(W * H)))
put("pnm_comments.ppm", b"P6 # one\n# two\n%d # three\n %d\n# four\n255\n" % (W, H) + flat.tobytes())
put("pnm_max100.ppm", b"P6 %d %d 100\n" % (W, H) + (flat % 101).astype(np.uint8).tobytes())
put("pnm_max100_grey.pgm", b"P5 %d %d 100\n" % (W, H) + (array(1).reshape(-1) % 101).astype(np.uint8).tobytes())
put("pnm_16.ppm", b"P6 %d %d 65535\n" % (W, H) + numbers.integers(0, 65536, 3 * W * H).astype(">u2").tobytes())
put("pnm_1000.ppm", b"P6 %d %d 1000\n" % (W, H) + numbers.integers(0, 1001, 3 * W * H).astype(">u2").tobytes())
put("pnm_16_grey.pgm", b"P5 %d %d 65535\n" % (W, H) + grey16.astype(">u2").tobytes())
put("pnm_1000_grey.pgm", b"P5 %d %d 1000\n" % (W, H) + numbers.integers(0, 1001, W * H).astype(">u2").tobytes())
put("pnm_ascii_16_grey.pgm", b"P2 %d %d 65535\n" % (W, H) + b" ".join(b"%d" % v for v in grey16.reshape(-1)))
put("pnm_ascii_1000.ppm", b"P3 %d %d 1000\n" % (W, H) + b" ".join(b"%d" % v for v in numbers.integers(0, 1001, 3 * W * H)))
put("pnm_cut.ppm", b"P6 %d %d 255\n" % (W, H) + flat.tobytes()[:-50])
put("pnm_above_max.pgm", b"P5 %d %d 100\n" % (W, H) + array(1).tobytes())
put("pnm_float.pfm", b"Pf %d %d -1.0\n" % (W, H) + (low16 / 2).astype("<f4").tobytes())
put("pnm_pam.pam", b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" % (W, H) + flat.tobytes())

# --- WebP and GIF ---
for name, image in [("rgb", rgb), ("rgba", rgba), ("grey", grey)]:
    put(f"webp_{name}_lossless.webp", encoded(image, "WEBP", lossless=True, exact=True))
    for quality in (20, 80, 100):
        put(f"webp_{name}_{quality}.webp", encoded(image, "WEBP", quality=quality))
put("webp_1x1.webp", encoded(rgb.resize((1, 1)), "WEBP"))
put("webp_17x5.webp", encoded(rgb.resize((17, 5)), "WEBP", quality=60))
frames = [rgba, rgba.rotate(90).resize((W, H))]
put("webp_animated_alpha.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
put("webp_animated_lossy.webp", encoded(rgb, "WEBP", save_all=True, append_images=[rgb.rotate(90).resize((W, H))]))
put("webp_cut.webp", encoded(rgb, "WEBP", quality=95)[:-200])
put("gif_first_frame.gif", encoded(palette, "GIF", save_all=True, append_images=[rgb.rotate(180).quantize(40)], loop=0))
put("gif_cut.gif", encoded(palette, "GIF")[:-100])
put("gif_no_end.gif", encoded(palette, "GIF")[:-1])
put("gif_one_bit.gif", encoded(one_bit, "GIF"))

# --- More TIFF ---
def packed_tiff(name, samples, bits, photometric, extra=(), order="<", format=1, compression=8, predictor=1, rows=9, tile=0, planar=1, reverse=False):
    """A TIFF in strips of `rows` rows or tiles of `tile` columns and rows; samples are [H, W, channels]."""
    kind = {8: "u1", 16: "u2", 32: "u4"}[bits]
    bytes_ = bits // 8
    values = np.ascontiguousarray(samples).view({1: "u1", 2: "u2", 4: "u4"}[bytes_])
    count = values.shape[-1]
    planes = [values] if planar == 1 else [values[..., c : c + 1] for c in range(count)]
    pieces = []
    for plane in planes:
        if tile:
            padded = np.pad(plane, ((0, -H % tile), (0, -W % tile), (0, 0)))
            blocks = [padded[y : y + tile, x : x + tile] for y in range(0, H, tile) for x in range(0, W, tile)]
        else:
            blocks = [plane[y : y + rows] for y in range(0, H, rows)]
        for block in blocks:
            block = block.copy()
            if predictor == 2:
                block[:, 1:] -= block[:, :-1].copy()
            data = block.astype(order + kind)
            if predictor == 3:
                high_first = block.astype(">" + kind).view("u1").reshape(block.shape[0], -1, bytes_)
                planes_of = high_first.transpose(0, 2, 1).reshape(block.shape[0], -1, block.shape[2]).copy()
                planes_of[:, 1:] -= planes_of[:, :-1].copy()
                data = planes_of
            body = data.tobytes()
            if compression == 8:
                body = zlib.compress(body)
            elif compression == 32773:
                body = b"".join(bytes([len(body[i : i + 100]) - 1]) + body[i : i + 100] for i in range(0, len(body), 100))
            if reverse:
                body = bytes(int(f"{b:08b}"[::-1], 2) for b in body)
            pieces.append(body)
    places = [8 + sum(map(len, pieces[:i])) for i in range(len(pieces))]
    entries = [(258, 3, [bits] * count), (259, 3, [compression]), (262, 3, [photometric]), (277, 3, [count]), (284, 3, [planar]), (339, 3, [format] * count)]
    entries += [(317, 3, [predictor])] * (predictor > 1) + [(266, 3, [2])] * reverse
    if tile:
        entries += [(322, 3, [tile]), (323, 3, [tile]), (324, 4, places), (325, 4, [len(p) for p in pieces])]
    else:
        entries += [(278, 3, [rows]), (273, 4, places), (279, 4, [len(p) for p in pieces])]
    bare_tiff(name, entries + list(extra), b"".join(pieces), order)


deep = numbers.integers(0, 65536, (H, W, 4)).astype(np.uint16)
reals = (low16 / 2 - 20).astype(np.float32)[..., None]
for order, ends in (("<", ""), (">", "_big_endian")):
    packed_tiff(f"rgb16_predictor{ends}", deep[..., :3], 16, 2, order=order, predictor=2)
    packed_tiff(f"grey16_predictor{ends}", low16[..., None], 16, 1, order=order, predictor=2, tile=16)
packed_tiff("float_predictor", reals, 32, 1, format=3, predictor=3)
packed_tiff("int32_predictor", (low16.astype(np.int32) - 100)[..., None], 32, 1, format=2, predictor=2)
packed_tiff("rgb_tiled_predictor", array(3), 8, 2, predictor=2, tile=16)
packed_tiff("rgba_tiled_packbits", array(4), 8, 2, [(338, 3, [2])], compression=32773, tile=32)
packed_tiff("rgb_planar_deflate", array(3), 8, 2, planar=2, predictor=2)
packed_tiff("rgb16_planar_deflate", deep[..., :3], 16, 2, planar=2)
packed_tiff("cmyk_planar_tiled", array(4), 8, 5, planar=2, tile=16)
packed_tiff("rgb_reversed", array(3), 8, 2, compression=1, reverse=True)
packed_tiff("grey_reversed_deflate", array(1), 8, 1, reverse=True)
packed_tiff("rgba16_associated", deep, 16, 2, [(338, 3, [1])])
packed_tiff("rgbx16", deep, 16, 2, [(338, 3, [0])])
packed_tiff("cmyk16", deep, 16, 5)
packed_tiff("rgb_two_unknown", array(5), 8, 2, [(338, 3, [0, 0])])
packed_tiff("rgba_and_unknown", array(5), 8, 2, [(338, 3, [1, 0])])
packed_tiff("cmyk_and_unknown", array(5), 8, 5, [(338, 3, [0])])
packed_tiff("grey16_alpha", deep[..., :2], 16, 1, [(338, 3, [2])])
colours = [rng.randrange(65536) for _ in range(768)]
packed_tiff("palette_alpha", array(2), 8, 3, [(338, 3, [2]), (320, 3, colours)])
packed_tiff("palette_unknown", array(2), 8, 3, [(338, 3, [0]), (320, 3, colours)])
packed_tiff("uint32_big_endian", low16.astype(np.uint32)[..., None], 32, 1, order=">")
packed_tiff("float_big_endian_deflate", reals, 32, 1, format=3, order=">")
packed_tiff("raw_tiles", array(3), 8, 2, compression=1, tile=16)
twelve = [numbers.integers(0, 300, W + 1).tolist() for _ in range(H)]
body = b"".join(bytes(b for a, c in zip(r[::2], r[1::2]) for b in (a >> 4, (a & 15) << 4 | c >> 8, c & 255))[: (W * 12 + 7) // 8] for r in twelve)
bare("grey12", array(1)[..., 0], 12, 1, data=body)
for bits in (1, 2, 4):
    size = (W * bits + 7) // 8 * H
    bare(f"white{bits}", array(1)[..., 0], bits, 0, data=bytes(rng.randrange(256) for _ in range(size)))
    bare(f"grey{bits}_reversed", array(1)[..., 0], bits, 1, [(266, 3, [2])], data=bytes(rng.randrange(256) for _ in range(size)))
for name, image in [("ycbcr", rgb.convert("YCbCr")), ("cmyk", cmyk)]:
    tiff(f"{name}_jpeg", image, compression="jpeg")
for name, image in [("ycbcr", rgb.convert("YCbCr")), ("rgb", rgb), ("grey", grey)]:
    tiff(f"{name}_jpeg_strips", image, compression="jpeg", strip_size=8 * 3 * W, quality=60)
# Luma with fewer samples of colour, each strip a JPEG file of its own.
strips = [jpeg(image=rgb.crop((0, y, W, min(H, y + 16)))) for y in (0, 16)]
jpeg_entries = [(258, 3, [8] * 3), (259, 3, [7]), (262, 3, [6]), (277, 3, [3]), (278, 3, [16]), (530, 3, [2, 2])]
jpeg_entries += [(273, 4, [8, 8 + len(strips[0])]), (279, 4, [len(strip) for strip in strips])]
bare_tiff("ycbcr_jpeg_420", jpeg_entries, b"".join(strips))
for orientation in (5, 8):
    tiff(f"grey_orientation{orientation}", grey, tiffinfo={274: orientation})
tiff("rgb_zstd_strips", rgb, compression="zstd", strip_size=500)
tiff("rgb_zstd_predictor", rgb, compression="zstd", tiffinfo={317: 2})

# --- More PNM, PNG and BMP ---
put("pnm_float_big_endian.pfm", b"Pf %d %d 2.5\n" % (W, H) + (low16 / 2 - 20).astype(">f4").tobytes())
put("pnm_float_cut.pfm", b"Pf %d %d 2.5\n" % (W, H) + low16.astype(">f4").tobytes()[:-1])
put("pnm_max1.ppm", b"P6 %d %d 1\n" % (W, H) + (flat % 2).astype(np.uint8).tobytes())
put("pnm_max254.pgm", b"P5 %d %d 254\n" % (W, H) + (array(1).reshape(-1) % 255).astype(np.uint8).tobytes())
put("pnm_ascii_above_max.pgm", b"P2 2 2 100 1 2 3 101")
put("pnm_ascii_comments.pgm", b"P2 2#x\n #y\n2 1#z\n00 1 2# 7\n0 # 9\r3 4")
put("pnm_ascii_cut.pgm", b"P2 2 2 100 1 2 3")
put("png_few_rows_palette.png", png(3, 8, array(1)[:-3, :, 0] % 4, chunk(b"PLTE", bytes(range(12)))))
put("png_no_palette8.png", png(3, 8, array(1)[..., 0]))
put("png_more_rows_private.png", png(2, 8, list(colours_rows := array(3).reshape(H, -1)) + list(colours_rows), chunk(b"ABCD", b"x")))
bmp("rle4_short_rows", 4, 2, [bytes([rng.randrange(1, 30), rng.randrange(256), 0, 4, rng.randrange(256), rng.randrange(256), 0, 0]) for _ in range(H)] + [b"\0\1"], table=table[:64])
bmp("rle8_long_rows", 8, 1, [bytes([200, rng.randrange(256), 0, 0]) for _ in range(H)] + [b"\0\1"], table=table)
bmp("rle8_few_colours", 8, 1, full + [b"\0\1"], table=table[:40])
bmp("rle8_delta_inside", 8, 1, full[:5] + [b"\0\2\3\2"] + full[7:] + [b"\5\1\0\0\0\0"] * 3, table=table)

header, blob, refused = {}, b"", {}
for name in sorted(os.listdir(HERE)):
    if name.endswith((".py", ".safetensors", ".json")):
        continue
    try:
        # Opened as torchvision's loader does: by its path, Pillow maps uncompressed TIFF files of some modes into memory,
        # where it takes the rows of the orientations 5 to 8 for columns.
        with open(os.path.join(HERE, name), "rb") as file:
            image = Image.open(file).convert("RGB")
    except Exception as error:
        refused[name] = f"{type(error).__name__}: {error}".replace(HERE + "/", "")
        continue
    data = image.tobytes()
    header[name] = {"dtype": "U8", "shape": [image.height, image.width, 3], "data_offsets": [len(blob), len(blob) + len(data)]}
    blob += data
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
put("expected.safetensors", struct.pack("<Q", len(text)) + text + blob)
put("refused.json", (json.dumps(refused, indent=1) + "\n").encode())
print(len(header), "read,", len(refused), "refused")
