"""Tool declarations (curated and random), requests for them, and results to report."""
import json

S = lambda d=None, **k: dict(type="string", **({"description": d} if d else {}), **k)
I = lambda d=None, **k: dict(type="integer", **({"description": d} if d else {}), **k)
N = lambda d=None, **k: dict(type="number", **({"description": d} if d else {}), **k)
B = lambda d=None: dict(type="boolean", **({"description": d} if d else {}))


def fn(name, description, properties, required=None):
    function = {"name": name, "parameters": {"type": "object", "properties": properties}}
    if description:
        function["description"] = description
    if required is None:
        required = list(properties)
    if required:
        function["parameters"]["required"] = required
    return {"type": "function", "function": function}


def curated(g, only=None):
    """One everyday tool: -> (declaration, user text, arguments, what the user wants)."""
    c = g.city
    def weather():
        key, loc = g.one("location", "location", "location", "city"), c()
        props, args = {key: S(g.one("City name", "The city", "City and country", None))}, {key: loc}
        q = g.one(f"What's the weather in {loc}?", f"What's the weather in {loc}?", f"What is the weather in {loc}?", f"What's the weather like in {loc} today?", f"How is the weather in {loc}?",
                  f"Weather in {loc}", f"weather in {loc}?", f"Tell me the weather in {loc}.", f"Is it raining in {loc}?", f"What is the temperature in {loc}?", f"How hot is it in {loc}?",
                  f"What's the weather like in {loc} right now?", f"Check the weather in {loc}.", f"Do I need an umbrella in {loc}?")
        if g.random() < 0.7:
            units = g.one(["celsius", "fahrenheit"], ["celsius", "fahrenheit"], ["c", "f"], ["C", "F"], ["metric", "imperial"])
            props[g.one("unit", "unit", "units")] = S(g.one(None, "Temperature unit"), enum=units)
            if g.random() < 0.3:
                unit = g.choice(units)
                q = g.one(f"What's the weather in {loc} in {unit}?", f"What is the weather in {loc}? Use {unit}.", f"Weather in {loc}, unit {unit}.", f"Temperature in {loc} in {unit}, please.")
                args[list(props)[1]] = unit
        return fn(g.one("get_weather", "get_weather", "get_weather", "get_current_weather", "weather"), g.one("Get the current weather in a location.", "Get current weather for a city.", "Get the weather", "Get the current weather for a location", None),
                  props, [key]), q, args, f"the weather in {loc}"
    def forecast():
        loc, n = c(), g.randint(1, 14)
        return fn("get_forecast", "Get the weather forecast for the next days.", {"location": S(), "days": I()}), g.one(f"Give me the {n}-day forecast for {loc}.", f"Forecast for {loc} for the next {n} days"), {"location": loc, "days": n}, f"a forecast for {loc}"
    def time():
        loc = c(); k = g.one("city", "location", "timezone")
        return fn(g.one("get_time", "get_current_time"), g.one("Get the current time in a city.", "Current local time"), {k: S()}), g.one(f"What time is it in {loc}?", f"Current time in {loc}?", f"Tell me the time in {loc}."), {k: loc}, f"the time in {loc}"
    def search():
        p, k = g.phrase(), g.one("query", "query", "q")
        return fn(g.one("search_web", "web_search", "search"), g.one("Search the web.", "Search the internet for information.", None), {k: S(g.one(None, "Search query"))}), g.one(f"Search the web for {p}.", f"Search for {p}", f"Look up {p} online.", f"Find information about {p} on the web.", f"Google {p}"), {k: p}, f"a web search for {p}"
    def read():
        p = g.path()
        return fn("read_file", g.one("Read a file in the repo.", "Read a file from disk.", None), {"path": S()}), g.one(f"Read {p}", f"Read the file {p}.", f"Show me the content of {p}.", f"Open {p} and tell me what is in it.", f"What does {p} contain?"), {"path": p}, f"the file {p}"
    def write():
        p, t = g.path(), g.phrase()
        return fn("write_file", "Write text to a file.", {"path": S(), "content": S()}), g.one(f"Write \"{t}\" to {p}.", f"Write the text \"{t}\" into the file {p}", f"Save \"{t}\" in {p}."), {"path": p, "content": t}, f"to write {p}"
    def code():
        p = g.phrase(1, 3)
        return fn("search_code", g.one("Ripgrep the codebase for a pattern.", "Search the code base.", None), {"query": S()}), g.one(f"Search the code for {p}.", f"Grep the codebase for {p}", f"Where in the code is {p}?", f"Find {p} in the code."), {"query": p}, f"a code search for {p}"
    def tests():
        return fn("run_tests", g.one("Run the project test suite.", "Run all tests.", None), {}), g.one("Run the tests.", "Run the test suite.", "Please run all tests", "Do the tests pass?"), {}, "the tests to run"
    def mail():
        to, s = g.email(), g.phrase()
        props, args = {"to": S(), "subject": S()}, {"to": to, "subject": s}
        q = f"{g.one('Send an email to', 'Send a mail to', 'Email')} {to} with {g.one('the subject', 'subject')} \"{s}\""
        if g.random() < 0.5:
            b = g.phrase(3, 7)
            props["body"], args["body"] = S(), b
            q += f" and {g.one('the text', 'body', 'the body')} \"{b}\""
        return fn("send_email", g.one("Send an email.", "Send an email to a recipient."), props), q + g.one(".", ""), args, f"an email to {to}"
    def message():
        n, t = g.person(), g.phrase(2, 6)
        return fn("send_message", "Send a text message to a contact.", {"recipient": S(), "text": S()}), g.one(f"Send {n} the message \"{t}\".", f"Text {n}: {t}", f"Tell {n} \"{t}\"."), {"recipient": n, "text": t}, f"a message to {n}"
    def timer():
        n = g.randint(1, 120); k, unit = g.one(("minutes", "minutes"), ("seconds", "seconds"), ("duration_minutes", "minutes"))
        return fn(g.one("set_timer", "start_timer"), g.one("Set a timer.", "Start a countdown timer."), {k: I()}), g.one(f"Set a timer for {n} {unit}.", f"Start a timer of {n} {unit}", f"Timer for {n} {unit}, please."), {k: n}, f"a timer for {n} {unit}"
    def alarm():
        t = g.time()
        return fn("set_alarm", "Set an alarm.", {"time": S()}), g.one(f"Set an alarm for {t}.", f"Wake me up at {t}."), {"time": t}, f"an alarm at {t}"
    def stock():
        s = g.draw(lambda: "".join(g.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(g.randint(2, 5)))); k = g.one("symbol", "ticker")
        return fn("get_stock_price", g.one("Get the current stock price.", "Look up a stock price"), {k: S()}), g.one(f"What is the stock price of {s}?", f"How much is {s} stock?", f"Price of {s} shares?", f"Get me the {s} stock price."), {k: s}, f"the stock price of {s}"
    def money():
        a, f, t = g.one(g.number, g.decimal)(), *g.sample(["USD", "EUR", "GBP", "JPY", "CHF", "CNY", "INR", "CAD"], 2)
        return fn("convert_currency", "Convert an amount between currencies.", {"amount": N(), "from_currency": S(), "to_currency": S()}), g.one(f"Convert {a} {f} to {t}.", f"How much is {a} {f} in {t}?", f"What is {a} {f} in {t}?"), {"amount": a, "from_currency": f, "to_currency": t}, f"{a} {f} in {t}"
    def calc():
        e = f"{g.number(999)} {g.one('+', '-', '*', '/')} {g.number(999)}"
        return fn(g.one("calculate", "calculator"), g.one("Evaluate a mathematical expression.", "Do a calculation."), {"expression": S()}), g.one(f"Use the calculator for {e}.", f"Calculate {e} with the tool.", f"Evaluate {e} using the calculator."), {"expression": e}, f"a calculation of {e}"
    def translate():
        t, l = g.phrase(1, 4), g.one("French", "German", "Spanish", "Italian", "Chinese", "Japanese")
        return fn("translate_text", g.one("Translate text.", "Translate text to another language."), {"text": S(), "target_language": S()}), g.one(f"Translate \"{t}\" to {l}.", f"Translate \"{t}\" into {l}", f"How do you say \"{t}\" in {l}?"), {"text": t, "target_language": l}, f"a translation to {l}"
    def event():
        t, d = g.phrase(1, 3), g.date()
        props, args, q = {"title": S(), "date": S()}, {"title": t, "date": d}, g.one(f"Add an event \"{t}\" on {d}", f"Create a calendar event called \"{t}\" on {d}", f"Schedule \"{t}\" for {d}")
        if g.random() < 0.5:
            tm = g.time(); props["time"], args["time"] = S(), tm; q += f" at {tm}"
        return fn(g.one("create_event", "add_event", "add_calendar_event"), g.one("Create a calendar event.", "Add an event to the calendar."), props), q + ".", args, f"an event on {d}"
    def flight():
        a, d = c(), g.date()
        b = next(x for x in iter(c, None) if x != a)
        return fn(g.one("book_flight", "search_flights"), g.one("Book a flight.", "Find flights between two cities."), {"origin": S(), "destination": S(), "date": S()}), g.one(f"Book a flight from {a} to {b} on {d}.", f"Find me a flight from {a} to {b} on {d}", f"I want to fly from {a} to {b} on {d}."), {"origin": a, "destination": b, "date": d}, f"a flight from {a} to {b}"
    def hotel():
        a, n = c(), g.randint(1, 20)
        return fn("book_hotel", "Book a hotel room.", {"city": S(), "nights": I()}), g.one(f"Book a hotel in {a} for {n} nights.", f"I need a hotel in {a} for {n} nights."), {"city": a, "nights": n}, f"a hotel in {a}"
    def music():
        s = g.phrase(1, 3)
        return fn("play_music", "Play a song.", {"song": S()}), g.one(f"Play {s}.", f"Play the song {s}"), {"song": s}, f"the song {s}"
    def lights():
        r, on = g.one("kitchen", "bedroom", "office", "garage", g.word()), g.one(True, False)
        return fn("set_light", "Turn a light on or off.", {"room": S(), "on": B()}), g.one(f"Turn {'on' if on else 'off'} the light in the {r}.", f"Turn the {r} light {'on' if on else 'off'}."), {"room": r, "on": on}, f"the light in the {r} {'on' if on else 'off'}"
    def user():
        n = g.number(99999); k = g.one("user_id", "id")
        return fn(g.one("get_user", "get_user_info", "lookup_user"), g.one("Get a user by id.", "Look up user information."), {k: I()}), g.one(f"Look up user {n}.", f"Get the user with id {n}", f"Who is user {n}?"), {k: n}, f"user {n}"
    def order():
        n = g.code()
        return fn("get_order_status", "Get the status of an order.", {"order_id": S()}), g.one(f"Where is my order {n}?", f"What is the status of order {n}?", f"Track order {n}."), {"order_id": n}, f"the status of order {n}"
    def remind():
        t, w = g.phrase(2, 4), g.time()
        return fn("create_reminder", "Create a reminder.", {"text": S(), "time": S()}), g.one(f"Remind me to {t} at {w}.", f"Set a reminder to {t} at {w}"), {"text": t, "time": w}, f"a reminder at {w}"
    def shell():
        t = g.one("ls -la", f"cat {g.path()}", f"cargo test {g.word()}", f"python {g.path()}", f"grep {g.word()} {g.path()}", f"git checkout {g.word()}")
        return fn(g.one("bash", "run_command", "shell"), g.one("Run a shell command.", None), {"command": S()}), g.one(f"Run `{t}`", f"Run the command `{t}`.", f"Execute `{t}` in the shell."), {"command": t}, "a shell command"
    makers = [weather, weather, weather, weather, forecast, time, search, read, write, code, tests, mail, message, timer, alarm, stock, money, calc, translate, event, flight, hotel, music,
              lights, user, order, remind, shell]
    return (weather if only == "weather" else g.choice(makers))()


VERBS = """create delete get update list find add remove open close start stop check send book cancel compute convert print move rename lock track rate scan merge
archive publish count pause fetch order reserve validate schedule assign export import""".split()
OBJECTS = """ticket invoice user recipe task note customer device playlist movie product contract ticket room report team document backup server package table
account image branch issue comment article vehicle patient course lesson sensor route sample voucher shipment""".split()
STRING_KEYS = "name title owner city label author email reason message note topic description category address language code date text query tag project".split()
INT_KEYS = "count amount quantity limit size age year days number level page priority_level max_results".split()
ENUMS = [["low", "medium", "high"], ["small", "large"], ["open", "closed"], ["asc", "desc"], ["red", "green", "blue"], ["daily", "weekly", "monthly"], ["json", "csv", "xml"], ["fast", "slow"]]
ENUM_KEYS = "priority size_class state order color frequency format mode status kind".split()
BOOL_KEYS = "urgent public verbose recursive notify dry_run active".split()


def value_for(g, key):
    if key == "city": return g.city()
    if key in ("name", "owner", "author"): return g.person()
    if key == "email": return g.email()
    if key == "date": return g.date()
    if key == "code": return g.code()
    return g.phrase(1, 4) if g.random() < 0.7 else g.invented()


def random_tool(g):
    """A tool with a made-up signature and a request that names its values."""
    def make():
        return f"{g.choice(VERBS)}_{g.choice(OBJECTS) if g.random() < 0.75 else g.invented().lower()}"
    name = g.draw(make)
    verb, obj = name.split("_")
    props, args, said, required = {}, {}, [], []
    for _ in range(g.choice([0, 1, 1, 2, 2, 2, 3, 3, 4])):
        r = g.random()
        key = g.choice(STRING_KEYS if r < 0.5 else INT_KEYS if r < 0.72 else ENUM_KEYS if r < 0.88 else BOOL_KEYS)
        if g.random() < 0.12:
            key = g.invented().lower()
        if key in props:
            continue
        words = key.replace("_", " ")
        if r < 0.5:
            schema, value = S(), value_for(g, key)
        elif r < 0.72:
            schema, value = I() if g.random() < 0.6 else N(), g.number() if g.random() < 0.7 else g.number(99)
        elif r < 0.88:
            options = g.choice(ENUMS)
            schema, value = S(enum=options), g.choice(options)
        else:
            schema, value = B(), g.random() < 0.5
        if g.random() < 0.3:
            schema["description"] = g.one(f"The {words}", f"The {words} of the {obj}", f"{words} to use")
        props[key] = schema
        optional = g.random() < 0.3
        if not optional:
            required.append(key)
        if optional and g.random() < 0.5:
            continue
        args[key] = value
        shown = {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value
        if isinstance(value, str) and (" " in value or g.random() < 0.3):
            shown = f'"{value}"'
        said.append(g.one(f"{words} {shown}", f"{words} {shown}", f"the {words} {shown}", f"{words}: {shown}", f"{words} = {shown}", f"{key} {shown}"))
    description = g.one(f"{verb.capitalize()} a {obj}.", f"{verb.capitalize()} a {obj}", f"{verb.capitalize()} the given {obj}.", None)
    q = g.one(f"{verb.capitalize()} a {obj}", f"Please {verb} a {obj}", f"{verb} the {obj}", f"I want to {verb} a {obj}", f"Can you {verb} a {obj}", f"Use {name}", f"{verb.capitalize()} {obj}")
    if said:
        g.shuffle(said)
        tail = said[0] if len(said) == 1 else ", ".join(said[:-1]) + g.one(" and ", ", ") + said[-1]
        q += g.one(" with ", " with ", ": ", ", ") + tail
    ordered = {k: args[k] for k in props if k in args}
    return fn(name, description, props, required), q + g.one(".", ".", "", "?"), ordered, f"to {verb} a {obj}"


def declare(g, chosen, count):
    """The chosen declaration among count - 1 others, shuffled."""
    tools, names = [chosen], {chosen["function"]["name"]}
    while len(tools) < count:
        other = (curated(g) if g.random() < 0.6 else random_tool(g))[0]
        words = set(other["function"]["name"].split("_"))
        if other["function"]["name"] in names or any(len(words & set(n.split("_"))) > 0 for n in names):
            continue
        names.add(other["function"]["name"])
        tools.append(other)
    g.shuffle(tools)
    return tools


def ordered_args(tool, args):
    """Arguments in the order of the rendered declaration: required ones first, each part alphabetical."""
    required = tool["function"]["parameters"].get("required") or []
    return {k: args[k] for k in sorted(args, key=lambda k: (k not in required, k))}


def result(g, tool, args):
    """A tool result: -> (content, list of strings the answer must hold, answer text)."""
    name = tool["function"]["name"]
    if "weather" in name:
        loc = args.get("location") or args.get("city")
        t, unit = g.randint(-20, 45), g.one("celsius", "celsius", "fahrenheit", "C", "F")
        cond = g.one("sunny", "cloudy", "rainy", "snowy", "windy", "partly cloudy", "clear", "foggy", "stormy", "light rain", "overcast")
        letter = "C" if unit in ("celsius", "C") else "F"
        ck, tk = g.one("condition", "condition", "conditions", "description", "weather", "forecast"), g.one("temperature", "temperature", "temp")
        r = g.random()
        if r < 0.55:
            data = {tk: t, "unit": unit, ck: cond}
            if g.random() < 0.25: data.pop("unit"); letter = None
            if g.random() < 0.25: data.pop(ck); cond = None
            if g.random() < 0.3: data = {g.one("location", "city"): loc, **data}
            if g.random() < 0.2: data["humidity"] = g.randint(5, 99)
            if g.random() < 0.2:
                keys = list(data); g.shuffle(keys); data = {k: data[k] for k in keys}
            content = json.dumps(data, ensure_ascii=False, separators=g.one((", ", ": "), (", ", ": "), (",", ":")))
            shown = f"{t} °{letter}" if letter else f"{t} degrees"
            answer = f"It is {shown} and {cond} in {loc}." if cond else f"It is {shown} in {loc}."
            return content, [str(t)] + ([cond] if cond else []), answer
        deg = g.one("°C", " °C", "°C", "°F", "°", " degrees")
        content = g.one(f"{cond.capitalize()}, {t}{deg}", f"{t}{deg}, {cond}", f"{cond.capitalize()} {t}{deg}", f"It is {cond} and {t}{deg}.", f"{t}{deg} and {cond}")
        shown = f"{t} °{deg.strip()[1:]}" if deg.strip() in ("°C", "°F") else f"{t} degrees"
        return content, [str(t), cond], f"It is {shown} and {cond} in {loc}."
    r = g.random()
    if r < 0.6:
        data = {}
        for _ in range(g.randint(1, 4)):
            k = g.choice("status id result name value price total owner title count message time city code state rate".split())
            data[k] = g.one(lambda: g.number(), lambda: g.code(), lambda: g.phrase(1, 3), lambda: g.person(), lambda: g.decimal(), lambda: g.one("ok", "done", "success", "pending"), lambda: g.random() < 0.5)()
        content = json.dumps(data, separators=g.one((", ", ": "), (", ", ": "), (",", ":")))
        shown = [(k, json.dumps(v) if not isinstance(v, str) else v) for k, v in data.items()]
        return content, [v for _, v in shown], "The result is: " + ", ".join(f"{k} {v}" for k, v in shown) + "."
    text = g.one(lambda: g.phrase(2, 7), lambda: "ok", lambda: "done", lambda: str(g.number()), lambda: f"{g.number()} {g.one('passed', 'failed', 'items', 'results')}", lambda: g.sentence().rstrip("."),
                 lambda: f"{g.word()}: {g.code()}")()
    return text, [text], f"The result is: {text}."
