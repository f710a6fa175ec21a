"""Small real training runs to tune, on data that every machine has.

* `corpus`: the source of Python's standard library, as bytes
* `language_model`: a byte-level transformer on it, with params and tokens as scales
* `digits`: a perceptron and a residual network on scikit-learn's images of digits
* `tabular`: a perceptron on scikit-learn's small tables

Nothing is imported here, so that torch is loaded only by the module that needs it.
"""
