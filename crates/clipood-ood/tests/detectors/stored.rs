//! Stored detectors: files written by earlier versions are read, score as they did, and are written in the same form.

use clipood_ood::{FitInputs, FittedDetector, LocalFeatures, Matrix, ScoreInputs, fit, score_all};

/// Detectors as the first version wrote them, one or more for each case of what can be learned, and the scores of
/// [`images`] with them.
const STORED: [(&str, [f32; 3]); 12] = [
    (
        r#"{"spec":"mcm:t=0.1","classes":2,"dim":2,"notes":[],"model":"None"}"#,
        [0.9887061, 0.9999985, 0.99877644],
    ),
    (
        r#"{"spec":"base=gl_mcm:t=0.1:weight=0.5","classes":2,"dim":2,"notes":[],"model":"None"}"#,
        [1.4885103, 1.4999977, 1.4987704],
    ),
    (
        r#"{"spec":"mahalanobis:covariance=ledoit_wolf","classes":2,"dim":2,"notes":[],"model":{"Mahalanobis":{"whitening":{"data":[10.268184,0.0,0.0,10.268184],"center":[0.46790975,0.5971475],"dim":2},"means":{"data":[5.174656,-3.997217,-5.174656,3.997217],"center":[],"dim":2}}}}"#,
        [-6.672309, -18.717726, -260.65753],
    ),
    (
        r#"{"spec":"relative_mahalanobis","classes":2,"dim":2,"notes":[],"model":{"RelativeMahalanobis":{"classes":{"whitening":{"data":[1.4124806,13.051011,8.664549,-0.937744],"center":[0.46790975,0.5971475],"dim":2},"means":{"data":[-4.3687005,4.73155,4.3687005,-4.73155],"center":[],"dim":2}},"background":{"data":[6.855078,9.023068,1.2335397,-0.93715477],"center":[0.46790975,0.5971475],"dim":2}}}}"#,
        [-6.975766, -0.3835406, -32.589447],
    ),
    (
        r#"{"spec":"knn:k=2","classes":2,"dim":2,"notes":[],"model":{"Knn":{"shots":{"data":[0.9950372,0.09950372,0.94868326,0.31622776,-0.19611613,0.9805807,0.12403474,0.9922779],"center":[],"dim":2},"k":2}}}"#,
        [-0.13102452, -0.3358994, -2.8078654],
    ),
    (
        r#"{"spec":"knn","classes":2,"dim":2,"notes":["k was lowered from 50 to 4, the number of shots"],"model":{"Knn":{"shots":{"data":[0.9950372,0.09950372,0.94868326,0.31622776,-0.19611613,0.9805807,0.12403474,0.9922779],"center":[],"dim":2},"k":4}}}"#,
        [-1.4737651, -2.7119906, -3.999082],
    ),
    (
        r#"{"spec":"vim:dim=1","classes":2,"dim":2,"notes":[],"model":{"Residual":{"complement":{"data":[0.7640594,-0.6451459],"center":[],"dim":2},"alpha":153.90720155495026}}}"#,
        [28.668228, -51.957027, -112.838135],
    ),
    (
        r#"{"spec":"residual:dim=1","classes":2,"dim":2,"notes":[],"model":{"Residual":{"complement":{"data":[0.7640594,-0.6451459],"center":[],"dim":2},"alpha":null}}}"#,
        [-0.3948775, -0.9187338, -0.5464549],
    ),
    (
        r#"{"spec":"one_class_svm","classes":2,"dim":2,"notes":[],"model":{"OneClassSvm":{"support":{"data":[0.9950372,0.09950372,-0.19611613,0.9805807],"center":[],"dim":2},"alphas":[0.2,0.2],"rho":0.22226853072643282,"gamma":1.0}}}"#,
        [-0.001017009, -0.022596933, -0.19603695],
    ),
    (
        r#"{"spec":"neglabel:groups=2:shuffle=7","classes":2,"dim":2,"notes":["1 of 3 negative texts were dropped to make 2 equal groups"],"model":{"NegativeLabels":{"negatives":{"data":[-0.9805807,0.19611613,-0.70710677,-0.70710677,0.28734788,-0.95782626],"center":[],"dim":2},"order":[2,1],"size":1,"scale":100.0,"unknown":false,"log_odds":false}}}"#,
        [1.0, 1.0, 1.6580972e-13],
    ),
    (
        r#"{"spec":"unknown_prompt:count=2:space=log_odds","classes":2,"dim":2,"notes":[],"model":{"NegativeLabels":{"negatives":{"data":[-0.9805807,0.19611613,-0.70710677,-0.70710677,0.28734788,-0.95782626],"center":[],"dim":2},"order":[0,1],"size":2,"scale":100.0,"unknown":true,"log_odds":true}}}"#,
        [168.37794, 28.048658, -117.602295],
    ),
    (
        r#"{"spec":"dpm_neg_min_kl","classes":2,"dim":2,"notes":[],"model":{"MinKl":{"patterns":{"data":[0.9990412,0.0009587945,0.00008863304,0.99991137],"center":[],"dim":2},"neg_entropies":[-0.007621797126256836,-0.0009156644816602724],"t":0.1}}}"#,
        [-0.008024304, -0.00027493868, -0.0009028817],
    ),
];

const TEXT: [f32; 4] = [1.0, 0.0, 0.0, 1.0];
const TRAIN: [f32; 8] = [1.0, 0.1, 0.9, 0.3, -0.2, 1.0, 0.1, 0.8];
const NEGATIVE: [f32; 6] = [-1.0, 0.2, -0.5, -0.5, 0.3, -1.0];
const IMAGES: [f32; 6] = [2.0, 1.0, -0.5, 1.0, -1.0, -0.3];
const PATCHES: [f32; 12] = [
    1.0, 0.2, 0.3, 0.9, -1.0, 0.5, 0.4, 0.4, 0.1, -0.7, -0.3, -0.9,
];

fn inputs() -> FitInputs<'static> {
    FitInputs {
        text: Matrix::new("text", &TEXT, 2, 2).unwrap(),
        negative_text: Some(Matrix::new("negative_text", &NEGATIVE, 3, 2).unwrap()),
        train: Some(Matrix::new("train", &TRAIN, 4, 2).unwrap()),
        train_labels: Some(&[0, 0, 1, 1]),
        classifiers: &[],
    }
}

fn images() -> ScoreInputs<'static> {
    ScoreInputs {
        global: Matrix::new("images", &IMAGES, 3, 2).unwrap(),
        local: Some(LocalFeatures::new("local", &PATCHES, 3, 2, 2).unwrap()),
    }
}

fn close(found: &[f32], expected: &[f32]) -> bool {
    found.len() == expected.len()
        && found
            .iter()
            .zip(expected)
            .all(|(f, e)| (f - e).abs() <= 2e-5 * e.abs().max(1e-3))
}

#[test]
fn what_earlier_versions_stored_is_read_and_written_alike() {
    for (stored, expected) in STORED {
        let detector: FittedDetector = serde_json::from_str(stored).unwrap();
        assert_eq!(serde_json::to_string(&detector).unwrap(), stored);
        let text = inputs().text;
        let scores = score_all(std::slice::from_ref(&detector), &text, &images()).unwrap();
        assert!(
            close(&scores.columns[0], &expected),
            "{}: {:?}, expected {expected:?}",
            detector.name(),
            scores.columns[0]
        );
        // Fitting again learns the same: the numbers above are not of some other detector.
        let again = fit(detector.spec(), &inputs()).unwrap();
        assert_eq!(again.notes(), detector.notes());
        let scores = score_all(&[again], &text, &images()).unwrap();
        assert!(close(&scores.columns[0], &expected), "{}", detector.name());
    }
}

#[test]
fn the_order_of_the_fields_does_not_matter() {
    let detector: FittedDetector = serde_json::from_str(STORED[4].0).unwrap();
    let sorted = serde_json::to_string(&serde_json::to_value(&detector).unwrap()).unwrap();
    assert!(sorted.find("model") < sorted.find("spec"));
    let read: FittedDetector = serde_json::from_str(&sorted).unwrap();
    assert_eq!(read, detector);
}

#[test]
fn a_model_of_another_detector_is_refused() {
    let specs = STORED.map(|(stored, _)| {
        let detector: FittedDetector = serde_json::from_str(stored).unwrap();
        detector.spec().to_string()
    });
    for (i, (stored, _)) in STORED.iter().enumerate() {
        for (j, other) in specs.iter().enumerate() {
            let kind = |spec: &str| {
                let spec: clipood_ood::DetectorSpec = spec.parse().unwrap();
                spec.info().kind
            };
            let unfitted = |spec: &str| {
                let spec: clipood_ood::DetectorSpec = spec.parse().unwrap();
                !spec.needs().is_fitted()
            };
            let (own, other) = (specs[i].as_str(), other.as_str());
            if i == j || kind(own) == kind(other) || (unfitted(own) && unfitted(other)) {
                continue;
            }
            let swapped = stored.replace(
                &format!("\"spec\":\"{own}\""),
                &format!("\"spec\":\"{other}\""),
            );
            assert_ne!(&swapped, stored);
            let detector: FittedDetector = serde_json::from_str(&swapped).unwrap();
            let error = score_all(&[detector], &inputs().text, &images()).unwrap_err();
            assert!(error.to_string().contains("do not fit together"), "{error}");
        }
    }
}
