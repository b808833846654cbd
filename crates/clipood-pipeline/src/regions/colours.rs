//! Colours of heat maps: from a dark violet over blue and green to a light yellow, in equal steps of perception. They lie on a
//! curve of constant chroma in OKLab (Ottosson, "A perceptual color space for image processing", 2020) on which lightness and
//! hue grow evenly, so that equal differences of a value look equally large, in grey as well.

/// Lightness of the first and of the last colour, 0 to 1.
const LIGHTNESS: (f64, f64) = (0.25, 0.92);
/// Hue of the first and of the last colour in degrees.
const HUE: (f64, f64) = (290.0, 105.0);
/// Distance from grey. No larger one leaves all colours within sRGB.
const CHROMA: f64 = 0.09;

/// The colour of `t`, 0 to 1, as sRGB.
pub fn colour(t: f64) -> [u8; 3] {
    linear(oklab(t)).map(|value| (255.0 * gamma(value)).round() as u8)
}

fn oklab(t: f64) -> [f64; 3] {
    let t = t.clamp(0.0, 1.0);
    let between = |(from, to): (f64, f64)| from + (to - from) * t;
    let (sin, cos) = between(HUE).to_radians().sin_cos();
    [between(LIGHTNESS), CHROMA * cos, CHROMA * sin]
}

/// OKLab to linear sRGB, by the matrices of the paper.
fn linear([lightness, a, b]: [f64; 3]) -> [f64; 3] {
    let long = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let medium = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let short = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    [
        4.076_741_662_1 * long - 3.307_711_591_3 * medium + 0.230_969_929_2 * short,
        -1.268_438_004_6 * long + 2.609_757_401_1 * medium - 0.341_319_396_5 * short,
        -0.004_196_086_3 * long - 0.703_418_614_7 * medium + 1.707_614_701 * short,
    ]
}

/// The transfer function of sRGB.
fn gamma(value: f64) -> f64 {
    match value.clamp(0.0, 1.0) {
        small if small <= 0.003_130_8 => 12.92 * small,
        value => 1.055 * value.powf(1.0 / 2.4) - 0.055,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// sRGB to OKLab, by the inverse matrices of the paper.
    fn perceived(rgb: [u8; 3]) -> [f64; 3] {
        let [r, g, b] = rgb.map(|byte| {
            let value = f64::from(byte) / 255.0;
            match value <= 0.040_45 {
                true => value / 12.92,
                false => ((value + 0.055) / 1.055).powf(2.4),
            }
        });
        let long = (0.412_221_470_8 * r + 0.536_332_536_3 * g + 0.051_445_992_9 * b).cbrt();
        let medium = (0.211_903_498_2 * r + 0.680_699_545_1 * g + 0.107_396_956_6 * b).cbrt();
        let short = (0.088_302_461_9 * r + 0.281_718_837_6 * g + 0.629_978_700_5 * b).cbrt();
        [
            0.210_454_255_3 * long + 0.793_617_785 * medium - 0.004_072_046_8 * short,
            1.977_998_495_1 * long - 2.428_592_205 * medium + 0.450_593_709_9 * short,
            0.025_904_037_1 * long + 0.782_771_766_2 * medium - 0.808_675_766 * short,
        ]
    }

    #[test]
    fn equal_steps_look_equal() {
        const STEPS: usize = 32;
        let colours: Vec<[f64; 3]> = (0..=STEPS)
            .map(|step| perceived(colour(step as f64 / STEPS as f64)))
            .collect();
        let steps: Vec<f64> = colours
            .windows(2)
            .map(|pair| {
                let squares = pair[0].iter().zip(&pair[1]).map(|(a, b)| (a - b).powi(2));
                squares.sum::<f64>().sqrt()
            })
            .collect();
        let mean = steps.iter().sum::<f64>() / STEPS as f64;
        for (step, found) in steps.iter().enumerate() {
            // Bytes round.
            assert!(
                (found / mean - 1.0).abs() < 0.2,
                "step {step}: {found} of {mean}"
            );
        }
        // In grey, too, larger is lighter.
        assert!(colours.windows(2).all(|pair| pair[1][0] > pair[0][0]));
    }

    #[test]
    fn all_colours_are_within_srgb() {
        for step in 0..=1000 {
            let values = linear(oklab(f64::from(step) / 1000.0));
            assert!(
                values.iter().all(|v| (-1e-4..=1.0001).contains(v)),
                "{step}"
            );
        }
        assert_eq!(colour(-3.0), colour(0.0));
        assert_eq!(colour(7.0), colour(1.0));
    }
}
