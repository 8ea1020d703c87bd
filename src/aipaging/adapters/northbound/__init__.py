"""The public interface over HTTP: what clients and operators ask, in the style of CAMARA Commonalities.

`app.northbound_app` is the factory; `credentials` says who may ask, `documents` what is said, `openapi` describes it.
"""
