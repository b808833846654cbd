//! GELU and QuickGELU.

use crate::exp::exp;
use crate::vectorized;

/// Activation of the two-layer perceptron of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * Phi(x)`, Phi the normal distribution function.
    Gelu,
    /// `x * sigmoid(1.702 x)`, OpenAI's.
    QuickGelu,
}

impl Activation {
    /// `x` becomes `activation(x)`. The error is below 4e-7 of max(1, |x|).
    pub(crate) fn apply(self, x: &mut [f32]) {
        match self {
            Self::Gelu => vectorized(|| in_place(x, gelu)),
            Self::QuickGelu => vectorized(|| in_place(x, quick_gelu)),
        }
    }

    /// `out = activation(x)`, both of one length.
    pub(crate) fn map(self, x: &[f32], out: &mut [f32]) {
        match self {
            Self::Gelu => vectorized(|| each(x, out, gelu)),
            Self::QuickGelu => vectorized(|| each(x, out, quick_gelu)),
        }
    }

    /// `dy` becomes the gradient of the input `x`, given that of the output.
    pub(crate) fn backward(self, x: &[f32], dy: &mut [f32]) {
        match self {
            Self::Gelu => vectorized(|| scale_by(x, dy, gelu_slope)),
            Self::QuickGelu => vectorized(|| scale_by(x, dy, quick_gelu_slope)),
        }
    }
}

#[inline(always)]
fn each(x: &[f32], out: &mut [f32], activation: impl Fn(f32) -> f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = activation(*x);
    }
}

#[inline(always)]
fn scale_by(x: &[f32], dy: &mut [f32], slope: impl Fn(f32) -> f32) {
    for (d, x) in dy.iter_mut().zip(x) {
        *d *= slope(*x);
    }
}

#[inline(always)]
fn in_place(x: &mut [f32], activation: impl Fn(f32) -> f32) {
    for x in x {
        *x = activation(*x);
    }
}

#[inline(always)]
fn quick_gelu(x: f32) -> f32 {
    x / (1.0 + exp(-1.702 * x))
}

/// With s = sigmoid(1.702 x): `s + 1.702 x s (1 - s)`.
#[inline(always)]
fn quick_gelu_slope(x: f32) -> f32 {
    let s = 1.0 / (1.0 + exp(-1.702 * x));
    s + 1.702 * x * s * (1.0 - s)
}

/// `Phi(x) + x phi(x)`.
#[inline(always)]
fn gelu_slope(x: f32) -> f32 {
    const INVERSE_SQRT_2_PI: f32 = 0.398_942_3;
    phi(x) + x * INVERSE_SQRT_2_PI * exp(-0.5 * x * x)
}

#[inline(always)]
fn gelu(x: f32) -> f32 {
    // The multiplication keeps a NaN.
    x * phi(x)
}

/// The normal distribution function, with the error function of Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26 (error below 1.5e-7).
#[inline(always)]
fn phi(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let mut p = 1.061_405_4;
    p = p * t - 1.453_152;
    p = p * t + 1.421_413_7;
    p = p * t - 0.284_496_74;
    p = p * t + 0.254_829_6;
    // Half the tail that lies beyond |x|: Phi(-|x|).
    let tail = 0.5 * p * t * exp(-z * z);
    // The sign picks Phi(-|x|) or 1 - Phi(-|x|).
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Phi(x) in f64 by its Taylor series around 0 (|x| <= 6), far more terms than needed.
    fn normal_cdf(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for k in 1..200 {
            term *= -x * x / (2.0 * f64::from(k));
            sum += term / f64::from(2 * k + 1);
        }
        0.5 + sum / (2.0 * std::f64::consts::PI).sqrt()
    }

    fn worst(activation: Activation, limit: i32, exact: impl Fn(f64) -> f64) -> f64 {
        let mut worst = 0f64;
        for i in -limit * 1000..=limit * 1000 {
            let x = i as f32 / 1000.0;
            let mut found = [x];
            activation.apply(&mut found);
            let error = f64::from(found[0]) - exact(f64::from(x));
            worst = worst.max(error.abs() / f64::from(x.abs().max(1.0)));
        }
        worst
    }

    #[test]
    fn gelu_is_near_its_definition() {
        let error = worst(Activation::Gelu, 6, |x| x * normal_cdf(x));
        assert!(error < 4e-7, "error {error}");
    }

    #[test]
    fn quick_gelu_is_near_its_definition() {
        let error = worst(Activation::QuickGelu, 60, |x| {
            x / (1.0 + (-1.702 * x).exp())
        });
        assert!(error < 4e-7, "error {error}");
    }

    #[test]
    fn slopes_are_the_differences_of_the_functions() {
        let quick = |x: f64| x / (1.0 + (-1.702 * x).exp());
        let exact = |x: f64| x * normal_cdf(x);
        for i in -5000..=5000 {
            let x = i as f32 / 1000.0;
            for (activation, function) in [
                (Activation::Gelu, &exact as &dyn Fn(f64) -> f64),
                (Activation::QuickGelu, &quick),
            ] {
                let mut found = [2.0];
                activation.backward(&[x], &mut found);
                let (low, high) = (f64::from(x) - 1e-4, f64::from(x) + 1e-4);
                let expected = (function(high) - function(low)) / 1e-4;
                assert!(
                    (f64::from(found[0]) - expected).abs() < 2e-6,
                    "{activation:?} at {x}"
                );
            }
        }
    }

    #[test]
    fn large_arguments_are_kept_or_cut() {
        for activation in [Activation::Gelu, Activation::QuickGelu] {
            let mut x = [1e30, -1e3, 0.0, f32::NAN, f32::INFINITY];
            activation.apply(&mut x);
            assert_eq!(x[0], 1e30);
            assert!(x[1].abs() < 1e-30 && x[2] == 0.0);
            assert!(x[3].is_nan());
            assert_eq!(x[4], f32::INFINITY);
        }
    }

    #[test]
    fn every_instruction_set_rounds_the_same() {
        let x: Vec<f32> = (0..1003).map(|i| (i as f32 - 500.0) * 0.017).collect();
        for (activation, plain) in [
            (Activation::Gelu, gelu as fn(f32) -> f32),
            (Activation::QuickGelu, quick_gelu),
        ] {
            let mut found = x.clone();
            activation.apply(&mut found);
            let mut expected = x.clone();
            in_place(&mut expected, plain);
            assert_eq!(found, expected);
        }
    }
}
