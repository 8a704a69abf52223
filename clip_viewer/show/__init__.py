"""The window: pygame draws the views and hears the keys."""
