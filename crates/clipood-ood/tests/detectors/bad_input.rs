//! Input that cannot be used is refused by name, and fallbacks are noted.

use crate::bundle::Bundle;
use clipood_ood::{
    Classifier, DetectorSpec, FitInputs, LocalFeatures, Matrix, OodError, ScoreInputs, fit,
    registry, score_all,
};

/// Fits `spec` after `change` and returns the error's text.
fn failure<'a>(bundle: &'a Bundle, spec: &str, change: impl Fn(&mut FitInputs<'a>)) -> String {
    let mut inputs = bundle.fit_inputs();
    change(&mut inputs);
    let spec: DetectorSpec = spec.parse().unwrap();
    fit(&spec, &inputs).unwrap_err().to_string()
}

#[test]
fn bad_input_is_named() {
    let bundle = Bundle::read();
    let one_class = Matrix::new("text", &bundle.matrix("text").data()[..64], 1, 64).unwrap();
    let texts = [Classifier::Texts(bundle.matrix("text"))];
    for info in registry().iter().filter(|info| !info.needs.stream) {
        let spec = if info.parameters.iter().any(|p| p.key == "dim") {
            format!("{}:dim=8", info.kind)
        } else {
            info.kind.to_owned()
        };
        // Whatever a kind says it is fitted on, it misses when that is not there.
        for (array, remove) in [
            ("train", (|i| i.train = None) as fn(&mut FitInputs<'_>)),
            ("train_labels", |i| i.train_labels = None),
            ("negative_text", |i| i.negative_text = None),
        ] {
            let needed = info
                .fitted_on()
                .split([',', ';'])
                .any(|word| word.trim() == array);
            let mut inputs = bundle.fit_inputs();
            inputs.classifiers = &texts;
            remove(&mut inputs);
            match fit(&spec.parse().unwrap(), &inputs) {
                Ok(_) => assert!(!needed, "{spec} without {array}"),
                Err(error) => {
                    assert!(needed, "{spec} without {array}: {error}");
                    assert!(error.to_string().contains(array), "{error}");
                }
            }
        }
    }
    for spec in [
        "mcm",
        "l_mcm",
        "gl_mcm",
        "msp",
        "neg_entropy",
        "gen",
        "dpm_neg_min_kl",
    ] {
        let message = failure(&bundle, spec, |i| {
            i.text = one_class;
        });
        assert!(message.contains("at least 2"), "{message}");
    }
    let message = failure(&bundle, "vim:dim=64", |_| ());
    assert!(message.contains("must be below 64"), "{message}");
    let message = failure(&bundle, "neglabel:groups=25", |_| ());
    assert!(message.contains("25 groups of 24"), "{message}");
    let message = failure(&bundle, "unknown_prompt:count=25", |_| ());
    assert!(message.contains("above the 24"), "{message}");
    let message = failure(&bundle, "mahalanobis", |i| i.train_labels = Some(&[0; 127]));
    assert!(message.contains("expected 128"), "{message}");
    let message = failure(&bundle, "mahalanobis", |i| i.train_labels = Some(&[8; 128]));
    assert!(message.contains("row 0 has class 8"), "{message}");
    let narrow = Matrix::new("train", &[1.0; 8], 4, 2).unwrap();
    let message = failure(&bundle, "knn", |i| i.train = Some(narrow));
    assert!(
        message.contains("expected 64 (as in text) columns, found 2"),
        "{message}"
    );
    let empty = Matrix::new("train", &[], 0, 64).unwrap();
    let message = failure(&bundle, "knn", |i| i.train = Some(empty));
    assert!(message.contains("at least 1 rows, found 0"), "{message}");
    let zeros = Matrix::new("train", &[0.0; 128], 2, 64).unwrap();
    let message = failure(&bundle, "knn", |i| i.train = Some(zeros));
    assert!(message.contains("row 0 is all zeros"), "{message}");

    let nan = Matrix::new("id", &[0.0, 1.0, f32::NAN, 0.0], 2, 2).unwrap_err();
    assert_eq!(
        nan.to_string(),
        "id: row 1, column 0 is NaN, expected a finite number"
    );
    assert!(Matrix::new("id", &[1.0; 3], 2, 2).is_err());
    assert!(Matrix::new("id", &[], usize::MAX, 2).is_err());
    assert!(LocalFeatures::new("local", &[1.0; 8], 2, 2, 2).is_ok());
    assert!(LocalFeatures::new("local", &[1.0; 8], 2, 3, 2).is_err());

    let global = ScoreInputs {
        global: bundle.matrix("id"),
        local: None,
    };
    let error = score_all(&[bundle.fit("l_mcm")], &bundle.matrix("text"), &global).unwrap_err();
    assert!(matches!(
        error,
        OodError::Missing {
            missing: "local features",
            ..
        }
    ));
    let error = score_all(&[bundle.fit("mcm")], &one_class, &global).unwrap_err();
    assert!(error.to_string().contains("was fitted with text of 8 x 64"));
}

#[test]
fn fallbacks_are_noted() {
    let bundle = Bundle::read();
    let inputs = bundle.fit_inputs();
    assert!(bundle.fit("mahalanobis").notes().is_empty());
    let few = Matrix::new("train", &bundle.matrix("train").data()[..16 * 64], 16, 64).unwrap();
    let inputs = FitInputs {
        train: Some(few),
        train_labels: Some(&bundle.train_labels[..16]),
        ..inputs
    };
    let knn = fit(&"knn".parse().unwrap(), &inputs).unwrap();
    assert_eq!(
        knn.notes(),
        ["k was lowered from 50 to 16, the number of shots"]
    );
    let labels: Vec<u32> = (0..16).map(|i| i % 4).collect();
    let inputs = FitInputs {
        train_labels: Some(&labels),
        ..inputs
    };
    let mahalanobis = fit(&"mahalanobis".parse().unwrap(), &inputs).unwrap();
    assert_eq!(
        mahalanobis.notes(),
        [
            "4 of 8 classes have no shots and no mean",
            "the within-class covariance has rank 12 of 64; its pseudo-inverse ignores the rest",
        ]
    );
    assert!(bundle.fit("neglabel:groups=5").notes()[0].starts_with("4 of 24 negative texts"));
    // One shot a class: no spread inside classes at all.
    let labels: Vec<u32> = (0..8).collect();
    let one = Matrix::new("train", &bundle.matrix("train").data()[..8 * 64], 8, 64).unwrap();
    let inputs = FitInputs {
        train: Some(one),
        train_labels: Some(&labels),
        ..inputs
    };
    let error = fit(&"mahalanobis".parse().unwrap(), &inputs).unwrap_err();
    assert!(error.to_string().contains("two different shots"), "{error}");
}

#[test]
fn listings_name_what_a_kind_is_fitted_on() {
    for (kind, expected) in [
        ("mcm", "nothing"),
        ("l_mcm", "nothing; scores local features"),
        ("gl_mcm", "nothing; scores local features"),
        ("energy", "nothing"),
        ("mahalanobis", "train, train_labels"),
        ("relative_mahalanobis", "train, train_labels"),
        ("dpm_neg_min_kl", "train, train_labels"),
        ("knn", "train"),
        ("vim", "train"),
        ("residual", "train"),
        ("one_class_svm", "train"),
        ("neglabel", "negative_text"),
        ("unknown_prompt", "negative_text"),
    ] {
        let spec: DetectorSpec = kind.parse().unwrap();
        assert_eq!(spec.info().fitted_on(), expected, "{kind}");
    }
    for info in registry() {
        let nothing = info.fitted_on().starts_with("nothing");
        assert_eq!(info.needs.is_fitted(), !nothing, "{}", info.kind);
    }
}
