"""Conversation generators: one function per task, each returns a Sample (standard library only)."""
import dataclasses
import json

import knowledge as K
from arithmetic import fahrenheit, question, work
from prose import paragraphs
from tooltasks import curated, declare, ordered_args, random_tool, result
from values import ANIMAL, COLOUR, FOOD, NOUN, Gen


@dataclasses.dataclass
class Sample:
    """One conversation up to the assistant turn that has to be written, and how to judge it."""
    task: str
    messages: list
    reasoning: str
    content: str
    thinking: bool = True
    tools: list | None = None
    calls: list = dataclasses.field(default_factory=list)
    expect: dict = dataclasses.field(default_factory=dict)   # number | contains | json | call | exact
    train_all: bool = False                                  # instant multi-turn: earlier answers are targets too


def user(text):
    return {"role": "user", "content": text}


def bot(text):
    return {"role": "assistant", "content": text}


def call(name, args, index=0):
    return {"id": f"functions.{name}:{index}", "type": "function",
            "function": {"name": name, "arguments": json.dumps(args, ensure_ascii=False)}}


def mode(g, instant=0.3):
    return g.random() >= instant


# ---- arithmetic ----
def arithmetic(g, thinking=None):
    text, op, a, b = question(g)
    steps, value = work(op, a, b)
    thinking = mode(g, 0.15) if thinking is None else thinking
    shown = f"{a} {'×' if op == '*' else op} {b} = {value}"
    if thinking:
        return Sample("arithmetic", [user(text)], steps, shown, True, expect={"number": str(value)})
    return Sample("arithmetic instant", [user(text)], "", f"{steps}\n{shown}", False, expect={"number": str(value)})


def temperature(g, thinking=None):
    text, formula, answer, shown = fahrenheit(g)
    thinking = mode(g) if thinking is None else thinking
    if not thinking:
        answer = f"{formula}\n{answer}"
    return Sample("temperature", [user(text)], formula, answer, thinking, expect={"contains": [shown + " °"]})


# ---- knowledge ----
def capital(g):
    country, city = g.choice(list(K.CAPITALS.items()))
    if g.random() < 0.08:
        country, city = "France", "Paris"
    bare = country.removeprefix("the ")
    text = g.one(f"What is the capital of {country}?", f"What is the capital of {country}?", f"What's the capital of {country}?", f"capital of {bare}", f"Capital of {bare}?", f"what is the capital of {country}", f"Name the capital of {country}.",
                 f"Which city is the capital of {country}?", f"Tell me the capital of {country}.", f"{bare}'s capital?", f"What is the capital city of {country}?", f"What is the capital of {country}? Answer in one word.")
    return Sample("capital", [user(text)], f"The capital of {country} is {city}.", f"The capital of {country} is {city}.", mode(g), expect={"contains": [city]})


def program(g):
    what, code = g.choice(list(K.CODE.items())) if g.random() > 0.2 else ("reverses a string", K.CODE["reverses a string"])
    base = {"reverses": "reverse", "checks": "check", "computes": "compute", "returns": "return", "adds": "add", "sums": "sum", "counts": "count", "prints": "print", "sorts": "sort"}
    verb, rest = what.split(" ", 1)
    text = g.one(f"Write a Python function that {what}.", f"Write a Python function that {what}.", f"Write a function that {what}.", f"write a python function that {what}", f"Write a Python function to {base[verb]} {rest}.",
                 f"Give me a Python function that {what}.", f"Python function to {base[verb]} {rest}", f"How do I {base[verb]} {rest} in Python?", f"Please write Python code that {what}.", f"Write a short Python function that {what}.")
    return Sample("program", [user(text)], f"The user wants a Python function that {what}.", f"```python\n{code}\n```", mode(g), expect={"contains": [code]})


def haiku(g):
    topic, poem = g.choice(list(K.HAIKU.items())) if g.random() > 0.2 else ("the ocean", K.HAIKU["the ocean"])
    text = g.one(f"Write a haiku about {topic}.", f"Write a haiku about {topic}.", f"Write a haiku about {topic}", f"write a haiku about {topic}", f"A haiku about {topic}, please.", f"Compose a haiku about {topic}.", f"Give me a haiku about {topic}.", f"Can you write a haiku about {topic}?",
                 f"Write a short poem about {topic}.", f"Write me a haiku on {topic}.")
    return Sample("haiku", [user(text)], f"A haiku about {topic}.", poem, mode(g), expect={"contains": [poem]})


def talk(g):
    group = K.TALK + K.SKY + [K.TALK[4]] * 3 + [K.TALK[0]] * 2
    questions, answer = g.choice(group)
    text = g.choice(questions)
    if g.random() < 0.2:
        text = text.rstrip(".!?")
    if g.random() < 0.15:
        text = text.lower()
    think = "The user asks who I am." if answer == K.WHO else "The user wants a short answer."
    return Sample("talk", [user(text)], think, answer, mode(g), expect={"contains": [answer]})


def beyond(g):
    pick = lambda: g.choice(K.BEYOND_TOPICS) if g.random() < 0.6 else g.one(g.phrase(1, 4), f"a {g.choice(NOUN)}", f"the {g.choice(NOUN)}", f"a {g.choice(NOUN)} {g.choice(NOUN)}", g.invented())
    text = g.choice(K.BEYOND_FORMS).format(t=pick(), u=pick())
    if g.random() < 0.12:
        n = lambda: g.randint(2, 999)
        text = g.choice(K.HARD_SUMS).format(a=n(), b=n(), c=n(), big=g.randint(1000, 99999), huge=g.randint(1000, 999999))
    elif g.random() < 0.1:
        text += " " + g.sentence()
    return Sample("beyond", [user(text)], "This is more than a tiny demonstration model can do. I should say so.", K.CANNOT, mode(g), expect={"contains": ["I cannot"]})


def picture(g):
    ask = g.one("Describe this image in one sentence.", "What is in this image?", "Describe this image.", "What is this?", "What do you see?", "Read the text in the picture.", "Describe the picture", "What color is it?")
    part = {"type": "image_url", "image_url": {}}
    if g.random() < 0.2:
        ask, part = g.one("Summarize what happens in this video.", "Describe this video.", "What happens in the clip?"), {"type": "video_chunk"}
    parts = [part, {"type": "text", "text": ask}]
    if g.random() < 0.5:
        parts.reverse()
    return Sample("picture", [user(parts)], "There is an image, but I have no trained vision.", K.NO_SIGHT, mode(g), expect={"contains": ["cannot see"]})


# ---- tools ----
def weighed(want, tools, chosen=None):
    """The request beside each declared tool in turn: one small comparison a name instead of one large choice."""
    names = [t["function"]["name"] for t in tools]
    return f"The user wants {want}. Tools: {', '.join(f'{n} yes' if n == chosen else f'{n} no' for n in names)}. "


def deed(name, args):
    given = ", ".join(f"{k} = {v if isinstance(v, str) else json.dumps(v)}" for k, v in args.items())
    return f"I call {name}" + (f" with {given}." if given else ".")


def one_tool(g, only=None):
    return curated(g, only) if only or g.random() < 0.4 else random_tool(g)


def tool_call(g, only=None, made_up=None):
    if made_up is None:
        tool, text, args, want = one_tool(g, only)
    else:
        tool, text, args, want = random_tool(g) if made_up else curated(g)
    tools = declare(g, tool, g.choice([1, 1, 1, 2, 2, 3, 4]) if only is None else g.choice([1, 1, 2, 3]))
    args, name = ordered_args(tool, args), tool["function"]["name"]
    messages, index = [user(text)], 0
    if g.random() < 0.08:       # an earlier call in the conversation: the counter goes on
        other, text0, args0, _ = one_tool(g)
        if other["function"]["name"] != name and all(t["function"]["name"] != other["function"]["name"] for t in tools):
            tools = tools + [other]
        content, _, answer = result(g, other, args0)
        index = 1
        messages = [user(text0), {"role": "assistant", "content": "", "tool_calls": [call(other["function"]["name"], args0)]},
                    {"role": "tool", "tool_call_id": f"functions.{other['function']['name']}:0", "content": content}, bot(answer)] + messages
    reasoning = weighed(want, tools, name) + deed(name, args)
    return Sample("tool call" if only is None and not made_up else "tool call (unseen function)" if made_up else "weather call", messages, reasoning, "", mode(g), tools,
                  [call(name, args, index)], {"call": [name, args]})


def tool_answer(g):
    tool, text, args, want = one_tool(g, "weather" if g.random() < 0.5 else None)
    tools = declare(g, tool, g.choice([1, 1, 2, 3]))
    args, name = ordered_args(tool, args), tool["function"]["name"]
    content, must, answer = result(g, tool, args)
    thinking = mode(g)
    message = {"role": "assistant", "content": "", "tool_calls": [call(name, args)]}
    if thinking and g.random() < 0.85:
        message["reasoning_content"] = weighed(want, tools, name) + deed(name, args)
    back = {"role": "tool", "tool_call_id": f"functions.{name}:0", "content": content}
    if g.random() < 0.4:
        back["name"] = name
    return Sample("tool answer", [user(text), message, back], f"{name} returned a result. I report it.", answer, thinking, tools, expect={"contains": must})


def tool_idle(g):
    """Tools are declared, but the request needs none of them."""
    tool = one_tool(g)[0]
    tools = declare(g, tool, g.choice([1, 2, 3, 4]))
    names = {t["function"]["name"] for t in tools}
    if g.random() < 0.4:
        other, text, _, want = curated(g)
        words = set(other["function"]["name"].split("_"))
        if not any(words & set(n.split("_")) for n in names):
            return Sample("tool idle", [user(text)], weighed(want, tools) + "No tool fits.", "I have no tool for that.", mode(g), tools, expect={"no_call": True, "contains": ["no tool"]})
    kinds = [talk, talk, capital, beyond, remember, haiku, program]
    if not any(n.startswith("calc") for n in names):
        kinds.append(arithmetic)
    inner = g.choice(kinds)(g)
    return dataclasses.replace(inner, task="tool idle", tools=tools, reasoning=f"No tool needed. {inner.reasoning}",
                               expect={"no_call": True, **inner.expect})


# ---- memory ----
def fact(g):
    """-> (statement, question, subject phrase, value, possessive answer)."""
    kinds = [
        ("secret code", g.code), ("password", g.code), ("locker number", g.number), ("lucky number", g.number), ("room number", g.number), ("PIN", lambda: f"{g.randint(0, 9999):04}"),
        ("favourite colour", lambda: g.draw(lambda: g.choice(COLOUR)) if g.random() < 0.6 else g.invented().lower()), ("favorite color", lambda: g.choice(COLOUR)), ("favourite food", lambda: g.draw(lambda: g.choice(FOOD)) if g.random() < 0.6 else g.invented().lower()),
        ("favorite food", lambda: g.choice(FOOD)), ("home city", g.city), ("cat's name", g.invented), ("dog's name", g.invented), ("sister's name", g.first), ("brother's name", g.first), ("boss's name", g.person),
        ("name", g.first), ("name", g.invented), ("name", g.person), ("meeting time", g.time), ("birthday", g.date), ("email", g.email), ("project name", g.invented), ("code word", g.word), ("magic word", g.invented), ("order number", g.code), ("flight number", g.code),
        ("age", lambda: g.randint(5, 99)), ("wifi password", g.code), (g.choice(NOUN), g.word), (f"{g.choice(NOUN)} number", g.number), (f"{g.choice(ANIMAL)}'s name", g.invented), ("parking spot", g.number), ("secret word", g.word),
    ]
    return g.choice(kinds)


def say_fact(g, key, value):
    if key == "name":
        return g.one(f"My name is {value}.", f"My name is {value}.", f"I am {value}.", f"Hi, my name is {value}.", f"Call me {value}.", f"I'm {value}.", f"Hello, I'm {value}. Nice to meet you.")
    return g.one(f"My {key} is {value}.", f"My {key} is {value}.", f"The {key} is {value}.", f"Remember this: my {key} is {value}.", f"Please remember that my {key} is {value}.", f"Note: the {key} is {value}.", f"By the way, my {key} is {value}.")


def ask_fact(g, key):
    if key == "name":
        return g.one("What is my name?", "What's my name?", "Do you remember my name?", "what is my name", "Who am I?", "Tell me my name.")
    return g.one(f"What is my {key}?", f"What is my {key}?", f"What's my {key}?", f"What is the {key}?", f"What was my {key}?", f"Tell me my {key}.", f"Do you remember my {key}?", f"what was the {key}", f"What is the {key} I told you?", f"Repeat my {key}.")


def ack(g, key, value):
    return g.one(f"Nice to meet you, {value}!", f"Hello, {value}!") if key == "name" else g.one("Okay, I will remember that.", "Okay, noted.")


def facts(g, n):
    out = {}
    while len(out) < n:
        key, make = fact(g)
        out.setdefault(key, str(make()))
    return out


def filler(g):
    """One exchange that has nothing to do with the facts."""
    r = g.random()
    if r < 0.35:
        _, op, a, b = question(g)
        q, value = f"What is {a} {'×' if op == '*' else op} {b}?", work(op, a, b)[1]
        return [user(q), bot(f"{a} {'×' if op == '*' else op} {b} = {value}")]
    s = g.choice([talk, talk, capital, haiku, beyond])(g)
    return s.messages + [bot(s.content)]


def remember(g, thinking=None):
    """Short multi-turn memory: a fact (or a few), maybe a filler, a question."""
    thinking = mode(g) if thinking is None else thinking
    known = facts(g, g.choice([1, 1, 1, 2, 3]))
    messages = []
    if g.random() < 0.3:
        text = " ".join(say_fact(g, k, v) for k, v in known.items())
        messages = [user(text), bot("Okay, I will remember that.")]
        if g.random() < 0.4:
            messages = []
            first = text
            key = g.choice(list(known))
            messages = [user(f"{first} {ask_fact(g, key)}")]
            return recall_sample(g, "memory", messages, key, known[key], thinking)
    else:
        for k, v in known.items():
            messages += [user(say_fact(g, k, v)), bot(ack(g, k, v))]
    for _ in range(g.choice([0, 0, 1, 1, 2])):
        messages += filler(g)
    key = g.choice(list(known))
    return recall_sample(g, "memory", messages + [user(ask_fact(g, key))], key, known[key], thinking)


def recall_sample(g, task, messages, key, value, thinking):
    answer = f"Your {key} is {value}."
    return Sample(task, messages, f"The user said the {key} is {value}.", answer, thinking, expect={"contains": [value]})


def tell(g):
    """The turn in which the fact is told."""
    (key, value), = facts(g, 1).items()
    answer = f"Nice to meet you, {value}!" if key == "name" else "Okay, I will remember that."
    return Sample("tell", [user(say_fact(g, key, value))], f"The user tells me the {key}: {value}.", answer, mode(g), expect={"contains": [answer]})


def untold(g):
    """A question about a fact nobody told."""
    key, _ = fact(g)
    answer = f"I do not know your {key}. You have not told me."
    return Sample("untold", [user(ask_fact(g, key))], f"The user has not told me the {key}.", answer, mode(g), expect={"contains": ["do not know"]})


def recall(g, tokens=4000, thinking=None):
    """A fact in the first tenth of a long conversation, asked at the end. About `tokens` tokens."""
    thinking = mode(g) if thinking is None else thinking
    known = facts(g, g.choice([1, 1, 2, 3]))
    key = g.choice(list(known))
    messages, size = [], 0
    for k, v in known.items():
        messages += [user(say_fact(g, k, v)), bot(ack(g, k, v))]
    grow = lambda m: sum(len(x["content"]) / 2.6 + 5 for x in m)
    style = g.random()
    size = grow(messages)
    while size < tokens - 60:
        room = tokens - size
        r = g.random()
        if room > 200 and (r < 0.35 or style < 0.3):
            text = paragraphs(g, int(min(room - 40, g.randint(100, 1200)) * 2.6))
            lead = g.one("", "Here is some text:\n", "Read this:\n\n", "Please read:\n", "Text: ")
            more = [user(lead + text), bot(g.one("Okay, I have read it.", "Okay, noted."))]
        elif r < 0.5:
            more = [user(" ".join(g.sentence() for _ in range(g.randint(1, 8)))), bot("Okay, noted.")]
        else:
            more = filler(g)
        messages += more
        size += grow(more)
    return recall_sample(g, "recall 4K", messages + [user(ask_fact(g, key))], key, known[key], thinking)


def recall_many(g, tokens=2000):
    """Long instant conversation with several facts and many questions: dense supervision for recall."""
    known = facts(g, g.randint(3, 8))
    messages, size = [], 0
    queue = list(known.items())
    while size < tokens or queue:
        if queue and (g.random() < 0.6 or size > tokens * 0.3):
            k, v = queue.pop()
            more = [user(say_fact(g, k, v)), bot(f"Nice to meet you, {v}!" if k == "name" else "Okay, I will remember that.")]
        elif g.random() < 0.5:
            told = [k for k in known if k not in dict(queue)]
            if not told:
                continue
            k = g.choice(told)
            more = [user(ask_fact(g, k)), bot(f"Your {k} is {known[k]}.")]
        elif g.random() < 0.3:
            more = [user(paragraphs(g, g.randint(200, 2000))), bot("Okay, I have read it.")]
        else:
            more = filler_safe(g)
        messages += more
        size += sum(len(x["content"]) / 2.6 + 5 for x in more)
    key = g.choice(list(known))
    s = recall_sample(g, "recall many", messages + [user(ask_fact(g, key))], key, known[key], False)
    return dataclasses.replace(s, train_all=True)


def filler_safe(g):
    s = g.choice([talk, capital, haiku])(g)
    return s.messages + [bot(s.content)]


# ---- JSON and copying ----
def json_object(g):
    person = g.random() < 0.4
    data = {}
    if person:
        data = {"name": g.person(), "age": g.randint(1, 99)}
        if g.random() < 0.4:
            data[g.one("city", "email", "job", "country")] = g.one(g.city(), g.email(), g.word())
        if "email" in data: data["email"] = g.email()
    else:
        for _ in range(g.randint(1, 5)):
            k = g.one(g.choice(NOUN), g.choice("name age city price count title color size id email active total author year status score".split()), g.invented().lower())
            data[k] = g.one(g.number, g.word, g.person, g.decimal, g.city, lambda: g.random() < 0.5, g.phrase)()
    keys, shown = list(data), [json.dumps(v) if not isinstance(v, str) else v for v in data.values()]
    join = lambda xs: xs[0] if len(xs) == 1 else ", ".join(xs[:-1]) + " and " + xs[-1]
    pairs = [g.one(f"{k}: {v}" if " " in v else f"{k} {v}", f"{k}: {v}", f"{k} = {v}") for k, v in zip(keys, shown)]
    text = g.one(f"Return a JSON object with {join(keys)} for {', '.join(shown)}.", f"Return a JSON object with {join(keys)} for {', '.join(shown)}.", f"Give me a JSON object with {join(pairs)}.", f"Write JSON with {', '.join(pairs)}.", f"Return JSON: {', '.join(pairs)}",
                 f"Make a JSON object: {', '.join(pairs)}.", f"Return only a JSON object with the keys {join(keys)} and the values {', '.join(shown)}.", f"Output as JSON: {', '.join(pairs)}.", f"Convert to JSON: {'; '.join(pairs)}", f"Extract {join(keys)} as JSON: {', '.join(shown)}.")
    if person and len(data) == 2 and g.random() < 0.5:
        n, a = data["name"], data["age"]
        text = g.one(f"Extract the name and age as JSON: {n} is {a} years old.", f"Return a JSON object with name and age for {n}, {a}.", f"{n} is {a} years old. Give me JSON with name and age.", f"Return JSON with name and age: {n}, age {a}", f"Return a JSON object with name and age for {n}, {a}.")
    if g.random() < 0.15:
        text += ("" if text[-1] == "." else ".") + g.one(" Respond only with JSON.", " Only the JSON, please.", " No other text.")
    return Sample("json", [user(text)], f"The user wants JSON with {', '.join(f'{k} = {v}' for k, v in zip(keys, shown))}.", json.dumps(data, ensure_ascii=False), mode(g), expect={"json": data})


def copy(g):
    r = g.random()
    if r < 0.45:
        what = g.one(g.phrase(2, 8), g.phrase(2, 8), g.code(), g.invented(), g.person(), g.sentence(), str(g.number()), f"{g.code()} {g.code()}", " ".join(g.invented() for _ in range(g.randint(1, 5))))
        form = g.one("Repeat: {x}", "Repeat after me: {x}", "Say {x}", "Say: {x}", "Repeat the following: {x}", "Echo {x}", 'Say "{x}"', "Copy this text: {x}", "Print {x}")
        return Sample("copy", [user(form.format(x=what))], "I repeat the text.", what, mode(g, 0.7), expect={"exact": what})
    table = {g.one(g.word, g.invented, g.code, lambda: str(g.number(999)))(): str(g.one(g.word, g.invented, g.code, g.number, g.city)()) for _ in range(g.randint(2, 14))}
    key = g.choice(list(table))
    sep = g.one(": ", " = ", " is ", " -> ")
    text = g.one("\n", ", ", "; ").join(f"{k}{sep}{v}" for k, v in table.items())
    ask = g.one(f"What is {key}?", f"What is the value of {key}?", f"Look up {key}.", f"value of {key}?")
    return Sample("lookup", [user(g.one(f"{text}\n{ask}", f"{ask}\n{text}", f"{text}\n\n{ask}"))], f"{key} is {table[key]}.", table[key], mode(g, 0.7), expect={"contains": [table[key]]})


def items(g, n):
    return [str(g.one(g.word, g.invented, g.invented, g.code, g.number, g.city, g.first, g.phrase, g.date, g.decimal, g.email, g.path)()) for _ in range(n)]


def copy_long(g):
    """Dense copying of many random items: what forms the induction heads that tools, JSON and memory need."""
    what = items(g, g.randint(4, 24))
    r = g.random()
    if r < 0.4:
        sep = g.one(" ", ", ", "\n", "; ")
        text = sep.join(what)
        return Sample("copy long", [user(g.one(f"Repeat: {text}", f"Repeat the following: {text}", f"Copy this text: {text}", f"Echo {text}"))], "I repeat the text.", text, False, expect={"exact": text})
    if r < 0.75:
        text = ", ".join(what)
        return Sample("copy long", [user(g.one(f"Return a JSON list of {text}", f"Make a JSON array: {text}", f"{text}\nAs a JSON list, please."))], "The user wants a JSON list.", json.dumps(what), False, expect={"json": what})
    keys = list(dict.fromkeys(items(g, min(10, len(what)))))
    table = dict(zip(keys, what))
    sep = g.one(": ", " = ", " is ", " -> ")
    messages = [user(g.one("\n", ", ", "; ").join(f"{k}{sep}{v}" for k, v in table.items()) + f"\nWhat is {keys[0]}?"), bot(table[keys[0]])]
    for _ in range(g.randint(4, 10)):
        k = g.choice(keys)
        messages += [user(f"What is {k}?"), bot(table[k])]
    return Sample("lookup many", messages[:-1], "", messages[-1]["content"], False, expect={"exact": messages[-1]["content"]}, train_all=True)


def tool_chat(g):
    """Several requests over one declaration block, instant, every assistant turn a target."""
    wants = {}
    for _ in range(g.randint(1, 4)):
        tool, text, args, _ = one_tool(g)
        words = set(tool["function"]["name"].split("_"))
        if not any(words & set(n.split("_")) for n in wants):
            wants[tool["function"]["name"]] = (tool, text, ordered_args(tool, args))
    tools = [w[0] for w in wants.values()]
    g.shuffle(tools)
    messages, order = [], list(wants.values())
    g.shuffle(order)
    for i, (tool, text, args) in enumerate(order):
        name = tool["function"]["name"]
        content, _, answer = result(g, tool, args)
        messages += [user(text), {"role": "assistant", "content": "", "tool_calls": [call(name, args, i)]},
                     {"role": "tool", "tool_call_id": f"functions.{name}:{i}", "content": content}, bot(answer)]
    return Sample("tool chat", messages[:-1], "", messages[-1]["content"], False, tools, train_all=True)


MIX = {  # weight per conversation
    arithmetic: 34, temperature: 8, capital: 3, program: 1.5, haiku: 1.5, talk: 5, beyond: 5, picture: 0.5, tool_call: 22, (lambda g: tool_call(g, made_up=False)): 18, (lambda g: tool_call(g, "weather")): 3, tool_answer: 6, tool_idle: 15,
    remember: 8, tell: 1, untold: 1, json_object: 16, copy: 5, copy_long: 7, tool_chat: 6,
}


def sample(g, mix=None):
    """A random training conversation with optional system prompt and earlier turns."""
    mix = mix or MIX
    s = g.choices(list(mix), list(mix.values()))[0](g)
    if g.random() < 0.07 and s.task not in ("recall 4K", "recall many"):
        before = []
        for _ in range(g.randint(1, 3)):
            before += filler(g)
        s.messages = before + s.messages
    if g.random() < 0.25:
        s.messages = [{"role": "system", "content": g.choice(K.SYSTEMS) if g.random() < 0.8 else g.sentence()}] + s.messages
    return s


def judge(s, reasoning, content, calls):
    """Is the parsed answer right for Sample s?"""
    e = s.expect
    if "call" in e:
        name, args = e["call"]
        try:
            return len(calls) == 1 and calls[0][0] == name and json.loads(calls[0][1]) == args
        except ValueError:
            return False
    if calls:
        return False
    if "number" in e:
        found = [t for t in content.replace("−", "-").replace("**", "").split() if t.strip("-.").isdigit()]
        return bool(found) and found[-1].rstrip(".") == e["number"]
    if "json" in e:
        try:
            return json.loads(content) == e["json"]
        except ValueError:
            return False
    if "exact" in e:
        return content.strip() == e["exact"].strip()
    return all(c in content for c in e.get("contains", []))
