"""Where people will compare clips: reads and writes the FeedbackStore, never the trainer.

Nothing is here yet; `prefrl train` asks synthetic raters.
"""
