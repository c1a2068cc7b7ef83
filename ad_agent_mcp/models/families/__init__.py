"""Families of models as data: their networks, what their stages run, and what of a request has no effect on them."""
