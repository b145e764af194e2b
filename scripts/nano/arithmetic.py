"""Column arithmetic written out in words the model can follow, and many ways to ask for it."""

OPS = {"+": ["+", "plus", "added to", "and"], "-": ["-", "−", "–", "minus"], "*": ["×", "*", "x", "·", "times", "multiplied by"]}


def pad(a, b):
    n = max(len(str(a)), len(str(b)))
    return str(a).zfill(n), str(b).zfill(n)


def add_steps(a, b):
    """345 + 78 -> '345+078: 5+8+0=13 4+7+1=12 3+0+1=4: 423'"""
    x, y = pad(a, b)
    carry, cols = 0, []
    for p, q in zip(reversed(x), reversed(y)):
        total = int(p) + int(q) + carry
        cols.append(f"{p}+{q}+{carry}={total}")
        carry = total // 10
    return f"{x}+{y}: {' '.join(cols)}: {a + b}"


def sub_steps(a, b):
    """a >= b: '500-123: 0-3-0=7b1 0-2-1=7b1 5-1-1=3b0: 377'"""
    x, y = pad(a, b)
    borrow, cols = 0, []
    for p, q in zip(reversed(x), reversed(y)):
        d = int(p) - int(q) - borrow
        nxt = int(d < 0)
        cols.append(f"{p}-{q}-{borrow}={d % 10}b{nxt}")
        borrow = nxt
    return f"{x}-{y}: {' '.join(cols)}: {a - b}"


def times_digit(a, d):
    """'17*3: 7*3=21+0=21 1*3=3+2=5: 51'"""
    carry, cols = 0, []
    for p in reversed(str(a)):
        prod = int(p) * d
        cols.append(f"{p}*{d}={prod}+{carry}={prod + carry}")
        carry = (prod + carry) // 10
    return f"{a}*{d}: {' '.join(cols)}: {a * d}"


def work(op, a, b):
    """-> working text, result."""
    if op == "+":
        return add_steps(a, b) + ".", a + b
    if op == "-":
        if a >= b:
            return sub_steps(a, b) + ".", a - b
        x, y = pad(a, b)
        return f"{x}-{y}<0. {sub_steps(b, a)}. So {a - b}.", a - b
    if b < 10 or a < 10:        # the operands are written first, so their lengths are plain to see
        return f"{a}*{b} = {times_digit(a, b) if b < 10 else times_digit(b, a)}.", a * b
    tens, units = divmod(b, 10)
    if units == 0:
        return f"{a}*{b}. {times_digit(a, tens)}. {a}*{b}={a * b}.", a * b
    return f"{a}*{b}. {times_digit(a, units)}. {times_digit(a, tens)}. {add_steps(a * units, a * tens * 10)}.", a * b


def operands(g, op):
    def make():
        if op == "*":
            r = g.random()
            if r < 0.65:
                a, b = g.randint(10, 99), g.randint(10, 99)
            else:
                a, b = g.randint(0, 99), g.randint(0, 12)
                if g.random() < 0.5:
                    a, b = b, a
            return f"{a}*{b}"
        hi = lambda: g.choice([9, 99, 99, 999, 999, 999, 999])
        return f"{g.randint(0, hi())}{op}{g.randint(0, hi())}"
    key = g.draw(make)
    a, b = key.split(op)
    return int(a), int(b)


def story(g, op, a, b):
    n, thing = g.first(), g.choice("apples coins books cards stones marbles eggs pens points euros".split())
    if op == "+":
        return g.one(f"{n} has {a} {thing} and gets {b} more. How many {thing} does {n} have now?", f"{n} buys {a} {thing} and then {b} more {thing}. How many in total?",
                     f"There are {a} {thing} in a box and {b} in another. How many {thing} are there?")
    if op == "-":
        return g.one(f"{n} has {a} {thing} and gives away {b}. How many are left?", f"There were {a} {thing} and {b} were taken. How many remain?",
                     f"{n} had {a} {thing} and lost {b} of them. How many {thing} are left?")
    return g.one(f"There are {a} boxes with {b} {thing} each. How many {thing} in total?", f"{n} has {a} bags with {b} {thing} in each. How many {thing} is that?",
                 f"One ticket costs {b} dollars. How much do {a} tickets cost?")


def question(g):
    """-> (user text, op, a, b)"""
    op = g.choice("++--***")
    a, b = operands(g, op)
    r = g.random()
    if r < 0.10 and not (op == "-" and a < b):
        return story(g, op, a, b), op, a, b
    if r < 0.25:
        name = {"+": "sum", "-": "difference", "*": "product"}[op]
        forms = {"+": [f"add {a} and {b}", f"Add {a} to {b}", f"add {b} to {a}", f"sum {a} and {b}"],
                 "-": [f"subtract {b} from {a}", f"Subtract {b} from {a}.", f"take {b} away from {a}", f"take {b} from {a}"],
                 "*": [f"multiply {a} by {b}", f"Multiply {a} and {b}.", f"multiply {a} with {b}"]}[op]
        return g.one(f"What is the {name} of {a} and {b}?", f"the {name} of {a} and {b}", f"Find the {name} of {a} and {b}.", *forms, *forms), op, a, b
    sym = g.choice(OPS[op][:-1] if op == "+" else OPS[op])
    if sym.isalpha() and sym != "x" or " " in sym:
        expr = f"{a} {sym} {b}"
    else:
        expr = g.one(f"{a} {sym} {b}", f"{a} {sym} {b}", f"{a}{sym}{b}")
    form = g.choice(["What is {e}?", "What is {e}?", "What is {e}", "what is {e}", "What's {e}?", "what's {e}?", "{e}", "{e}=", "{e} =", "{e} = ?", "{e}?", "Compute {e}.", "compute {e}",
                     "Calculate {e}.", "calculate {e}", "How much is {e}?", "how much is {e}", "Quick: what's {e}?", "Tell me {e}.", "Can you compute {e}?", "Please calculate {e}.",
                     "Solve {e}.", "Evaluate {e}", "I need to know what {e} is.", "What does {e} equal?", "What is the result of {e}?", "Work out {e}", "Hi! What is {e}?",
                     "Could you tell me what {e} is?", "Do the math: {e}", "Answer: {e}", "What is {e}? Answer with just the number.", "Give me the value of {e}."])
    return form.format(e=expr), op, a, b


def divide_by_nine(n):
    """200 -> '200/9: 2=0r2 20=2r2 20=2r2: 22.2' (one decimal, from the last remainder)."""
    rest, cols = 0, []
    for digit in str(n):
        now = rest * 10 + int(digit)
        cols.append(f"{now}={now // 9}r{now % 9}")
        rest = now % 9
    return f"{n}/9: {' '.join(cols)}: {tenths(round(n * 10 / 9))}"


def tenths(n):
    return f"{n // 10}.{n % 10}".removesuffix(".0")


def to_celsius(t):
    """(F - 32) * 5 / 9 in learned steps; the sign is settled in the plan and repeated at the end."""
    plan = f"{t} - 32" if t >= 32 else f"-(32 - {t})" if t >= 0 else f"-({-t} + 32)"
    first = add_steps(-t, 32) if t < 0 else sub_steps(32, t) if t < 32 else sub_steps(t, 32)
    d = abs(t - 32)
    return f"F to C: {plan}. {first}. {times_digit(d, 5)}. {divide_by_nine(d * 5)}. So {signed(t < 32, round(d * 50 / 9))}."


def to_fahrenheit(t):
    """C * 1.8 + 32 in tenths, C * 18 + 320, likewise."""
    n, below = abs(t) * 18, t < 0 and abs(t) * 18 > 320
    plan = f"{t}*18 + 320" if t >= 0 else f"-({-t}*18 - 320)" if below else f"320 - {-t}*18"
    last = add_steps(n, 320) if t >= 0 else sub_steps(n, 320) if below else sub_steps(320, n)
    return f"C to F: {plan}. {work('*', abs(t), 18)[0]} {last}. So {signed(below, abs(t * 18 + 320))}."


def signed(negative, n):
    """n tenths with its sign; zero has none."""
    return ("-" if negative and n else "") + tenths(n)


def fahrenheit(g):
    """-> (user text, working, answer text, value)"""
    to_c = g.random() < 0.6
    # a table is learned by heart: no held-out split
    t = g.randint(-20, 120)
    if t == 72 or g.random() < 0.06:
        t = 72 if to_c else 22
    src, dst, sf, df = ("F", "C", "Fahrenheit", "Celsius") if to_c else ("C", "F", "Celsius", "Fahrenheit")
    value = (t - 32) * 5 / 9 if to_c else t * 9 / 5 + 32
    shown = f"{value:.1f}".removesuffix(".0")
    shown = "0" if shown == "-0" else shown
    unit = g.one(f"°{src}", f" °{src}", f" {src}", f" degrees {sf}", f"{src}", f" {sf}")
    into = g.one(df, df.lower(), f"°{dst}", dst)
    q = g.one(f"What is {t}{unit} in {into}?", f"Convert {t}{unit} to {into}.", f"Convert {t}{unit} to {into}", f"{t}{unit} in {into}", f"{t}{unit} to {into}?", f"How much is {t}{unit} in {into}?",
              f"what's {t}{unit} in {into}?", f"What is {t}{unit} in degrees {df}?")
    formula = to_celsius(t) if to_c else to_fahrenheit(t)
    return q, formula, f"{t} °{src} is {shown} °{dst}.", shown
