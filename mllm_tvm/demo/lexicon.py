"""The word lists of the story generator: data only, read by `stories` and named in `plots`."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(" ".join(phrase.split()) for phrase in text.split(",") if phrase.strip())


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in (phrase.split("/") for phrase in _phrases(text)))


def _triples(text: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((first, second, third) for first, second, third in (p.split("/") for p in _phrases(text)))


def _places(preposition: str, nouns: str) -> tuple[tuple[str, str], ...]:
    return tuple((preposition, "the " + noun) for noun in _phrases(nouns))


GIRL_NAMES = _words(
    "Mia Lily Anna Emma Rosa Clara Ella Nora Ivy Ruby Alice Lucy Molly Daisy Hazel Sophie Maya Zoe Lena Tess "
    "Greta Nina Olive Poppy Penny Fern Willa Iris Flora June Marta Elsa Kira Amina Leila Priya Sana Yuki Mei "
    "Lola Carmen Ines Freya Astrid Heidi Bella Dora Edith Fiona Gemma Holly Jenny Katie Maggie Nell Pearl "
    "Robin Sally Tilda Vera"
)
BOY_NAMES = _words(
    "Tom Ben Sam Max Leo Jack Finn Noah Oscar Hugo Theo Eli Milo Felix Jonas Peter Henry Arthur Simon Toby "
    "Oliver Daniel Lucas Owen Jasper Emil Otto Anton Karl Ravi Omar Kofi Diego Pablo Marco Luca Hiro Kenji "
    "Amir Tariq Andre Boris Casper Dylan Edgar Frank George Harvey Ivan Jules Kip Lars Martin Ned Patrick "
    "Rufus Stefan Victor Walter Wim"
)
ANIMAL_NAMES_HE = _words(
    "Rusty Bramble Pip Barnaby Chester Dusty Mossy Pepper Biscuit Waffles Tumble Nibbles Ziggy Buster Acorn "
    "Thistle Bruno Copper Domino Figaro Gus Hopper Jumper Marble Noodle Patch Quill Scout Tuck Whiskers "
    "Rocky Sprout Flint"
)
ANIMAL_NAMES_SHE = _words(
    "Clover Honey Velvet Misty Snowdrop Bluebell Ginger Cinnamon Maple Pebble Juniper Lulu Coco Dotty Petal "
    "Tansy Sorrel Willow Buttercup Cricket Duchess Echo Feather Goldie Luna Mimi Nutmeg Plum Quinny Sparkle "
    "Twinkle Winnie"
)

SMALL_ANIMALS = _words(
    "fox rabbit mouse squirrel hedgehog badger otter bear duck goose frog turtle cat kitten puppy dog hen "
    "lamb goat donkey pony pig owl crow sparrow robin raccoon mole beaver deer monkey elephant lion tiger "
    "penguin seal panda koala kangaroo parrot toad lizard hamster ferret weasel swan sheep calf camel zebra "
    "giraffe"
)
TINY_ANIMALS = _words(
    "ladybird beetle butterfly snail bee ant moth spider caterpillar grasshopper dragonfly newt chick "
    "duckling gosling minnow bat wren swallow finch starling fawn cub foal piglet owlet leveret"
)
JOBS = _words(
    "baker farmer miller tailor carpenter blacksmith fisherman gardener shepherd potter painter clockmaker "
    "cobbler weaver librarian teacher doctor postman sailor captain cook beekeeper toymaker musician "
    "miner shopkeeper innkeeper builder butcher candlemaker woodcutter ferryman locksmith "
    "florist"
)

CHILD_TRAITS = _words(
    "brave curious clever kind gentle quiet shy cheerful stubborn careful playful dreamy lively honest "
    "patient busy thoughtful bold friendly hopeful merry polite proud restless silly sleepy hungry lonely "
    "impatient forgetful generous grumpy timid nosy adventurous"
)
SIZES = _words("little little small young")

MATERIALS = _words("wooden silver golden glass copper brass tin clay stone ivory")
CLOTHS = _words("velvet woollen silk leather cotton linen felt")
CHINA = _words("china glass clay crystal silver porcelain")
COLOURS = _words(
    "red blue green yellow orange purple pink white black brown grey scarlet crimson turquoise violet silvery"
)
LOOKS = _words(
    "shiny old tiny pretty beautiful little striped spotted round dusty bright battered crooked lucky "
    "favourite new painted simple strange odd lovely smooth heavy splendid handsome worn"
)
THINGS = _phrases(
    "drum, lantern, button, whistle, map, key, ring, necklace, bracelet, basket, bucket, spoon, cup, flute, "
    "trumpet, fiddle, bell, box, marble, compass, spyglass, umbrella, lamp, watch, pencil, paintbrush, "
    "puzzle, top, yo-yo, robot, wagon, sailboat, brooch, locket, medal, crown, mask, candle, comb, mirror, "
    "thimble, hammer, magnet, telescope, snow globe, music box, star, toy boat, toy train, rocking horse, "
    "toy dragon, harmonica, tambourine, bow, sled, birdcage, chess piece, doll, kaleidoscope, inkwell, "
    "pocket knife, horseshoe, snuffbox, weathercock"
)
SOFT_TREASURES = _phrases(
    "hat, scarf, mitten, glove, boot, shoe, blanket, pillow, ribbon, cape, apron, jacket, sweater, purse, "
    "bag, belt, teddy bear, puppet, rag doll, ball, cap, slipper, cushion, cloak, waistcoat, book, notebook, "
    "pouch"
)
BREAKABLES = _phrases(
    "vase, teapot, cup, plate, bowl, jug, mirror, lamp, clock, pitcher, jar, bottle, mug, teacup, saucer, "
    "statue, flowerpot, dish, lantern, music box, snow globe, sugar bowl, candlestick, goblet"
)
BUILDS = _phrases(
    "raft, treehouse, boat, bridge, birdhouse, cart, sled, swing, kennel, tower, windmill, scarecrow, bench, "
    "ladder, shelter, snowman, sandcastle, kite, rocking chair, wagon, fence, fort, hut, flying machine, "
    "water wheel, rabbit hutch, puppet theatre, dam, stage, toy castle"
)
PARTS = _phrases(
    "planks, nails, ropes, branches, logs, old boxes, sticks, stones, wheels, barrels, boards, reeds, scraps "
    "of cloth, buttons, bits of string, corks, crates, poles, pegs, hooks"
)
TOOLS = _words("hammer saw shovel ladder rope bucket broom ruler wheelbarrow axe brush pulley spade chisel")

# Places come with the preposition that puts somebody there; "to the ..." fits all of them.
PLACES = (
    *_places(
        "in",
        "forest, meadow, garden, orchard, valley, village square, park, barn, wood, old mill, castle, cave, "
        "cornfield, stable, greenhouse, harbour, schoolyard, jungle",
    ),
    *_places(
        "by",
        "river, sea, lake, pond, stream, well, waterfall, fountain, canal, old oak, windmill, gate, haystack",
    ),
    *_places(
        "on",
        "hill, beach, bridge, hilltop, island, farm, playground, riverbank, cliff, mountain path, shore",
    ),
    *_places(
        "at",
        "market, railway station, fair, zoo, lighthouse, crossroads, old tower, dock, inn",
    ),
    *_places(
        "under",
        "willow, bridge, chestnut tree, big apple tree, old pier",
    ),
    *_places(
        "near",
        "swamp, bamboo grove, stone wall, vineyard, post office, church, quarry, blacksmith's forge",
    ),
)
FAR_PLACES = _phrases(
    "the far side of the mountain, the edge of the sea, the top of the highest hill, the great waterfall, "
    "the island in the middle of the lake, the city of lights, the end of the rainbow, the valley of echoes, "
    "the deep green forest, the old castle on the cliff, the frozen north, the golden desert, the crystal "
    "cave, the town beyond the river, the garden of a thousand roses, the lighthouse at the end of the "
    "world, the silver lake, the land of clouds, the house where the wind sleeps, the singing stones"
)
HIDING_PLACES = _phrases(
    "under a pile of leaves, behind a barrel, inside an old boot, in a hollow log, beneath a bush, in a "
    "bird's nest, between two stones, under a bench, at the bottom of a basket, inside a flowerpot, behind "
    "the shed, in the tall grass, under a mushroom, in a muddy puddle, on a low branch, inside a pumpkin, "
    "beside the pump, in the pocket of an old coat, under a fern, in a rabbit hole, on the roof, in the "
    "woodpile, under a wheelbarrow, beside the garden gate"
)
TOWN_STARTS = _words(
    "Willow Maple Stone River Apple Honey Green Silver Rose Oak Fox Clear Meadow Winter Sunny Rain Moon"
)
TOWN_ENDS = _words("brook wood bridge field dale town hill ford haven well")
TOWN_LOOKS = _words(
    "small quiet busy sleepy pretty windy sunny snowy green tiny crowded noisy peaceful faraway"
)
TOWN_KINDS = _words("village town valley harbour kingdom")
HOUSES = _phrases(
    "a small house with a red door, a cottage near the woods, a yellow house by the sea, a house full of "
    "books, a farmhouse on a hill, a tall house with crooked chimneys, a little flat above the bakery, a "
    "stone cottage, a blue house at the end of the lane, a houseboat on the river, a cosy cabin, a narrow "
    "house beside the church, an old mill, a white house with green shutters"
)
DENS = _phrases(
    "a hollow tree, a burrow under the roots of an oak, a warm barn, a den in the hillside, a nest of moss "
    "and straw, a cosy hole beneath the hedge, a little hut made of twigs, a cave behind a waterfall, an "
    "empty barrel, a shady corner of the garden, an old boat by the lake, a snug house under the hill, a "
    "stable full of hay"
)
FAMILY_SHE = _words("mother grandmother aunt sister")
FAMILY_HE = _words("father grandfather uncle brother")

HOBBIES = _pairs(
    "paint pictures/painting pictures, sing songs/singing songs, climb trees/climbing trees, read "
    "books/reading books, collect shells/collecting shells, bake cakes/baking cakes, watch the "
    "stars/watching the stars, dance in the rain/dancing in the rain, fly kites/flying kites, tell "
    "jokes/telling jokes, play hide and seek/playing hide and seek, draw maps/drawing maps, count "
    "clouds/counting clouds, chase butterflies/chasing butterflies, swim in the lake/swimming in the lake, "
    "build towers/building towers, plant flowers/planting flowers, listen to stories/listening to stories, "
    "skip stones/skipping stones, play the flute/playing the flute, pick berries/picking berries, explore "
    "the woods/exploring the woods, feed the ducks/feeding the ducks, jump over puddles/jumping over "
    "puddles, write poems/writing poems, play marbles/playing marbles, look for treasure/looking for "
    "treasure, ask questions/asking questions, whistle tunes/whistling tunes, mend old things/mending old "
    "things, roll down hills/rolling down hills, sail paper boats/sailing paper boats, catch fish/catching "
    "fish, knit scarves/knitting scarves, cook soup/cooking soup, gather mushrooms/gathering mushrooms, ride "
    "bicycles/riding bicycles, play chess/playing chess, make puppets/making puppets, solve riddles/solving "
    "riddles, sleep in the sun/sleeping in the sun"
)
SKILLS = _phrases(
    "ride a bicycle, play the violin, swim across the lake, bake bread, tie knots, whistle, juggle, skate on "
    "the ice, read long words, play the piano, climb a rope, paint a portrait, sail a boat, catch a fish, "
    "knit a scarf, dance the waltz, throw a ball, jump over the stream, sew a shirt, play the trumpet, row a "
    "boat, do a handstand, cook pancakes, write in neat letters, make a paper bird, walk on stilts, drive a "
    "cart, carve a spoon, milk a goat, beat a drum, sing in tune, light a campfire, shear a sheep, ski down "
    "the slope, weave a basket, fly a kite"
)
CONTESTS = _triples(
    "running race/run/running, baking contest/bake/baking, singing contest/sing/singing, boat "
    "race/row/rowing, swimming race/swim/swimming, drawing contest/draw/drawing, dancing "
    "contest/dance/dancing, sack race/hop/hopping, spelling contest/spell/spelling, skating "
    "race/skate/skating, climbing contest/climb/climbing, juggling contest/juggle/juggling, riding "
    "contest/ride/riding, jumping contest/jump/jumping, storytelling contest/tell stories/telling stories, "
    "chess match/play chess/playing chess, archery contest/shoot arrows/shooting arrows, pie-eating "
    "contest/eat pies/eating pies, sled race/steer a sled/steering a sled, sandcastle contest/dig/digging, "
    "poetry contest/write poems/writing poems"
)
# A fear: what is feared, and what one would do in spite of it.
FEARS = _pairs(
    "the dark/walk through the dark tunnel, deep water/cross the deep river, thunder/go out into the storm, "
    "high places/climb the tall ladder, loud noises/walk past the noisy engine, strangers/speak to the "
    "stranger at the door, spiders/go into the dusty attic, big dogs/walk past the big dog, the cellar/go "
    "down into the cellar, ghosts/open the creaking door, the forest at night/walk into the forest at night, "
    "snakes/step into the tall grass, singing in front of others/stand on the stage, the old bridge/cross "
    "the old bridge, getting lost/take the winding path alone, fire/light the lantern, bees/open the "
    "beehive, the wild sea/row out onto the wild sea, heights/climb to the top of the tower, caves/crawl "
    "into the cave, bats/go up into the bell tower, the giant/knock on the door of the giant"
)
SECRETS = _phrases(
    "a hidden door, a tiny staircase, a map drawn in red ink, a nest of blue eggs, a garden behind the wall, "
    "a box full of letters, a tunnel under the hill, a family of mice, a sleeping dragon, a well that could "
    "talk, a room full of clocks, a baby owl, a chest of old coins, a tree with silver leaves, a lamp that "
    "never went out, a rabbit with three white kits, a boat with golden sails, a stone that glowed in the "
    "dark, a forgotten playground, a piano covered with dust, a window painted shut, a spring of warm water, "
    "a field of wild strawberries, a cave full of crystals, a snow-white deer"
)
NOISES = _phrases(
    "a soft tapping, a long howl, a low growl, a strange humming, a loud crash, a tiny squeak, a sad "
    "whimper, a slow scratching, a faint song, a rattling, a rustling, a gentle knocking, a deep rumble, a "
    "splash, a whisper, a ringing, a buzzing, a creaking, a hiss, a hoot, a snuffling, a clinking"
)
# A strange noise, and what makes it.
CULPRITS = _pairs(
    "a slow scratching/a baby squirrel looking for a home, a loud crunching/a hedgehog eating an apple, a "
    "sad hoot/an owl with a broken feather, a hollow banging/a loose shutter swinging in the wind, a long "
    "howl/a puppy caught behind the gate, a strange rattling/a kitten stuck in a bucket, a soft tapping/a "
    "branch brushing against the glass, a tiny rustling/a mouse making a bed, a faint crying/a lost lamb, a "
    "wet splashing/a frog in the watering can, a sharp hiss/a kettle on the stove, a gentle tugging/a goat "
    "chewing a rope, a loud clinking/a crow tapping on a tin can, a slow ticking/an old clock that had woken "
    "up, a strange buzzing/a beetle in a paper bag, a soft splash/a raccoon washing a plum, a faint "
    "ringing/a bell tied to a cow, a terrible sneeze/a young fox with a cold, a deep rumble/an old badger "
    "snoring in the hay, a creaking/a rocking chair moved by the wind, a low growl/a dog dreaming of bones"
)
INJURIES = _phrases(
    "had hurt a wing, had a thorn in one paw, was caught in a net, was stuck in the mud, had fallen into a "
    "hole, was tangled in the brambles, had hurt a leg, was shivering with cold, was trapped under a branch, "
    "was too hungry to move, had fallen from the nest, could not find the way home, was stuck in a fence, "
    "was floating on a broken log, was locked in a shed"
)
RESCUED = _words(
    "sparrow kitten fawn lamb puppy duckling rabbit hedgehog owl squirrel goat calf pony swan crow seal "
    "turtle foal"
)
STEEDS = _phrases(
    "on foot, by boat, in a cart, on a bicycle, by train, on a donkey, in a balloon, on a sled, on a raft"
)
OBSTACLES = _pairs(
    "a wide river/found a row of stepping stones, a steep cliff/climbed slowly with a rope, a thick "
    "fog/followed the sound of a bell, a locked gate/looked for the key under a stone, a grumpy troll/told "
    "it a funny joke, a broken bridge/laid a log across the gap, a dark tunnel/lit a candle, a field of "
    "thorns/crawled along a rabbit path, a fierce goose/gave it some bread, a deep swamp/walked on fallen "
    "branches, a snowdrift/dug a path with a spoon, a high wall/stood on an old barrel, a sleeping "
    "giant/tiptoed past his boots, a fork in the road/asked a snail for the way, a hungry wolf/shared some "
    "cheese with it, a wild wind/held on to a strong tree, a heap of fallen rocks/moved the stones one by "
    "one, a deep ditch/built a little bridge, a herd of cows/waited until they had passed, a swarm of "
    "bees/walked by without a sound, a frozen lake/slid across on a wooden board, a maze of hedges/always "
    "turned to the left, a proud peacock/praised its fine tail"
)
PLANTS = _phrases(
    "sunflower, pumpkin, apple tree, rosebush, cherry tree, tulip, bean, pear tree, tomato, lemon tree, "
    "melon, lily, strawberry plant, walnut tree, cabbage, blueberry bush, orange tree, carrot, poppy, "
    "grapevine, plum tree, turnip"
)
FLOWERS = _words(
    "roses daisies tulips violets lilies poppies bluebells buttercups primroses daffodils pansies marigolds"
)
TREES = _words("oak willow birch chestnut beech maple elm pine walnut linden")
FRUITS = _words(
    "apple cherry plum pear blueberry strawberry apricot peach lemon raspberry pumpkin blackberry fig"
)
VEGETABLES = _words("carrot onion potato pea bean leek tomato mushroom cabbage turnip")
FOODS = _phrases(
    "warm bread, fresh honey, ginger biscuits, hot soup, roasted chestnuts, pancakes, sweet buns, toasted "
    "cheese, oatmeal, ripe berries, nuts and raisins, chocolate, cookies, noodles, dumplings, sandwiches, "
    "jam tarts, waffles, boiled eggs, buttered toast, popcorn, sugar plums, porridge, rice pudding, muffins, "
    "baked apples"
)
SOLID_FOODS = _phrases(
    "ginger biscuits, roasted chestnuts, pancakes, sweet buns, ripe berries, nuts, cookies, sandwiches, jam "
    "tarts, waffles, boiled eggs, sugar plums, muffins, baked apples, red apples, honey cakes, walnuts, "
    "carrots, oatcakes"
)
DRINKS = _phrases(
    "hot cocoa, mint tea, warm milk, lemonade, apple juice, cold water, honey tea, cider, ginger tea"
)
SEASONS = _words("spring summer autumn winter")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
DAY_PARTS = _words("morning afternoon evening")
MORNING_LOOKS = _words(
    "sunny windy cold warm rainy bright misty cloudy frosty quiet golden fine grey hot cool snowy"
)
SMELLS = _phrases(
    "fresh grass, wet leaves, salt and seaweed, pine needles, warm hay, woodsmoke, roses, lavender, new "
    "bread, rain, apples, mint, oranges, clover"
)
SKY_LINES = _phrases(
    "The sun was shining, A soft rain was falling, The wind was blowing, Snow lay on the roofs, The sky was "
    "clear, Birds were singing, Bees were humming, White clouds drifted by, The leaves were turning gold, "
    "Frost covered the grass, The moon was round and bright, Swallows flew over the fields, Fog lay over the "
    "valley, A rainbow hung in the sky, The grass was full of dew, Thunder grumbled far away, The first "
    "stars were out, Crickets were chirping"
)
SAD = _words("sad worried upset unhappy miserable gloomy disappointed heartbroken troubled sorry lonely")
GLAD = _words(
    "happy glad delighted cheerful joyful pleased overjoyed thrilled proud content grateful excited"
)
SCARED = _words("afraid scared frightened nervous terrified anxious uneasy")
TIRED = _words("tired weary sleepy exhausted hungry thirsty cold")
SLOWLY = _words(
    "slowly carefully quietly gently bravely calmly patiently steadily softly nervously cautiously"
)
QUICKLY = _words("quickly eagerly suddenly swiftly happily hurriedly cheerfully proudly boldly")
KIND_LOOKS = _words("kind wise old gentle friendly cheerful clever tall funny white-haired busy quiet")
PEOPLE = _words("neighbours villagers children farmers fishermen sailors travellers shopkeepers families")
DANCES = _words("danced sang cheered clapped laughed feasted celebrated")
EXCLAIM = _phrases("Oh no, Oh dear, Goodness me, Good heavens, My goodness, Bother, Alas")
DELIGHT = _phrases("Hurray, Hooray, Wonderful, How marvellous, Look, At last, What luck, Splendid, Bravo")
NUMBERS = _words("two three four five six seven eight nine ten eleven twelve twenty")
BODY = _words("knees legs feet shoulders arms")
SOUNDS = _words("bump thud crack splash crash snap whoosh clatter pop bang")
GROUND = _words("grass moss sand snow leaves mud straw clover heather")
ROOMS = _words("kitchen bedroom attic cellar hallway parlour pantry workshop")
FURNITURE = _words("table chair shelf stool cupboard windowsill dresser desk armchair bench")
INSTRUMENTS = _words("fiddle flute drum accordion guitar trumpet harp banjo piano")
GAMES = _phrases(
    "tag, hide and seek, leapfrog, marbles, catch, hopscotch, cards, dominoes, blind man's buff, checkers"
)
PRIZES = _phrases(
    "a golden cup, a silver medal, a blue ribbon, a basket of fruit, a big cake, a shiny trophy, a bag of "
    "coins, a new bicycle, a pot of honey, a paper crown, a wheel of cheese, a velvet cloak"
)
WISHES = _phrases(
    "to see the sea, to fly like a bird, to have a true friend, to find a home, to hear the mountains sing, "
    "to touch a cloud, to be as tall as a tree, to see snow, to make somebody laugh, to ride on a whale, to "
    "learn the names of the stars, to cross the desert, to have a garden, to sail around the world"
)
MAGIC = _pairs(
    "a talking fish/the fish, a tiny fairy/the fairy, an old wizard/the wizard, a fallen star/the star, a "
    "silver unicorn/the unicorn, a golden goose/the goose, a friendly ghost/the ghost, a water sprite/the "
    "sprite, a moon rabbit/the rabbit, a wooden giant/the giant, a singing tree/the tree, a glass bird/the "
    "bird, a blue dragon/the dragon, a winged horse/the horse, a cloud with a face/the cloud"
)
PET_NAMES = _words(
    "Lucky Hope Sunny Star Button Pickle Muffin Wonder Comet Sparky Happy Pudding Treasure Bumble Feathers "
    "Moonbeam"
)
ORDINALS = _words("second third fourth fifth sixth seventh")
GLEAMS = _words("shining gleaming glittering bright sparkling shimmering")
SOFT_THINGS = _phrases(
    "warm blanket, woollen shawl, soft scarf, dry towel, thick coat, old cloak, woollen jacket"
)
STORM_SKIES = _phrases(
    "black, as dark as night, grey and heavy, a strange yellow, the colour of slate, dark green"
)
