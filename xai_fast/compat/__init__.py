"""Other libraries' interfaces over our engine: arguments and results are translated here, nothing is computed.

`xai_fast.accelerate` puts what stands here into the libraries' own classes; `xai_fast.compat.captum` also offers it as
subclasses of them. A call that is not covered runs the library's own code, and `accelerate.report()` says why.
"""
