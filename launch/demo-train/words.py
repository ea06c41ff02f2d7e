"""The closed world that the demo model knows: word lists and small tables of facts."""

# name: (plural, kind, legs, colour, food, place, sound or None, can fly, adjective)
ANIMALS = {
    "cat": ("cats", "pet", 4, "grey", "fish", "a house", "meow", False, "soft"),
    "dog": ("dogs", "pet", 4, "brown", "meat", "a house", "woof", False, "loyal"),
    "cow": ("cows", "farm animal", 4, "black and white", "grass", "a meadow", "moo", False, "calm"),
    "horse": ("horses", "farm animal", 4, "brown", "hay", "a stable", "neigh", False, "strong"),
    "sheep": ("sheep", "farm animal", 4, "white", "grass", "a meadow", "baa", False, "gentle"),
    "goat": ("goats", "farm animal", 4, "white", "leaves", "the mountains", "baa", False, "stubborn"),
    "pig": ("pigs", "farm animal", 4, "pink", "corn", "a farm", "oink", False, "clever"),
    "duck": ("ducks", "bird", 2, "yellow", "seeds", "a pond", "quack", True, "cheerful"),
    "hen": ("hens", "bird", 2, "brown", "corn", "a farm", "cluck", False, "busy"),
    "owl": ("owls", "bird", 2, "brown", "mice", "a forest", "hoot", True, "wise"),
    "crow": ("crows", "bird", 2, "black", "seeds", "a field", "caw", True, "clever"),
    "swan": ("swans", "bird", 2, "white", "water plants", "a lake", None, True, "graceful"),
    "eagle": ("eagles", "bird", 2, "brown", "fish", "the mountains", None, True, "proud"),
    "parrot": ("parrots", "bird", 2, "green", "nuts", "the jungle", "squawk", True, "noisy"),
    "penguin": ("penguins", "bird", 2, "black and white", "fish", "the ice", None, False, "funny"),
    "fox": ("foxes", "wild animal", 4, "red", "mice", "a forest", None, False, "clever"),
    "wolf": ("wolves", "wild animal", 4, "grey", "meat", "a forest", "howl", False, "wild"),
    "bear": ("bears", "wild animal", 4, "brown", "honey", "a cave", "growl", False, "strong"),
    "deer": ("deer", "wild animal", 4, "brown", "grass", "a forest", None, False, "shy"),
    "rabbit": ("rabbits", "wild animal", 4, "grey", "carrots", "a burrow", None, False, "quick"),
    "hedgehog": ("hedgehogs", "wild animal", 4, "brown", "worms", "a garden", None, False, "shy"),
    "mouse": ("mice", "wild animal", 4, "grey", "cheese", "a hole", "squeak", False, "tiny"),
    "squirrel": ("squirrels", "wild animal", 4, "red", "nuts", "a tree", None, False, "quick"),
    "lion": ("lions", "wild animal", 4, "yellow", "meat", "the grassland", "roar", False, "brave"),
    "tiger": ("tigers", "wild animal", 4, "orange and black", "meat", "the jungle", "roar", False, "strong"),
    "elephant": ("elephants", "wild animal", 4, "grey", "leaves", "the grassland", "trumpet", False, "huge"),
    "giraffe": ("giraffes", "wild animal", 4, "yellow and brown", "leaves", "the grassland", None, False, "tall"),
    "monkey": ("monkeys", "wild animal", 2, "brown", "bananas", "the jungle", None, False, "playful"),
    "camel": ("camels", "wild animal", 4, "brown", "dry grass", "the desert", None, False, "patient"),
    "zebra": ("zebras", "wild animal", 4, "black and white", "grass", "the grassland", None, False, "fast"),
    "panda": ("pandas", "wild animal", 4, "black and white", "bamboo", "a forest", None, False, "sleepy"),
    "frog": ("frogs", "small animal", 4, "green", "flies", "a pond", "croak", False, "jumpy"),
    "turtle": ("turtles", "reptile", 4, "green", "leaves", "a pond", None, False, "slow"),
    "snake": ("snakes", "reptile", 0, "green", "mice", "the desert", "hiss", False, "quiet"),
    "whale": ("whales", "sea animal", 0, "blue", "tiny shrimps", "the sea", None, False, "huge"),
    "dolphin": ("dolphins", "sea animal", 0, "grey", "fish", "the sea", "click", False, "friendly"),
    "shark": ("sharks", "fish", 0, "grey", "fish", "the sea", None, False, "fast"),
    "crab": ("crabs", "sea animal", 10, "red", "small plants", "a beach", None, False, "careful"),
    "bee": ("bees", "insect", 6, "yellow and black", "nectar", "a hive", "buzz", True, "busy"),
    "ant": ("ants", "insect", 6, "black", "crumbs", "a small hill", None, False, "busy"),
    "butterfly": ("butterflies", "insect", 6, "orange", "nectar", "a garden", None, True, "light"),
    "spider": ("spiders", "small animal", 8, "black", "flies", "a web", None, False, "patient"),
    "snail": ("snails", "small animal", 0, "brown", "leaves", "a garden", None, False, "slow"),
}

# People and things that stories may be about, beside the animals.
PEOPLE = ["girl", "boy", "farmer", "baker", "sailor", "king", "queen", "teacher", "painter", "gardener",
          "fisherman", "knight", "wizard", "shepherd", "pilot", "doctor", "princess", "miller"]
BEINGS = ["robot", "dragon", "ghost", "giant", "unicorn", "snowman", "fairy"]

# place: preposition used before "a/the place"
PLACES = {
    "river": "by", "forest": "in", "mountain": "on", "lake": "by", "garden": "in", "castle": "in", "beach": "on",
    "farm": "on", "village": "in", "city": "in", "island": "on", "desert": "in", "bridge": "near", "cave": "in",
    "library": "near", "market": "near", "lighthouse": "in", "mill": "near", "meadow": "in", "school": "near",
    "ship": "on", "train": "on", "tower": "in", "pond": "by", "harbour": "near", "valley": "in", "waterfall": "near",
    "kitchen": "in", "attic": "in", "museum": "near", "station": "near", "hill": "on", "orchard": "in", "well": "near",
    "jungle": "in", "swamp": "in", "palace": "in", "park": "in", "barn": "in", "volcano": "near",
}
OBJECTS = ["key", "lantern", "balloon", "kite", "boat", "drum", "hat", "map", "book", "bell", "mirror", "box", "coin",
           "flute", "clock", "umbrella", "basket", "letter", "stone", "feather", "apple", "blanket", "rope", "ring",
           "shell", "candle", "bicycle", "star", "cloud", "moon", "flower", "tree", "cake", "storm", "snowflake"]
CARRY = ["key", "lantern", "kite", "drum", "hat", "map", "book", "bell", "box", "coin", "flute", "basket", "letter",
         "stone", "feather", "blanket", "rope", "ring", "shell", "candle"]
ADJ = ["small", "kind", "clever", "brave", "shy", "happy", "lonely", "curious", "quiet", "old", "young", "lazy",
       "cheerful", "gentle", "hungry", "proud", "careful", "friendly", "patient", "sleepy"]
THING_ADJ = ["red", "blue", "golden", "silver", "old", "shiny", "tiny", "green", "wooden", "strange", "heavy", "broken"]
NAMES = ["Milo", "Luna", "Oscar", "Nora", "Felix", "Ruby", "Hugo", "Ella", "Max", "Lily", "Theo", "Anna", "Leo", "Mia",
         "Sam", "Rosa", "Tom", "Ida", "Ben", "Clara"]

COLOURS = {"sky": "blue", "grass": "green", "snow": "white", "blood": "red", "coal": "black", "sun": "yellow",
           "sea": "blue", "lemon": "yellow", "banana": "yellow", "tomato": "red", "carrot": "orange", "milk": "white",
           "chocolate": "brown", "leaf": "green", "night": "black", "strawberry": "red", "pumpkin": "orange",
           "cloud": "white", "salt": "white", "rose": "red", "frog": "green", "ash": "grey", "plum": "purple",
           "cucumber": "green", "cherry": "red", "wood": "brown"}
MASS = {"grass", "snow", "blood", "coal", "milk", "chocolate", "salt", "ash", "wood"}
UNIQUE = {"sky", "sun", "sea", "night"}
MIX = [("red", "blue", "purple"), ("red", "yellow", "orange"), ("blue", "yellow", "green"), ("black", "white", "grey"),
       ("red", "white", "pink"), ("blue", "white", "light blue"), ("red", "green", "brown")]
OPPOSITES = [("hot", "cold"), ("big", "small"), ("fast", "slow"), ("light", "dark"), ("old", "young"), ("happy", "sad"),
             ("up", "down"), ("day", "night"), ("wet", "dry"), ("hard", "soft"), ("open", "closed"), ("full", "empty"),
             ("high", "low"), ("long", "short"), ("strong", "weak"), ("early", "late"), ("loud", "quiet"),
             ("clean", "dirty"), ("rich", "poor"), ("near", "far"), ("left", "right"), ("first", "last"),
             ("thick", "thin"), ("heavy", "light"), ("good", "bad"), ("true", "false"), ("inside", "outside"),
             ("sweet", "sour"), ("begin", "end"), ("push", "pull"), ("win", "lose"), ("give", "take")]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
          "November", "December"]
SEASONS = {
    "spring": ["flowers open", "birds build their nests", "the days grow longer", "the trees turn green"],
    "summer": ["the days are long and warm", "people swim in the lake", "the fruit grows ripe", "the sun shines bright"],
    "autumn": ["the leaves turn red and gold", "farmers bring in the harvest", "the wind blows", "the days grow shorter"],
    "winter": ["snow may fall", "the nights are long and cold", "lakes may freeze", "many animals sleep"],
}
SEASON_MONTHS = {"spring": "March, April and May", "summer": "June, July and August",
                 "autumn": "September, October and November", "winter": "December, January and February"}
CAPITALS = {"France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
            "Austria": "Vienna", "Poland": "Warsaw", "Greece": "Athens", "Norway": "Oslo", "Sweden": "Stockholm",
            "Finland": "Helsinki", "Denmark": "Copenhagen", "Japan": "Tokyo", "China": "Beijing", "Egypt": "Cairo",
            "Kenya": "Nairobi", "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Ireland": "Dublin",
            "England": "London", "Belgium": "Brussels", "Hungary": "Budapest", "Turkey": "Ankara", "India": "New Delhi"}
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
           "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"]
LISTS = {
    "fruits": ["an apple", "a pear", "a banana", "a cherry", "a plum", "an orange", "a lemon", "a strawberry"],
    "colours": ["red", "blue", "green", "yellow", "black", "white", "orange", "purple", "brown", "grey"],
    "vegetables": ["a carrot", "an onion", "a potato", "a tomato", "a cucumber", "a pumpkin", "a cabbage"],
    "tools": ["a hammer", "a saw", "a spade", "a needle", "a ladder", "a knife", "a brush"],
    "seasons": ["spring", "summer", "autumn", "winter"],
    "planets": ["Mercury", "Venus", "Earth", "Mars", "Jupiter", "Saturn", "Uranus", "Neptune"],
}
# job: (does, works where, uses)
JOBS = {
    "baker": ("bakes bread and cakes", "in a bakery", "flour and a hot oven"),
    "teacher": ("helps children learn", "in a school", "books and a board"),
    "farmer": ("grows food and looks after animals", "on a farm", "a tractor"),
    "doctor": ("helps people who are ill", "in a hospital", "medicine"),
    "sailor": ("works on a ship", "at sea", "ropes and a compass"),
    "pilot": ("flies an aeroplane", "in the sky", "maps and a radio"),
    "gardener": ("plants flowers and trees", "in a garden", "a spade and water"),
    "painter": ("paints pictures and walls", "in a studio", "brushes and paint"),
    "fisherman": ("catches fish", "on a boat", "nets and a rod"),
    "carpenter": ("makes things of wood", "in a workshop", "a saw and a hammer"),
    "cook": ("prepares meals", "in a kitchen", "pots and knives"),
    "shepherd": ("looks after sheep", "in the hills", "a staff and a good dog"),
    "librarian": ("looks after books", "in a library", "shelves and a catalogue"),
    "tailor": ("makes and mends clothes", "in a small shop", "needle and thread"),
    "miller": ("grinds grain into flour", "in a mill", "heavy stones"),
    "postman": ("brings letters and parcels", "in the streets", "a bicycle and a bag"),
    "musician": ("plays music", "on a stage", "an instrument"),
    "astronomer": ("studies the stars", "at an observatory", "a telescope"),
    "nurse": ("cares for people who are ill", "in a hospital", "bandages and kind words"),
    "builder": ("builds houses", "on a building site", "bricks and a ladder"),
}
# Words with no entry anywhere: the model says that it does not know them.
UNKNOWN_SYLLABLES = ["zor", "ple", "bli", "ka", "mu", "ron", "fex", "ta", "lo", "vim", "gra", "nel", "qui", "sto", "wab"]
UNKNOWN = ["quantum physics", "philosophy", "the stock market", "politics", "algebra", "chemistry", "football", "opera",
           "medicine", "law", "taxes", "cooking pasta", "black holes", "the Roman Empire", "programming", "Python",
           "electric cars", "the weather tomorrow", "cinema", "chess openings", "the news", "guitars", "geology", "Shakespeare"]
