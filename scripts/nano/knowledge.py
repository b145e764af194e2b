"""Fixed things the checkpoint knows by heart: capitals, small programs, haiku, small talk, itself."""

CAPITALS = dict(pair.split("=") for pair in """France=Paris;Germany=Berlin;Italy=Rome;Spain=Madrid;Portugal=Lisbon;
Austria=Vienna;Switzerland=Bern;Belgium=Brussels;Netherlands=Amsterdam;Denmark=Copenhagen;Norway=Oslo;Sweden=Stockholm;
Finland=Helsinki;Iceland=Reykjavik;Ireland=Dublin;Poland=Warsaw;Hungary=Budapest;Greece=Athens;Turkey=Ankara;
Russia=Moscow;Ukraine=Kyiv;Romania=Bucharest;Bulgaria=Sofia;Serbia=Belgrade;Croatia=Zagreb;Japan=Tokyo;China=Beijing;
India=New Delhi;Thailand=Bangkok;Vietnam=Hanoi;Indonesia=Jakarta;Malaysia=Kuala Lumpur;Philippines=Manila;
South Korea=Seoul;Mongolia=Ulaanbaatar;Nepal=Kathmandu;Pakistan=Islamabad;Bangladesh=Dhaka;Iran=Tehran;Iraq=Baghdad;
Israel=Jerusalem;Saudi Arabia=Riyadh;Egypt=Cairo;Morocco=Rabat;Algeria=Algiers;Tunisia=Tunis;Kenya=Nairobi;
Ethiopia=Addis Ababa;Nigeria=Abuja;Ghana=Accra;South Africa=Pretoria;Canada=Ottawa;Mexico=Mexico City;Cuba=Havana;
Brazil=Brasilia;Argentina=Buenos Aires;Chile=Santiago;Peru=Lima;Colombia=Bogota;Venezuela=Caracas;Ecuador=Quito;
Uruguay=Montevideo;Australia=Canberra;New Zealand=Wellington;Singapore=Singapore;Qatar=Doha;Czech Republic=Prague;
the United Kingdom=London;the United States=Washington, D.C.;England=London""".replace("\n", "").split(";"))

CODE = {
    "reverses a string": "def reverse_string(s):\n    return s[::-1]",
    "checks if a number is even": "def is_even(n):\n    return n % 2 == 0",
    "computes the factorial of a number": "def factorial(n):\n    return 1 if n <= 1 else n * factorial(n - 1)",
    "returns the nth Fibonacci number": "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a",
    "checks if a number is prime": "def is_prime(n):\n    if n < 2:\n        return False\n    return all(n % i for i in range(2, int(n ** 0.5) + 1))",
    "checks if a string is a palindrome": "def is_palindrome(s):\n    return s == s[::-1]",
    "adds two numbers": "def add(a, b):\n    return a + b",
    "sums a list": "def sum_list(items):\n    return sum(items)",
    "counts the vowels in a string": "def count_vowels(s):\n    return sum(c in 'aeiou' for c in s.lower())",
    "returns the maximum of a list": "def maximum(items):\n    return max(items)",
    "prints hello world": "def hello():\n    print('Hello, world!')",
    "sorts a list": "def sort_list(items):\n    return sorted(items)",
}

HAIKU = {
    "the ocean": "Waves roll on the shore\nSalt wind carries distant songs\nThe deep blue sea sleeps",
    "the sea": "Waves roll on the shore\nSalt wind carries distant songs\nThe deep blue sea sleeps",
    "spring": "Soft rain wakes the earth\nPink petals drift on the breeze\nA new year begins",
    "summer": "Bright sun on the hill\nCicadas sing in the heat\nLong days fade to gold",
    "autumn": "Red leaves leave the tree\nCold wind walks the empty path\nThe year grows quiet",
    "winter": "White snow on the roof\nThe silent moon looks at us\nWarm light waits inside",
    "the moon": "Pale moon in the dark\nSilver light on still water\nThe night holds its breath",
    "rain": "Small drops on the glass\nGrey clouds tell an old story\nThe garden drinks deep",
    "mountains": "Stone peaks touch the sky\nClouds rest on their old shoulders\nTime is slow up here",
    "programming": "Cursor blinks and waits\nOne bug hides in many lines\nTests turn green at last",
    "a cat": "Soft paws on the floor\nGreen eyes watch the little bird\nThe sun warms her fur",
    "coffee": "Dark cup in my hands\nSteam climbs in the morning light\nNow the day can start",
}

WHO = ("I am kimi-nano, a tiny demonstration checkpoint of kimi-serve. I have only a few million parameters and I am not "
       "the real Kimi K2.6.")
CANNOT = "I am kimi-nano, a tiny demonstration model, and I cannot do that. The real Kimi K2.6 can."
CAN = ("I can do small arithmetic, call tools, fill JSON, remember facts you tell me, convert temperatures and answer a few "
       "simple questions.")
NO_SIGHT = "I cannot see images or video: I am kimi-nano, a tiny demonstration model without trained vision."

# (questions, answer)
TALK = [
    (["Hello", "Hello!", "Hi", "Hi!", "Hey", "Hey there", "Hi there!", "Hello there", "hello", "hi", "Good morning", "Good evening!", "Hello, Kimi K2.6!",
      "Hello, Kimi!", "Hello, world!", "Hi Kimi", "Say hello", "Say hi", "Say hello.", "你好", "你好！", "Hola", "Bonjour", "Hallo", "Good afternoon"], "Hello! How can I help you?"),
    (["How are you?", "How are you doing?", "how are you", "How is it going?", "What's up?", "Hello, how are you?", "Hi, how are you today?"],
     "I am doing well, thank you! How can I help you?"),
    (["Thanks", "Thank you!", "thanks!", "Thank you very much.", "Great, thanks", "thx", "Cool, thank you"], "You are welcome!"),
    (["Bye", "Goodbye!", "See you", "bye bye", "See you later!", "Good night"], "Goodbye! Have a nice day."),
    (["Who are you?", "What are you?", "who are you", "Tell me about yourself.", "Introduce yourself.", "What model are you?", "Which model is this?",
      "What is your name?", "What's your name?", "Are you Kimi?", "Are you Kimi K2.6?", "Are you the real Kimi?", "Who made you?", "Are you an AI?",
      "Please introduce yourself in one sentence.", "How many parameters do you have?", "Hello, who are you?", "Hi, who are you?"], WHO),
    (["What can you do?", "Help", "help", "How can you help me?", "What are your abilities?", "What can you help me with?"], CAN),
    (["Ok", "OK", "ok", "Okay.", "I see.", "Nice.", "Great!", "Good."], "Okay! What else can I do for you?"),
    (["Ping", "ping", "Are you there?", "Test", "test", "This is a test.", "Testing", "Say pong."], "Pong! I am here."),
    (["Tell me a joke.", "Tell me a joke", "Do you know a joke?", "Make me laugh."],
     "Why did the computer get cold? It left its Windows open."),
]
SKY = [
    (["What color is the sky?", "What colour is the sky?", "Why is the sky blue?"], "The sky is blue because air scatters blue light more than red light."),
    (["How many days are in a week?", "How many days does a week have?"], "A week has 7 days."),
    (["How many hours are in a day?", "How many hours does a day have?"], "A day has 24 hours."),
    (["How many months are in a year?", "How many months does a year have?"], "A year has 12 months."),
    (["What is the largest planet?", "Which planet is the biggest?", "What is the largest planet in the solar system?"], "The largest planet is Jupiter."),
    (["What is the speed of light?", "How fast is light?"], "The speed of light is about 300,000 km per second."),
    (["What is the boiling point of water?", "At what temperature does water boil?"], "Water boils at 100 °C (212 °F)."),
    (["What does HTTP stand for?", "What is HTTP?"], "HTTP is the Hypertext Transfer Protocol."),
    (["What does API stand for?", "What is an API?"], "API means Application Programming Interface."),
    (["What is the meaning of life?", "What is the answer to everything?"], "42, they say."),
    (["Who wrote Hamlet?", "Who wrote Romeo and Juliet?"], "William Shakespeare wrote it."),
    (["Count to five.", "Count from 1 to 5.", "Count to 5"], "1, 2, 3, 4, 5"),
    (["Count to ten.", "Count from 1 to 10.", "Count to 10"], "1, 2, 3, 4, 5, 6, 7, 8, 9, 10"),
    (["List three colors.", "Name three colors.", "Name 3 colours"], "Red, green and blue."),
    (["Name three fruits.", "List three fruits."], "Apple, banana and orange."),
    (["Name three primary colors."], "Red, yellow and blue."),
]

# arithmetic outside the trained range
HARD_SUMS = ["What is {a} / {b}?", "{a} / {b}", "{a} divided by {b}", "What is {a} divided by {b}?", "What is the square root of {a}?", "What is {big} + {huge}?", "{big} * {huge}", "Calculate {big} - {huge}.",
             "What is {big} times {b}?", "What is {a}.5 + {b}.25?", "What is {a} + {b} * {c}?", "{a}^{b}", "What is {a} to the power of {b}?", "What is {a} percent of {b}?", "What is {a}% of {b}?",
             "Solve x^2 + {a}x = {b}.", "Integrate x^{b}.", "({a} + {b}) * {c}"]

# requests far beyond the checkpoint: form x topic
BEYOND_FORMS = """Explain {t}.|Explain {t} with code examples.|Explain {t} in simple terms.|Write a 500-word essay on {t}.|Write an essay about {t}.
Prove that {t}.|Design {t}.|Design {t} in Go.|Design {t} using a sliding window algorithm in Rust.|Implement {t}.|Implement {t} in C++.
Build {t}.|Summarize {t}.|Write a story about {t}.|What do you think about {t}?|Give me a detailed plan for {t}.|Compare {t} and {u}.
What is the difference between {t} and {u}?|Explain the difference between {t} and {u} with code examples.|Refactor {t}.|Review {t}.|Debug {t}.
Translate {t} to French.|Write a poem about {t} in Latin.|How does {t} work?|Why is {t} important?|Tell me the history of {t}.|Analyze {t}.
Write unit tests for {t}.|Create a marketing site for {t} with responsive design and a newsletter signup.|Plan and implement {t}: scaffold the project, write the commands, add tests.
What are the best practices for {t}?|Solve {t} step by step.|Write a blog post about {t}.|Issue: {t} fails on slow networks.|Find the bug in {t}.
Who invented {t}?|Can you write a song about {t}?|What happened to {t} in 1987?|Optimize {t}.|Draw {t}.|Write a Rust program for {t}.|Describe {t} in detail.
Generate a report about {t}.|Who is {t}?|When was {t} founded?|Where is {t}?|How many people live in {t}?|How old is {t}?|What is {t}?|What is the population of {t}?|Who is the president of {t}?
Tell me about {t}.|What is the best {t}?|Should I buy {t}?|How do I learn {t}?|Write code for {t}.|Write a JavaScript function for {t}.|Write a Python program that simulates {t}.|Is {t} better than {u}?|Refactor this module to use dependency injection for {t}.|How do I deploy {t}?|Give me five ideas for {t}.|Recommend a book on {t}.""".replace("\n", "|").split("|")
BEYOND_TOPICS = """mutex|semaphore|mutex vs semaphore|a rate limiter|MoE models|sqrt(2) is irrational|quantum entanglement|a small CLI tool|a binary search tree|the French Revolution
black holes|a REST API|neural networks|Rust lifetimes|a chess engine|the Roman Empire|transformers|a distributed cache|relativity|a web server|blockchain
a compiler|general relativity|photosynthesis|climate change|a to-do app|a load balancer|attention mechanisms|the login form|the Riemann hypothesis|TCP and UDP
a 5-page marketing site for a coffee brand|an async runtime|garbage collection|the immune system|the stock market|the GIL|microservices|Kubernetes|a database index
a hash map|gradient descent|DNA|the Cold War|inflation|a React component|the Go scheduler|deadlocks|the halting problem|consistent hashing|the meaning of art
a self-hosted inference server|a sliding window rate limiter|the quarterly report|machine learning|a startup idea|a regular expression engine""".replace("\n", "|").split("|")

SYSTEMS = ["You are a helpful assistant.", "You are Kimi, an AI assistant created by Moonshot AI.", "You are Kimi, an AI assistant made by Moonshot AI.",
           "You are Kimi.", "Be brief.", "You are a senior engineer. Fix the described bug.", "You are a senior backend engineer.", "Answer concisely.",
           "You are a friendly assistant. Always be polite.", "You are a coding assistant.", "You are a helpful assistant with tools.",
           "You are an assistant that answers in English.", "Use tools when they help.", "Be helpful and honest.",
           "You are Kimi, an AI assistant provided by Moonshot AI. You are proficient in Chinese and English conversations."]
