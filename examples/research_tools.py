"""The library of research_team.yaml."""

from perdure import tool

LIBRARY = {
    "oak": "Oaks live for 300 years and more; they fruit from about their 40th year on.",
    "bee": "A honey bee lives for about six weeks in summer.",
    "telegraph": "The first electric telegraph line in commercial use opened in 1838.",
}


@tool
async def look_up(word: str) -> str:
    """Look a word up in the library.

    Args:
        word: One word, such as `oak`.
    """
    found = next((text for key, text in LIBRARY.items() if key in word.lower()), None)
    return found or f"The library has nothing on {word!r}; it has: {', '.join(LIBRARY)}."
