"""A busy machine must not fail a property by its speed."""

from hypothesis import settings

settings.register_profile("pipe", deadline=None)
settings.load_profile("pipe")
