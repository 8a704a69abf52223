"""Language models as one more kind of behaviour: needs the extra `prefrl[language]`.

Axes as in `prefrl.ppo.rollout`, and P tokens of a prompt, T tokens of a completion.
transformers is imported by the functions that need it, never on import.
"""
