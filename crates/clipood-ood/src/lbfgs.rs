//! L-BFGS: minimises a smooth function of many values (Nocedal and Wright, Numerical Optimization, algorithms 7.4 and 7.5).

use std::collections::VecDeque;

/// Steps that the curvature is estimated from.
const HISTORY: usize = 10;
/// Share of the predicted decrease that a step must bring.
const DECREASE: f64 = 1e-4;
/// Share of the slope that may be left after a step.
const CURVATURE: f64 = 0.9;
/// Step lengths that are tried before giving up.
const TRIALS: usize = 50;

/// Where the search ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Minimum {
    /// The point.
    pub point: Vec<f64>,
    /// Steps taken.
    pub steps: usize,
    /// Whether every component of the gradient is within the tolerance.
    pub converged: bool,
}

/// A step and how the gradient changed over it.
struct Pair {
    step: Vec<f64>,
    change: Vec<f64>,
    /// Their product, above 0.
    product: f64,
}

/// Follows `objective`, which returns the value at a point and fills in its gradient, from `point` until no component of
/// the gradient exceeds `tolerance`, for at most `max_steps` steps.
pub(crate) fn minimise(
    mut point: Vec<f64>,
    max_steps: usize,
    tolerance: f64,
    mut objective: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Minimum {
    let mut gradient = vec![0.0; point.len()];
    let mut value = objective(&point, &mut gradient);
    let mut pairs: VecDeque<Pair> = VecDeque::new();
    let mut steps = 0;
    let flat = |gradient: &[f64]| gradient.iter().all(|g| g.abs() <= tolerance);
    while steps < max_steps && !flat(&gradient) {
        let mut direction = newton_direction(&gradient, &pairs);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 {
            // Rounding has spoilt the estimate of the curvature: start it anew.
            pairs.clear();
            direction = gradient.iter().map(|g| -g).collect();
            slope = -dot(&gradient, &gradient);
        }
        let first = if pairs.is_empty() {
            (1.0 / (-slope).sqrt()).min(1.0)
        } else {
            1.0
        };
        let (mut length, mut low, mut high) = (first, 0.0, f64::INFINITY);
        let mut next = point.clone();
        let mut next_gradient = vec![0.0; point.len()];
        let mut next_value = value;
        let mut found = false;
        for _ in 0..TRIALS {
            for ((next, start), d) in next.iter_mut().zip(&point).zip(&direction) {
                *next = start + length * d;
            }
            next_value = objective(&next, &mut next_gradient);
            let low_enough = next_value <= value + DECREASE * length * slope;
            if !low_enough {
                high = length;
            } else if dot(&next_gradient, &direction) < CURVATURE * slope {
                low = length;
            } else {
                found = true;
                break;
            }
            length = if high.is_finite() {
                0.5 * (low + high)
            } else {
                2.0 * low
            };
        }
        if !found {
            // No step brings a decrease that the numbers can show.
            break;
        }
        let difference =
            |a: &[f64], b: &[f64]| -> Vec<f64> { a.iter().zip(b).map(|(a, b)| a - b).collect() };
        let step = difference(&next, &point);
        let change = difference(&next_gradient, &gradient);
        let product = dot(&step, &change);
        if product > 0.0 {
            pairs.push_back(Pair {
                step,
                change,
                product,
            });
            if pairs.len() > HISTORY {
                pairs.pop_front();
            }
        }
        (point, gradient, value) = (next, next_gradient, next_value);
        steps += 1;
    }
    let converged = flat(&gradient);
    Minimum {
        point,
        steps,
        converged,
    }
}

/// Minus the estimated inverse Hessian times the gradient, by two loops over the pairs.
fn newton_direction(gradient: &[f64], pairs: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut weights = Vec::with_capacity(pairs.len());
    for pair in pairs.iter().rev() {
        let weight = dot(&pair.step, &direction) / pair.product;
        add(&mut direction, -weight, &pair.change);
        weights.push(weight);
    }
    if let Some(last) = pairs.back() {
        let scale = last.product / dot(&last.change, &last.change);
        direction.iter_mut().for_each(|d| *d *= scale);
    }
    for (pair, weight) in pairs.iter().zip(weights.into_iter().rev()) {
        let other = dot(&pair.change, &direction) / pair.product;
        add(&mut direction, weight - other, &pair.step);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `target += factor * values`.
fn add(target: &mut [f64], factor: f64, values: &[f64]) {
    for (target, value) in target.iter_mut().zip(values) {
        *target += factor * value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A curved valley whose only minimum is at (1, 1).
    fn rosenbrock(point: &[f64], gradient: &mut [f64]) -> f64 {
        let (x, y) = (point[0], point[1]);
        let (a, b) = (1.0 - x, y - x * x);
        gradient[0] = -2.0 * a - 400.0 * x * b;
        gradient[1] = 200.0 * b;
        a * a + 100.0 * b * b
    }

    #[test]
    fn finds_the_end_of_a_curved_valley() {
        let minimum = minimise(vec![-1.2, 1.0], 200, 1e-8, rosenbrock);
        assert!(minimum.converged, "{minimum:?}");
        assert!((minimum.point[0] - 1.0).abs() < 1e-6, "{minimum:?}");
        assert!((minimum.point[1] - 1.0).abs() < 1e-6, "{minimum:?}");
        let stopped = minimise(vec![-1.2, 1.0], 3, 1e-8, rosenbrock);
        assert_eq!((stopped.steps, stopped.converged), (3, false));
    }

    #[test]
    fn stays_at_a_minimum() {
        let minimum = minimise(vec![1.0, 1.0], 10, 1e-8, rosenbrock);
        assert_eq!(minimum.steps, 0);
        assert!(minimum.converged);
    }
}
