"""Random values for the generators, with a reserved held-out part (standard library only).

`Gen(seed, split)`: every drawn value whose crc32 is 0 modulo 20 belongs to the test split; the training
generator rejects those and the test generator draws only those, so an evaluation value was never trained on.
"""
import base64
import functools
import pathlib
import random
import string
import zlib

FIRST = """Alice Bob Carol David Emma Frank Grace Henry Irene Jack Karen Leo Maria Nina Oscar Paul Quinn Rosa Sam Tina
Uma Victor Wendy Xavier Yara Zoe Anna Ben Clara Dan Eva Felix Gina Hugo Ivan Julia Kevin Laura Mark Nora Omar Peter
Rita Sara Tom Lucy Max Mia Noah Olivia Liam Ava Ethan Sophia Lucas Chloe Adam Ruby Ian Ella Yuki Chen Wei Priya Raj
Fatima Ahmed Olga Lars Ingrid Pedro Sofia Mateo Amara Kofi Zara Bruno Elena Dmitri Hana Kenji Mei Arjun Leila""".split()
LAST = """Smith Jones Brown Taylor Wilson Evans Moore Clark Lewis Walker Hall Young King Wright Green Baker Adams Nelson
Hill Campbell Mitchell Carter Turner Parker Collins Morris Cook Bell Reed Kelly Ward Price Wood Gray Long Ross Foster
Tanaka Kim Singh Silva Rossi Novak Weber Dubois Larsen Haddad Okafor Costa Ivanov""".split()
CITY = """Tokyo Paris London Berlin Madrid Rome Vienna Lisbon Dublin Oslo Stockholm Helsinki Warsaw Prague Budapest Athens
Moscow Cairo Nairobi Lagos Toronto Chicago Boston Seattle Denver Austin Houston Miami Dallas Atlanta Phoenix Beijing
Shanghai Shenzhen Seoul Osaka Kyoto Bangkok Hanoi Jakarta Manila Mumbai Delhi Sydney Melbourne Auckland Lima Bogota
Santiago Havana Zurich Geneva Munich Hamburg Milan Naples Barcelona Valencia Lyon Nice Brussels Amsterdam Copenhagen
Reykjavik Istanbul Dubai Doha Singapore Vancouver Montreal Portland Detroit Nashville Memphis Glasgow Leeds Bristol
Krakow Porto Seville Turin Lahore Karachi Dhaka Accra Tunis Perth Hobart Quito Caracas""".split()
CITY += ["New York", "San Francisco", "Los Angeles", "Hong Kong", "Cape Town", "Mexico City", "Buenos Aires", "Sao Paulo",
         "Rio de Janeiro", "Kuala Lumpur", "Tel Aviv", "San Diego", "Las Vegas", "New Delhi", "Ho Chi Minh City"]
COLOUR = "red blue green yellow orange purple pink black white brown grey teal violet crimson gold silver indigo".split()
FOOD = """pizza sushi pasta ramen tacos curry soup salad pancakes noodles dumplings lasagna burgers rice cheese chocolate
waffles falafel paella risotto""".split()
ANIMAL = "dog cat rabbit parrot hamster turtle horse fish snake goat".split()
NOUN = """apple river table window garden engine bottle market castle mirror pencil forest bridge lantern rocket island
basket hammer guitar planet candle ladder carpet dragon blanket camera ticket pillow shadow thunder valley village
kitchen summer winter silver stone paper cloud train flower school doctor letter number story light music water fire
report project meeting budget invoice printer server laptop phone keyboard screen office team client contract""".split()
VERB = "make find clean paint build check open close move start stop read write send plan test fix update review order".split()
ADJ = "small big old new quick quiet bright dark cold warm heavy soft sharp clean empty happy strange early late simple".split()
MONTH = "January February March April May June July August September October November December".split()
DAY = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

VOCABULARY = pathlib.Path(__file__).resolve().parents[2] / "models" / "kimi-nano" / "tiktoken.model"


@functools.cache
def pieces():
    """Every token of the vocabulary that is made of letters, in lower case and without its space."""
    tokens = (base64.b64decode(line.split()[0]).strip() for line in VOCABULARY.read_text().splitlines())
    return sorted({t.decode().lower() for t in tokens if t.isalpha()})


class Gen(random.Random):
    """Seeded random source whose named values respect the train/test split."""

    def __init__(self, seed, split="train"):
        super().__init__(f"{split}-{seed}")
        self.split = split

    def allowed(self, key):
        return (zlib.crc32(str(key).encode()) % 20 == 0) == (self.split == "test")

    def draw(self, make):
        """First value of make() on this side of the split."""
        for _ in range(400):
            value = make()
            if self.allowed(value):
                return value
        return value

    def one(self, *options):
        return self.choice(options)

    # ---- values
    def invented(self):
        """A made-up word such as Zorvik. Training also glues vocabulary pieces and letters, so that it copies anything."""
        def make():
            if self.split == "train" and self.random() < 0.35:
                return "".join(self.choice(pieces()) for _ in range(self.choice([1, 1, 2, 2, 3]))).capitalize()
            if self.split == "train" and self.random() < 0.3:
                return "".join(self.choice(string.ascii_lowercase) for _ in range(self.randint(3, 8))).capitalize()
            out = "".join(self.choice("b c d f g h j k l m n p q r s t v w x z br tr kl sh ch th st gr pl".split())
                          + self.choice("a e i o u ai ou ee".split()) for _ in range(self.randint(1, 3)))
            return (out + self.choice(["", "k", "n", "r", "x", "l", "s", "th", "m"])).capitalize()
        return self.draw(make)

    def word(self):
        return self.draw(lambda: self.choice(NOUN + ADJ + COLOUR + FOOD)) if self.random() < 0.5 else self.invented().lower()

    def first(self):
        return self.draw(lambda: self.choice(FIRST)) if self.random() < 0.55 else self.invented()

    def person(self):
        r = self.random()
        if r < 0.6:
            return self.first()
        return f"{self.first()} {self.choice(LAST) if self.random() < 0.6 else self.invented()}"

    def city(self):
        return self.draw(lambda: self.choice(CITY)) if self.random() < 0.7 else self.invented()

    def number(self, high=None):
        def make():
            if high:
                return self.randint(0, high)
            return self.randint(0, 10 ** self.randint(1, 5) - 1)
        return self.draw(make)

    def decimal(self):
        return self.draw(lambda: round(self.uniform(0, 10 ** self.randint(1, 3)), self.randint(1, 2)))

    def date(self):
        return self.draw(lambda: self.one(
            f"{self.randint(1990, 2030)}-{self.randint(1, 12):02}-{self.randint(1, 28):02}",
            f"{self.choice(MONTH)} {self.randint(1, 28)}", f"{self.randint(1, 28)} {self.choice(MONTH)}", self.choice(DAY)))

    def time(self):
        return self.draw(lambda: self.one(f"{self.randint(0, 23):02}:{self.randint(0, 59):02}", f"{self.randint(1, 12)} {self.one('am', 'pm')}",
                                          f"{self.randint(1, 12)}:{self.randint(10, 59)}"))

    def code(self):
        def make():
            kind = self.random()
            if kind < 0.4:
                return str(self.randint(1000, 999999))
            n = self.randint(4, 8)
            letters = string.ascii_uppercase if kind < 0.7 else string.ascii_letters
            return "".join(self.choice(letters + string.digits) for _ in range(n))
        return self.draw(make)

    def path(self):
        return self.draw(lambda: self.one("", "src/", "data/", "docs/", "/tmp/", "lib/") + self.one(self.choice(NOUN), self.invented().lower(), "main", "index")
                         + self.one(".py", ".txt", ".rs", ".json", ".md", ".csv", ".js"))

    def email(self):
        return self.draw(lambda: f"{self.first().lower()}@{self.one('example', 'mail', self.invented().lower())}.{self.one('com', 'org', 'net')}")

    def phrase(self, low=2, high=5):
        """Free text of a few words."""
        return self.draw(lambda: " ".join(self.choice(NOUN + ADJ + VERB) if self.random() < 0.75 else self.invented().lower()
                                          for _ in range(self.randint(low, high))))

    def sentence(self):
        """A random English-looking filler sentence."""
        n, v, a = lambda: self.choice(NOUN), lambda: self.choice(VERB), lambda: self.choice(ADJ)
        return self.one(
            lambda: f"The {a()} {n()} near the {n()} was {a()} and {a()}.", lambda: f"We had to {v()} the {n()} before the {n()} arrived.",
            lambda: f"{self.first()} said that the {n()} is {a()}.", lambda: f"Every {n()} needs a {a()} {n()}.",
            lambda: f"In {self.choice(MONTH)} they {v()} the {a()} {n()} with a {n()}.", lambda: f"It takes {self.randint(2, 90)} minutes to {v()} the {n()}.",
            lambda: f"There were {self.randint(2, 500)} of them, all {a()} and {a()}.", lambda: f"Please {v()} the {n()} when you see the {a()} {n()}.")()
