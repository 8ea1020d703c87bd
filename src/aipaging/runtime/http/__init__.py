"""What every HTTP listener of the controller shares: requests, answers, routes, errors in one form.

A few hundred lines of ASGI instead of a framework: the page path and the look-ups are hot, and one table of routes
is also what the OpenAPI document is made of.
"""
