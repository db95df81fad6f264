"""What a user of the degradations may meet and want to catch."""


class RecipeError(ValueError):
    """A recipe or trace that cannot be used; the message says what, where, and the mend."""
