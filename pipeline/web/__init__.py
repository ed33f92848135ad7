"""The chat page, served on this machine only."""

from pipeline.web.app import Page, application
from pipeline.web.server import listen, serve

__all__ = ["Page", "application", "listen", "serve"]
