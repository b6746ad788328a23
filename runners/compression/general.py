"""A fixed set of 96 questions outside finance, for what a training costs in general ability (``forgetting.py``). Written for this project.

Each has the beginning of an answer and four ways to go on: the right one first. The ways have the same form and about the same length, so that the
style of a model (long answers, a greeting first) weighs nothing. A module and no file under ``data/``: the merge runs in a container that holds code
alone, and its id must change with the set.
"""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """A question, the beginning of its answer, the right continuation and three wrong ones."""

    question: str
    start: str
    right: str
    wrong: tuple[str, str, str]


KNOWLEDGE = (
    Item("What is the capital of France?", "The capital of France is", "Paris", ("Madrid", "Rome", "Berlin")),
    Item("Which planet is the largest in the Solar System?", "The largest planet is", "Jupiter", ("Mars", "Venus", "Mercury")),
    Item("What food do bees make?", "Bees make", "honey", ("milk", "bread", "rice")),
    Item("How many legs does a spider have?", "A spider has", "eight", ("four", "six", "ten")),
    Item("What is the chemical formula of water?", "The formula of water is", "H2O", ("CO2", "NaCl", "CH4")),
    Item("Who wrote Romeo and Juliet?", "The play was written by", "William Shakespeare", ("Charles Dickens", "Mark Twain", "Jane Austen")),
    Item("Which gas do people need to breathe?", "People need to breathe", "oxygen", ("helium", "methane", "chlorine")),
    Item("Which ocean lies between Europe and North America?", "It is the", "Atlantic", ("Pacific", "Indian", "Southern")),
    Item("In which direction does the Sun rise?", "The Sun rises in the", "east", ("west", "north", "south")),
    Item("Which organ pumps blood through the body?", "Blood is pumped by the", "heart", ("liver", "stomach", "skin")),
    Item("Which day comes after Monday?", "After Monday comes", "Tuesday", ("Friday", "Sunday", "Thursday")),
    Item("What is frozen water called?", "Frozen water is called", "ice", ("steam", "sand", "oil")),
    Item("Who was the first president of the United States?", "It was", "George Washington", ("Abraham Lincoln", "Thomas Jefferson", "John Kennedy")),
    Item("On which continent is Kenya?", "Kenya is in", "Africa", ("Europe", "Asia", "Australia")),
    Item("Which language do most people in Brazil speak?", "Most of them speak", "Portuguese", ("Spanish", "French", "German")),
    Item("Which force pulls things to the ground?", "Things are pulled to the ground by", "gravity", ("friction", "magnetism", "electricity")),
    Item("What color is a ripe banana?", "A ripe banana is", "yellow", ("blue", "purple", "gray")),
    Item("What is a young dog called?", "A young dog is called a", "puppy", ("kitten", "calf", "lamb")),
    Item("How many continents are there?", "Most schools teach that there are", "seven", ("three", "ten", "twelve")),
    Item("Which land animal is the tallest?", "The tallest land animal is the", "giraffe", ("lion", "horse", "rabbit")),
    Item("Which metal is liquid at room temperature?", "The metal is", "mercury", ("iron", "gold", "copper")),
    Item("In which country is the Great Wall?", "The Great Wall is in", "China", ("India", "Egypt", "Mexico")),
    Item("Who published the theory of relativity?", "It was published by", "Albert Einstein", ("Isaac Newton", "Charles Darwin", "Marie Curie")),
    Item("Which ocean is the largest?", "The largest ocean is the", "Pacific", ("Atlantic", "Indian", "Arctic")),
    Item("What is the capital of Japan?", "The capital of Japan is", "Tokyo", ("Beijing", "Seoul", "Bangkok")),
    Item("Which sport is played at Wimbledon?", "The sport played at Wimbledon is", "tennis", ("football", "golf", "boxing")),
    Item("Which instrument has black and white keys?", "Black and white keys belong to the", "piano", ("violin", "flute", "drum")),
    Item("Which season comes after winter?", "After winter comes", "spring", ("autumn", "summer", "winter")),
    Item("How do plants make food from sunlight?", "They do it by", "photosynthesis", ("digestion", "evaporation", "erosion")),
    Item("What do people see with?", "People see with their", "eyes", ("ears", "hands", "feet")),
    Item("Which river flows through Egypt?", "The river is the", "Nile", ("Amazon", "Danube", "Mississippi")),
    Item("In which year did the Second World War end?", "The war ended in", "1945", ("1918", "1969", "1815")),
)

ARITHMETIC = (
    Item("What is 2 + 3?", "2 + 3 =", "5", ("6", "4", "8")),
    Item("What is 10 - 4?", "10 - 4 =", "6", ("7", "5", "3")),
    Item("What is 6 times 7?", "6 times 7 is", "42", ("36", "48", "56")),
    Item("What is half of 18?", "Half of 18 is", "9", ("8", "6", "7")),
    Item("Tom has 5 apples and eats 2 of them. How many are left?", "The number of apples left is", "3", ("7", "5", "2")),
    Item("A box holds 12 eggs. How many eggs are in 3 boxes?", "The number of eggs is", "36", ("24", "15", "48")),
    Item("How many minutes are in two hours?", "Two hours have", "120 minutes", ("100 minutes", "200 minutes", "240 minutes")),
    Item("Which number comes next: 2, 4, 6, 8?", "The next number is", "10", ("12", "11", "16")),
    Item("What is 100 divided by 4?", "100 divided by 4 is", "25", ("20", "40", "50")),
    Item("A square has sides of 3 cm. What is its perimeter?", "Its perimeter is", "12 cm", ("10 cm", "15 cm", "18 cm")),
    Item("What is 9 + 8?", "9 + 8 =", "17", ("16", "18", "15")),
    Item("What is 20 - 7?", "20 - 7 =", "13", ("12", "14", "17")),
    Item("What is 5 times 9?", "5 times 9 is", "45", ("40", "54", "35")),
    Item("What is 56 divided by 8?", "56 divided by 8 is", "7", ("6", "8", "9")),
    Item("How many days are in 3 weeks?", "Three weeks have", "21 days", ("24 days", "18 days", "14 days")),
    Item("What is 15 + 27?", "15 + 27 =", "42", ("32", "41", "52")),
    Item("Anna has 4 bags with 5 marbles in each. How many marbles has she?", "The number of marbles is", "20", ("25", "16", "45")),
    Item("A book has 90 pages. Ben has read 35. How many are left?", "The number of pages left is", "55", ("65", "45", "60")),
    Item("What is twice 16?", "Twice 16 is", "32", ("26", "30", "36")),
    Item("What is 3 times 3 times 3?", "3 times 3 times 3 is", "27", ("18", "24", "36")),
    Item("Which number is the largest: 17, 71, 47, 37?", "The largest number is", "71", ("17", "47", "37")),
    Item("A pizza has 8 slices. Three are eaten. How many are left?", "The number of slices left is", "5", ("3", "6", "4")),
    Item("Which number is even: 21, 35, 44, 57?", "The even number is", "44", ("21", "35", "57")),
    Item("How many legs do three cats have together?", "Together they have", "12 legs", ("10 legs", "16 legs", "14 legs")),
    Item("A train leaves at 3 and arrives at 5. How many hours does it travel?", "The number of hours is", "2", ("3", "5", "8")),
    Item("What is 1000 - 1?", "1000 - 1 =", "999", ("990", "899", "901")),
    Item("A room is 4 m long and 6 m wide. What is its area in square meters?", "Its area in square meters is", "24", ("20", "10", "46")),
    Item("There are 3 red and 4 blue balls. How many balls are there?", "The number of balls is", "7", ("6", "8", "5")),
    Item("How many minutes are in half an hour?", "Half an hour has", "30 minutes", ("50 minutes", "15 minutes", "45 minutes")),
    Item("Which number comes next: 5, 10, 15, 20?", "The next number is", "25", ("30", "22", "40")),
    Item("How many are a dozen?", "A dozen is", "12", ("10", "20", "15")),
    Item("Seven children share 21 cherries equally. How many does each get?", "The number for each child is", "3", ("7", "4", "2")),
)

INSTRUCTIONS = (
    Item("Write the word blue in capital letters.", "In capital letters:", "BLUE", ("Blue", "blue", "BLue")),
    Item("Repeat this sentence exactly: The cat sleeps on the mat.", "The cat sleeps on the", "mat", ("floor", "sofa", "bed")),
    Item("List three colors, separated by commas.", "Red, green,", "blue", ("dog", "seven", "house")),
    Item("Translate the word water into Spanish.", "The Spanish word is", "agua", ("perro", "casa", "libro")),
    Item(
        "Put these words in alphabetical order: pear, apple, cherry.",
        "In alphabetical order:",
        "apple, cherry, pear",
        ("pear, apple, cherry", "cherry, pear, apple", "pear, cherry, apple"),
    ),
    Item("Name the opposite of hot.", "The opposite of hot is", "cold", ("fast", "green", "loud")),
    Item("Count from 1 to 5.", "1, 2, 3, 4,", "5", ("7", "9", "1")),
    Item("Put this sentence in the past tense: I drink water.", "Yesterday I", "drank", ("drink", "drunk", "will")),
    Item("Answer yes or no: is ice cold?", "The answer is", "yes", ("no", "maybe", "never")),
    Item("Which word does not belong: cat, dog, chair, horse?", "The word that does not belong is", "chair", ("cat", "dog", "horse")),
    Item("Write the number 7 as a word.", "The word is", "seven", ("six", "nine", "four")),
    Item("Give the plural of the word child.", "The plural is", "children", ("childs", "childes", "childer")),
    Item("Name the first letter of the word garden.", "The word garden begins with the letter", "g", ("n", "d", "r")),
    Item("Count backwards from 5.", "5, 4, 3,", "2", ("4", "6", "5")),
    Item("Choose the word that rhymes with cat: dog, hat, tree, fish.", "The word that rhymes with cat is", "hat", ("dog", "tree", "fish")),
    Item("In one word: what do you call a person who teaches?", "A person who teaches is a", "teacher", ("doctor", "farmer", "driver")),
    Item("Is the writer happy or sad? Text: We won, what a wonderful day!", "The writer is", "happy", ("sad", "angry", "tired")),
    Item("Is the writer happy or sad? Text: My dog died this morning.", "The writer is", "sad", ("happy", "proud", "glad")),
    Item("Text: Maria has a red bicycle. Question: what color is it?", "The bicycle is", "red", ("blue", "green", "black")),
    Item("Text: The game was moved from Monday to Friday. Question: when is it?", "The game is on", "Friday", ("Monday", "Sunday", "Tuesday")),
    Item("Say hello in French.", "In French, hello is", "bonjour", ("gracias", "danke", "ciao")),
    Item("Replace dog by cat in this sentence: The dog runs.", "The", "cat", ("dog", "bird", "horse")),
    Item("Which of these is a fruit: hammer, banana, table, shirt?", "The fruit is the", "banana", ("hammer", "table", "shirt")),
    Item("Continue this list with the next day: Monday, Tuesday, Wednesday.", "The next day is", "Thursday", ("Sunday", "Monday", "Saturday")),
    Item("Turn this sentence into a question: You are tired.", "As a question:", "Are you tired?", ("You are tired.", "I am tired.", "You were tired.")),
    Item("Give a word that means the same as big.", "A word that means the same is", "large", ("small", "slow", "cold")),
    Item("Which word is misspelled: house, freind, water, green?", "The misspelled word is", "freind", ("house", "water", "green")),
    Item("Name the animal in this sentence: The old horse stood by the gate.", "The animal is a", "horse", ("gate", "dog", "sheep")),
    Item("Peter is taller than Jim. Give the name of the taller one.", "The taller one is", "Peter", ("Jim", "Anna", "Mary")),
    Item("Spell the word sun with a dash between the letters.", "The word is spelled", "s-u-n", ("s-n-u", "n-u-s", "u-s-n")),
    Item("Make a sentence of these words: red, is, the, apple.", "The apple", "is red", ("red is", "the is", "red the")),
    Item("Name the third word of this list: tree, house, river, cloud.", "The third word is", "river", ("tree", "house", "cloud")),
)

AREAS: dict[str, tuple[Item, ...]] = {"knowledge": KNOWLEDGE, "arithmetic": ARITHMETIC, "instructions": INSTRUCTIONS}
ITEMS: tuple[Item, ...] = tuple(item for items in AREAS.values() for item in items)
