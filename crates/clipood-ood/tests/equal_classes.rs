//! Classes of the same text: of equal cosines the first is predicted, wherever the rows stand in a product.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use clipood_ood::{Matrix, predict};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_first_of_equal_classes_is_predicted(
        distinct in 1usize..20,
        copies in prop::collection::vec(0usize..20, 1..60),
        images in 1usize..40,
        dim in 1usize..70,
        step in 0.1f32..2.0,
    ) {
        // Row `i` of the text is a copy of row `of[i]` of the distinct ones.
        let of: Vec<usize> = (0..distinct).chain(copies.iter().map(|copy| copy % distinct)).collect();
        let value = |row: usize, column: usize| ((row * 31 + column * 7 + 1) as f32 * step).sin() + 0.01;
        let text: Vec<f32> = of
            .iter()
            .flat_map(|row| {
                let values: Vec<f32> = (0..dim).map(|column| value(*row, column)).collect();
                let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
                values.into_iter().map(move |v| v / length)
            })
            .collect();
        let global: Vec<f32> = (0..images * dim).map(|i| ((i * 13 + 5) as f32 * 0.37).cos() + 0.02).collect();
        let text = Matrix::new("text", &text, of.len(), dim).unwrap();
        let global = Matrix::new("images", &global, images, dim).unwrap();
        for prediction in predict(&text, &global).unwrap() {
            let class = prediction.class as usize;
            let first = of.iter().position(|row| *row == of[class]).unwrap();
            prop_assert_eq!(class, first);
        }
    }
}
