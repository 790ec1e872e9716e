"""Greetings: Grüße, 挨拶, приветы 👋"""

GREETINGS = {
    "de": "Grüß Gott",
    "el": "Γειά σου",
    "ja": "こんにちは",
    "ru": "Здравствуйте",
}


def greet(language: str, name: str) -> str:
    return f"{GREETINGS.get(language, 'Hello')}, {name}! 👋"
