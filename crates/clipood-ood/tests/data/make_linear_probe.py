"""Makes linear_probe.safetensors: scikit-learn's logistic regression on small arrays."""

import sys

import numpy as np
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(20261123)
arrays = {}
for name, classes, per_class, dim, c in [
    ("five", 5, 8, 12, 0.316),
    ("two", 2, 6, 4, 0.316),
    ("weak", 3, 4, 20, 10.0),
]:
    centres = rng.normal(size=(classes, dim))
    labels = np.repeat(np.arange(classes), per_class)
    features = (3.0 * (centres[labels] + rng.normal(size=(len(labels), dim)))).astype(np.float32)
    test = (3.0 * rng.normal(size=(7, dim))).astype(np.float32)
    # The same minimum as lbfgs finds, by a solver that gets nearer to it.
    model = LogisticRegression(C=c, solver="newton-cholesky", max_iter=1000, tol=1e-12)
    model.fit(features.astype(np.float64), labels)
    arrays[f"{name}.features"] = features
    arrays[f"{name}.labels"] = labels.astype(np.int64)
    arrays[f"{name}.test"] = test
    arrays[f"{name}.c"] = np.array([c])
    arrays[f"{name}.coefficients"] = model.coef_
    arrays[f"{name}.intercepts"] = model.intercept_
    arrays[f"{name}.probabilities"] = model.predict_proba(test.astype(np.float64))
# The file holds rows one after the other, whatever the order in memory.
save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, sys.argv[1])
