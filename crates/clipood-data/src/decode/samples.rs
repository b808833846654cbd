//! Decoded samples to RGB as Pillow's `convert("RGB")`: grey is repeated, alpha dropped. Samples of 16 bits keep their high
//! byte, except for grey without alpha (Pillow's mode `I;16`), whose values are clamped at 255.

/// The high byte of a big-endian sample.
pub fn high([high, _]: [u8; 2]) -> u8 {
    high
}

/// A big-endian sample, at most 255.
pub fn low(sample: [u8; 2]) -> u8 {
    u16::from_be_bytes(sample).min(255) as u8
}

/// The first three of `CHANNELS` samples of `BYTES` each.
pub fn first_three<const BYTES: usize, const CHANNELS: usize>(
    samples: &[u8],
    byte: impl Fn([u8; BYTES]) -> u8,
) -> Vec<u8> {
    let samples = samples.as_chunks::<BYTES>().0;
    let pixels = samples.as_chunks::<CHANNELS>().0.iter();
    let mut rgb = Vec::with_capacity(samples.len() / CHANNELS * 3);
    for pixel in pixels {
        rgb.extend([pixel[0], pixel[1], pixel[2]].map(&byte));
    }
    rgb
}

/// The first of `CHANNELS` samples of `BYTES` each, three times.
pub fn grey<const BYTES: usize, const CHANNELS: usize>(
    samples: &[u8],
    byte: impl Fn([u8; BYTES]) -> u8,
) -> Vec<u8> {
    let samples = samples.as_chunks::<BYTES>().0;
    let pixels = samples.as_chunks::<CHANNELS>().0.iter();
    let mut rgb = Vec::with_capacity(samples.len() / CHANNELS * 3);
    for pixel in pixels {
        rgb.extend([byte(pixel[0]); 3]);
    }
    rgb
}
