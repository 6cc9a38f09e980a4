"""The templates of the story generator: data only.

Notation, expanded by `stories`: ``[a|b]`` is a choice, ``<list>`` a fresh word of a list of `lexicon`,
``{slot}`` something bound for the whole story (h is the hero, f the friend, e the elder, t the thing, p and q
places), and ``~h.mood: text~`` a spoken line, for which the generator picks verb, order and manner.
A plot is a sequence of beats, a beat a set of variants; an empty variant lets the beat be left out.
"""

from typing import NamedTuple


class Plot(NamedTuple):
    """One kind of story: what happens, step by step, and what it teaches."""

    name: str
    beats: tuple[tuple[str, ...], ...]
    ending: tuple[str, ...]
    morals: tuple[str, ...]


INTRODUCTIONS = (
    "Once upon a time, there [was|lived] {h.a} [named|called] {h}.",
    "Once upon a time, {h.a} [named|called] {h} lived in {h.home}.",
    "Once upon a time, in [a <townlook> <townkind> called|the <townlook> <townkind> of] {town}, there "
    "lived {h.a} named {h}.",
    "There was once {h.a} [named|called] {h}, who lived in {h.home}.",
    "There once was {h.a} whose name was {h}.",
    "Long ago, in {town}, there lived {h.a} [named|called] {h}.",
    "Long, long ago, {h.a} named {h} lived in {h.home}.",
    "In {h.home}, there lived {h.a} [named|called] {h}.",
    "{h} was {h.a} who lived in {h.home}.",
    "{h} was {h.a}. {h.he} lived in {h.home} [near|not far from] {p}.",
    "In the <townkind> of {town}, everybody knew {h}, {h.a}.",
    "Not so long ago, {h.a} [named|called] {h} lived near {p}.",
    "Far away, in a <townlook> <townkind>, lived {h.a} [named|called] {h}.",
)
DETAILS = (
    "",
    "{h} loved {h.hobbying} [more than anything|every day|all day long|with {h.his} friends].",
    "Every <daypart>, {h} liked to {h.hobby} [before supper|in peace and quiet|with {h.his} "
    "{family}|until it was dark].",
    "{h.he} was known for {h.hobbying}, but [most of all|above all] {h.he} loved {h.hobbying2}.",
    "{h.he} liked <foods>, [long stories|old songs|quiet evenings|rainy days|warm blankets] and "
    "{h.hobbying}.",
    "Nobody in {town} was better at {h.hobbying}.",
    "{h.he} dreamed of {h.hobbying} with somebody who would laugh at {h.his} jokes.",
    "All around grew <flowers> and <flowers>, and {h} knew every path [by heart|like an old friend].",
    "{h} had a [small|big|funny] [nose|smile|laugh|voice] and a [kind|big|brave|warm] heart.",
    "Behind the house stood an old <tree>, and there {h} liked to [sit|dream|rest|think|sing].",
    "In the <room>, there was always [a pot of <drinks>|a plate of <foods>|a smell of <foods>].",
)
MORNINGS = (
    "One day,",
    "One day,",
    "One <look_day> <daypart>,",
    "One <season> <daypart>,",
    "One <day>,",
    "On a <look_day> <day> <daypart>,",
    "Early one <look_day> morning,",
    "One <look_day> day in <season>,",
)
# The same, when the story has already begun on a certain day, and when time goes on.
SOON = ("Soon,", "Before long,", "After a while,", "That same day,", "A little later,")
LATER = ("The next day,", "A few days later,", "A week later,", "Some time later,", "Not long after,")
# Said when somebody is about to be mentioned who has not been introduced.
FRIEND_INTRODUCTIONS = (
    "{h.his} best friend was {f}, {f.a}.",
    "{h} had a friend named {f}, {f.a}.",
    "Next door lived {f}, {f.a}.",
    "Not far away lived {h.his} friend {f}, {f.a}.",
)
# Stories that begin in the middle of things, without an introduction.
DIRECT_OPENINGS = (
    "One day, {h.a} [named|called] {h} went to {p}. <sky>.",
    "One <look_day> <daypart>, {h.a} [named|called] {h} was walking [slowly|alone|happily|barefoot] to {p}.",
    "It was a <look_day> <daypart> in <season>, and {h.a} named {h} was on the way to {p}.",
    "On <day>, {h.a} named {h} woke up early. <sky>.",
    "One day, {h}, {h.a}, was sitting {p.at}. <sky>.",
)
CLOSINGS = (
    "",
    "And they all lived happily ever after.",
    "That night, {h} slept [soundly|well|deeply|peacefully] and dreamed of {h.hobbying}.",
    "From that day on, {h} was never [lonely|afraid|sad|bored] again.",
    "And if you go to {town} today, you may still hear [the story of {h}|people speak of {h}].",
    "The end.",
    "And that is how [the story ends|it all ended|{h} became the most famous {h.kind} in {town}].",
    "When the moon rose over {p}, {h} was [already asleep|fast asleep|still smiling].",
    "{h} went home with a [light|warm|happy|full] heart.",
    "And for supper, everybody had <foods>.",
    "The <people> of {town} still [tell|remember|love] this story.",
    "{h} smiled, [closed {h.his} eyes|looked up at the stars|had some <drinks>] and was <glad>.",
)

LOST_THING = Plot(
    "lost thing",
    (
        (
            "{h} had {t.a}, [and {h.he} took it everywhere|a present from {h.his} {family}|and it was "
            "{h.his} dearest treasure].",
            "{h.his} greatest treasure was {t.a}. [It had come from {h.his} {family}|{h.he} had found it "
            "{q.at}|"
            "{h.he} kept it in a little box].",
            "{h} owned {t.a}, and {h.he} [polished it every <daypart>|never let it out of sight|loved it "
            "dearly].",
        ),
        (
            "{morning} the {t} was gone.",
            "{morning} {h} looked for the {t}, but [it was gone|it was nowhere to be seen|{h.he} could "
            "not find it].",
            "{morning} when {h} came home from {p}, the {t} was missing.",
            "{morning} {h} reached into {h.his} bag, and the {t} was not there.",
        ),
        (
            "~h.sad: Oh no! [My {t} is gone!|Where is my {t}?|I have lost my {t}!]~",
            "~h.sad: <exclaim>! I had my {t} [yesterday|this morning|a minute ago].~",
            "{h} felt <sad>. ~h.sad: I must find my {t}.~",
        ),
        (
            "{h.he} looked <hiding>, <hiding> and <hiding>, but there was no {t}.",
            "First {h.he} searched <hiding>. Then {h.he} looked <hiding>. The {t} was not there.",
            "{h.he} searched the <room> and the <room>, but {h.he} found only [an old sock|a <colour> "
            "button|some dust|a spider].",
            "{h.he} ran to {p} and looked <hiding>. There was nothing but <ground>.",
        ),
        (
            "Then {h} met {f.a} named {f}. ~f.ask: Why are you so <sad>?~ ~h.sad: I have lost my {t.full}.~",
            "On the way, {h.he} met {f}, {f.a}. ~f.ask: What are you looking for?~ ~h: My {t.full}.~",
            "{f}, {f.a}, saw {h} crying. ~f.ask: What is the matter?~ ~h.sad: My {t} is lost, and I have "
            "looked everywhere.~",
        ),
        (
            "~f: Let us look together. [Four eyes see more than two.|Two are better than one.|I am good "
            "at finding things.]~",
            "~f.glad: Do not worry. I will help you [find it|look for it|search].~",
            "~f.ask: Where did you see it last?~ ~h: I had it {q.at}.~",
        ),
        (
            "",
            "They asked [the {job}|the {job2}|{e}], but [nobody had seen it|nobody could help|they all "
            "shook their heads].",
            "They walked to {q} and looked <hiding>. [Nothing!|It was not there.|They found only <ground>.]",
            "They turned over every stone {q.at}, and their <body> grew <tired>.",
        ),
        (
            "At last, {f} looked {hide}. There was the {t}!",
            "Suddenly, {h} saw something <lookword> {hide}. It was the {t}!",
            "Just as the sun went down, they saw the {t} {hide}.",
            "Then {f} [pointed|waved]. The {t} was lying {hide}, [a little wet|quite safe|covered with "
            "dust|as good as new].",
        ),
        (
            "~h.glad: [My {t}! You found it!|Thank you, {f}! I would never have found it without you.]~",
            "{h} [hugged {f}|danced for joy|laughed aloud]. ~h.glad: Thank you for helping me, {f}!~",
            "~f.glad: <delight>! [Here it is!|We did it!|Now you can smile again!]~ {h} was <glad>.",
        ),
    ),
    (
        "After that, {h} always [kept the {t} in a safe place|tied the {t} to a string|put the {t} back "
        "on the <furniture>].",
        "That <daypart>, {h} shared <foods> with {f}, and the {t} lay between them.",
        "{h} let {f} [hold|carry|borrow] the {t} all the way home.",
    ),
    (
        "{h} had found the {t}, but {h.he} had found something better: a friend.",
        "{h} learned to take good care of the things {h.he} loved.",
        "{h} learned that [a search is shorter with a friend|nothing is lost for ever if you keep looking].",
    ),
)

NEW_FRIEND = Plot(
    "new friend",
    (
        (
            "But {h} had nobody to play with, and {h.he} often felt <sad>.",
            "{h} had many toys, but {h.he} had no friends.",
            "{h} was new in {town}, and {h.he} did not know anybody.",
            "The others played <game> {p.at}, but nobody ever asked {h} to join in.",
        ),
        (
            "{morning} {h} saw {f.a} {p.at}.",
            "{morning} {f.a} came to {p}.",
            "{morning} {h.he} walked to {p} and heard <noise>. It was {f.a}, sitting all alone.",
        ),
        (
            "{h} wanted to say hello, but {h.he} was too shy.",
            "{h.he} hid <hiding> and watched.",
            "{h.his} heart beat fast. ~h.shy: What if {f.he} does not like me?~",
            "At first, {h} only [waved|smiled|looked down at {h.his} feet].",
        ),
        (
            "Then {h} remembered what {e} had told {h.him}: a friend is only a stranger you have not met.",
            "Then {h.he} took a deep breath and <slowly> walked up to {f.him}.",
            "Just then, {f.he} dropped {t.a}, and {h} picked it up.",
            "Then the wind carried {t.a} to {h.his} feet, and {h.he} gave it back.",
        ),
        (
            "~h.shy: Hello. My name is {h}.~ ~f.glad: I am {f}. I am glad to meet you.~",
            "~h.shy: Good morning. What is your name?~ ~f.shy: My name is {f}.~",
            "~f.glad: Thank you! I am {f}. Who are you?~ ~h: I am {h}, and I live near {q}.~",
        ),
        (
            "~f.ask: Do you like {h.hobbying}?~ ~h.glad: I love it!~",
            "~h.ask: Would you like to [play <game>|{h.hobby}|share my <foods>] with me?~ ~f.glad: [Yes, "
            "please!|I would love to!|Oh yes!]~",
            "~f.ask: Shall we {f.hobby} together?~ ~h.glad: [What a good idea!|I have always wanted to "
            "try!|Yes, let us begin!]~",
        ),
        (
            "So they played <game> [until the sun went down|all <daypart>|until they were <tired>].",
            "{h} taught {f} to {h.hobby}, and {f} taught {h} to {f.hobby}.",
            "They ran to {q}, ate <foods> and told each other [funny stories|secrets|riddles].",
            "Together they built {build.a} out of <parts> and laughed when it fell down.",
        ),
        (
            "",
            "[Once|Later] they quarrelled about {t.a}, but soon they [made up|shook hands|laughed about it].",
            "When it began to rain, they sat [under the <tree>|beneath an old umbrella|in the barn] and "
            "counted the drops.",
            "In the <daypart>, {e} brought them <drinks> and <foods>.",
        ),
        (
            "~f: [You are my best friend, {h}.|I was lonely before I met you.|Will you come again "
            "tomorrow?]~",
            "When it was time to go home, {f} gave {h} {t.a}. ~f.glad: So that you will not forget me.~",
            "~h.glad: [This was the best day of my life!|I am so glad that I said hello!|Let us meet here "
            "every day!]~",
        ),
    ),
    (
        "From then on, {h} and {f} met {p.at} every <day>.",
        "The next day, and every day after, they [played|walked|sat] together {p.at}.",
        "Soon everybody in {town} knew {h} and {f}, [for they were always together|the best of friends].",
    ),
    (
        "{h} learned that one small word can begin a great friendship.",
        "Sometimes it takes only a hello to find a friend.",
        "{h} was never lonely again, because {h.he} had been brave enough to say hello.",
        "A true friend is worth more than a hundred toys.",
    ),
)

FEAR = Plot(
    "fear overcome",
    (
        (
            "{h} was not afraid of many things, but {h.he} was afraid of {fear}.",
            "There was only one trouble: {h} was <scared> of {fear}.",
            "But {h} had a secret. {h.he} was terribly afraid of {fear}.",
            "{h} could do many things, but the thought of {fear} made {h.his} <body> tremble.",
        ),
        (
            "",
            "The others laughed at {h.him}. ~f.glad: {h} is afraid of {fear}!~",
            "Whenever somebody spoke of {fear}, {h.he} hid <hiding>.",
            "~e: One day you will be brave, {h}. You only need a reason.~",
        ),
        (
            "{morning} {f} did not come home from {p}.",
            "{morning} a cry came from {p}. ~f.scared: Help! [Please help me!|I am stuck!|Is anybody "
            "there?]~",
            "{morning} {e} fell ill, and somebody had to fetch the medicine.",
            "{morning} a crow stole {h.his} {t2.full}, and there was only one way to get it back.",
        ),
        (
            "There was nobody else to help. {h} would have to {dare}.",
            "To help, {h.he} had to {dare}, all alone.",
            "~e.sad: Somebody must {dare}, but I am too old.~ Everybody looked at {h}.",
        ),
        (
            "{h.his} <body> shook. ~h.scared: I cannot do it. I am too afraid.~",
            "{h} wanted to run away. ~h.scared: What if something bad happens?~",
            "{h} stood quite still, and {h.his} mouth was dry. ~h.scared: I am so <scared>.~",
        ),
        (
            "Then {h.he} thought of [{f}|{e}|what {e} had said] and took a deep breath.",
            "~e: To be brave does not mean to have no fear. It means to go on anyway.~",
            "{h.he} closed {h.his} eyes, counted to <number> and [began to hum a tune|thought of "
            "<foods>|squeezed {h.his} {t}].",
            "{h.he} held {h.his} {t.full} tightly. ~h: One step. Only one step at a time.~",
        ),
        (
            "<slowly>, {h.he} began to {dare}.",
            "And then {h} did it. {h.he} was going to {dare}, [and nothing could stop {h.him}|whatever "
            "happened].",
            "So {h} set out to {dare}. [One step, then another.|It was not easy.|{h.his} heart went bump, "
            "bump, bump.]",
        ),
        (
            "There was {noise}, but it was only {culprit}.",
            "Once {h.he} heard a <sound>. {h.he} almost turned back, but {h.he} did not.",
            "Halfway, {h.he} looked around. It was not so bad. It was even [a little exciting|rather "
            "beautiful|quite pleasant].",
        ),
        (
            "In the end, {h} did what {h.he} had come to do, and everybody was safe.",
            "And soon it was done. ~h.glad: <delight>! I did it!~",
            "When it was over, {h} laughed aloud. ~h.glad: I was afraid, but I did it!~",
        ),
        (
            "~e.glad: I am proud of you, {h}. You were very brave.~",
            "{e} hugged {h.him}. ~e.glad: I knew that you could do it.~",
            "~f.glad: You are the bravest {h.kind} I know, {h}!~",
        ),
    ),
    (
        "{h} was still a little afraid of {fear}, but now {h.he} knew what to do.",
        "After that day, {h} was no longer afraid of {fear}.",
        "That <daypart>, there was a feast with <foods>, and {h} sat at the head of the table.",
    ),
    (
        "{h} learned that being brave means trying even when you are afraid.",
        "Fear grows small when you walk towards it.",
        "{h} had found out that {h.he} was stronger than {h.his} fear.",
    ),
)

HELPING = Plot(
    "helping somebody",
    (
        (
            "{morning} {h} went to {p} [to pick some <flowers>|to be alone|to draw a picture|to meet a "
            "friend].",
            "{morning} {h} was walking home from {q} with a basket of <solids>.",
            "{morning} {h.he} was on the way to {p}, because {e} had asked {h.him} to fetch some "
            "<vegetables>.",
        ),
        (
            "Suddenly, {h.he} heard <noise>. It came from {p}.",
            "By the path, something small was moving in the <ground>.",
            "{h.he} stopped. Was that a cry?",
        ),
        (
            "There was a little {rescued} that {injury}.",
            "It was a young {rescued}. The poor thing {injury}.",
            "{h.he} looked <hiding> and found a {rescued} that {injury}.",
        ),
        (
            "~h: Poor little {rescued}! [Do not be afraid.|I will help you.|Let me see what I can do.]~",
            "~h.sad: <exclaim>! [I cannot leave you here.|You must be so frightened.|Who will help you, "
            "if I do not?]~",
            "{h} was late already, but {h.he} could not walk past.",
        ),
        (
            "{h.he} tried to help with a <tool>, but {h.he} was not strong enough.",
            "First {h.he} pulled with all {h.his} might. Nothing happened.",
            "The {rescued} was <scared> and would not let {h} come near.",
            "{h} was not sure what to do. {h.he} sat down and thought.",
        ),
        (
            "Then {h} had an idea. {h.he} <quickly> ran to fetch {f}, {f.a}.",
            "Just then, {f} came along with a <tool>. ~h: Quick, {f}! [Lend me a hand!|I need your "
            "help!|Hold this!]~",
            "So {h} called {f}. ~f.glad: I am coming!~",
        ),
        (
            "Together they worked <slowly>, and at last the {rescued} was free.",
            "~f: [You pull and I will push.|Be gentle. It is only small.|One, two, three!]~ And it worked.",
            "They wrapped the {rescued} in a {t_soft} and carried it home.",
        ),
        (
            "{h} gave the {rescued} some <foods> and a bowl of water.",
            "They made a bed of <ground> and sat beside it [all night|until morning|for <number> days].",
            "{e} looked at the {rescued} and nodded. ~e: It will soon be well. You came just in time.~",
        ),
        (
            "",
            "After <number> days, the {rescued} was strong again. It looked at {h} once and ran off to {p}.",
            "The {rescued} rubbed its head against {h.his} hand, as if to say thank you.",
            "And then something strange happened. The {rescued} led {h} to {q}, where {t.a} lay {hide}.",
        ),
    ),
    (
        "Many weeks later, {h} was lost {q.at}, and the {rescued} came and showed {h.him} the way home.",
        "From that day on, the {rescued} came to visit {h} every <season>.",
        "{h} and {f} named the {rescued} {petname}, and it stayed with them for many years.",
        "All the <people> of {town} heard about it, and {h} was <glad>.",
    ),
    (
        "No good deed is ever too small.",
        "{h} learned that kindness always finds its way back.",
        "{h} had little to give, but {h.he} gave it gladly, and that was enough.",
    ),
)

CONTEST = Plot(
    "contest",
    (
        (
            "Every <season>, there was a great {contest} in {town}.",
            "{morning} the {job} hung up a sign. There would be a {contest} in {town}.",
            "The great {contest} of {town} was only <number> days away.",
        ),
        (
            "The winner would get {prize}.",
            "The prize was {prize}, and {h} wanted it [more than anything|very much|badly].",
            "~e: Whoever wins will get {prize}.~ {h.his} eyes grew wide.",
        ),
        (
            "{f}, {f.a}, laughed. ~f.proud: You will never win, {h}! I am the best.~",
            "~f.proud: Nobody can {contest.do} as well as I can.~ That was {f}, {f.a}.",
            "Everybody thought that {f} would win, for {f.he} was {f.a} and had won <number> times before.",
        ),
        (
            "But {h} did not give up. {h.he} practised {contest.doing} every <daypart> {q.at}.",
            "So {h} got up early each day and practised {contest.doing}. {e} helped {h.him}.",
            "{h} asked {e} for advice. ~e: Practise a little every day, and do not look at the others.~",
        ),
        (
            "At first, it went badly. {h.he} [fell down|made mistakes|forgot everything|got hiccups] "
            "<number> times.",
            "It was hard. {h.his} <body> ached, and {h.he} was <tired>.",
            "",
        ),
        (
            "Then the great day came. <sky>, and the <people> [cheered|stood in rows|waved <colour> flags].",
            "At last, the day of the {contest} came, and all the <people> gathered {p.at}.",
            "On the day of the contest, the {job} [blew a trumpet|rang a bell|raised a flag], and it began.",
        ),
        (
            "Halfway through, {f} tripped over a <tool> and fell. {h} could have won easily.",
            "{f} was in the lead, but then there was a <sound>. {f.he} had hurt {f.his} foot.",
            "Soon only {h} and {f} were left. Then {f} began to cry, for {f.his} [shoe was broken|head "
            "ached|courage was gone].",
        ),
        (
            "But {h} stopped and [held out a hand|helped {f.him} up|turned back]. ~h: Come on, {f}. Let "
            "us finish together.~",
            "{h} thought of the prize. Then {h.he} turned around and helped {f}.",
            "~h.ask: Are you all right?~ ~f.shy: Why did you stop? You could have won.~ ~h: Some things "
            "are more important.~",
        ),
        (
            "The {job2} came first, but the <people> [cheered|clapped|shouted] loudest for {h}.",
            "They came in last, side by side, and everybody [clapped|cheered|stood up].",
            "And they won together. The {job} cut the ribbon in two.",
        ),
        (
            "~f.sad: I am sorry that I laughed at you. You are the real winner.~",
            "~e.glad: You did not win a prize. You won a friend.~",
            "The {job} smiled. ~j.glad: I have a special prize for the kindest heart.~ And {h} got {prize2}.",
        ),
    ),
    (
        "The next <season>, {h} and {f} practised {contest.doing} together.",
        "{h} put {t.a} on the <furniture> to remember the day.",
        "That <daypart>, {h} and {f} shared <foods> and talked about the {contest}.",
    ),
    (
        "{h} learned that winning is good, but friendship is better.",
        "The best prize is not always the one you can hold.",
        "Those who laugh at others often have the most to learn.",
    ),
)

JOURNEY = Plot(
    "journey",
    (
        (
            "All {h.his} life, {h} had wanted to see {far}.",
            "{e} had often told {h} about {far}.",
            "One night, {h} dreamed of {far}. ~h: I must go there and see it.~",
            "In an old book, {h} found a map that showed the way to {far}.",
        ),
        (
            "~e.ask: It is a long way. Are you not afraid?~ ~h: [A little. But I want to see it.|Not if I "
            "take my {t}.|No, I am ready.]~",
            "~e: Nobody from {town} has ever been there.~ ~h: Then I will be the first.~",
            "Everybody said that it was too far, but {h} only smiled.",
        ),
        (
            "{morning} {h} packed <foods>, a blanket and {t.a}, and set out <steed>.",
            "{morning} {h} said goodbye to {e} and set out <steed>, with {t.a} in {h.his} bag.",
            "{morning} {h} got up before the sun, packed <foods> and {t.a}, and set out <steed>.",
        ),
        (
            "{h} travelled for <number> days, past {p} and beyond {q}.",
            "The road led past {p} and over <number> hills.",
            "The first day was easy. The path was soft with <ground>, and the <trees> gave shade.",
        ),
        (
            "Then there was {obstacle} in the way. {h} thought for a while. Then {h.he} {obstacle.did} "
            "and got past.",
            "On the <ordinal> day, {h} came to {obstacle}. [What now?|There seemed to be no way past.] "
            "Then {h.he} {obstacle.did}.",
            "Soon {h} stood before {obstacle}. ~h: I will not turn back now.~ {h.he} {obstacle.did}, and "
            "it worked.",
        ),
        (
            "",
            "That night, {h} slept {q.at}, and the wind sang in the <trees>.",
            "On the way, {h} met the {job}, who gave {h.him} <foods> and good advice.",
            "When {h} was <tired>, {h.he} sat down and ate <foods>.",
        ),
        (
            "Next came {obstacle2}. This time {h} knew what to do. {h.he} {obstacle2.did}.",
            "Then came {obstacle2}. ~h.sad: <exclaim>! Will this road never end?~ But {h.he} "
            "{obstacle2.did} and went on.",
            "Near the end, {h} met {obstacle2}. {h.he} was <scared>, but {h.he} {obstacle2.did}.",
        ),
        (
            "At last, {h} saw it: {far}.",
            "And then, one <look_day> morning, {h} stood before {far}.",
            "When the sun rose, there it was: {far}. It was more beautiful than any dream.",
        ),
        (
            "~h.glad: <delight>! It is [even better than I thought|real|more beautiful than the stories]!~",
            "{h} sat down in the <ground> and looked and looked. {h.he} was <glad>.",
            "{h} laughed for joy and threw {h.his} [hat|scarf|bag] into the air.",
        ),
        (
            "",
            "There {h.he} found a <colour> stone, and {h.he} took it home for {e}.",
            "{h} left {h.his} {t} there, so that the next traveller would find it.",
            "But after a while, {h.he} thought of {e} and of {h.his} own warm bed.",
        ),
    ),
    (
        "When {h} came home, all the <people> wanted to hear the story.",
        "The way home was shorter, [as it always is|for now {h.he} knew the road].",
        "{e} was waiting at the door. ~e.glad: Welcome home, {h}! Tell me everything.~",
    ),
    (
        "{h} learned that even the longest road begins with one step.",
        "It is good to travel far, and it is good to come home.",
        "Every trouble on the road had taught {h} something.",
    ),
)

STORM = Plot(
    "storm",
    (
        (
            "{morning} the sky turned <stormsky>, and the birds stopped singing.",
            "{morning} dark clouds came over {p}.",
            "{morning} {e} looked at the sky. ~e.sad: A storm is coming. We must hurry.~",
        ),
        (
            "Soon the wind began to howl, and rain [beat against the windows|fell in sheets|ran down the "
            "streets].",
            "There was a flash of lightning, and then a <sound>! The thunder shook the walls.",
            "The wind tore at the <trees> and rattled the shutters.",
        ),
        (
            "{h} was safe in the <room>, but then {h.he} remembered {f}, {f.a}, who was still {p.at}.",
            "~h.scared: Where is {f}?~ {f} was {f.a}, and {f.he} had gone to {p}.",
            "Then there was a knock at the door. It was the {job}. ~j.scared: {f} is still out there, "
            "{p.at}!~",
        ),
        (
            "{h} put on {h.his} coat, took a lantern and ran out into the rain.",
            "~e.ask: You cannot go out in this weather, can you?~ ~h: I must. {f} needs me.~",
            "{h} did not wait. {h.he} took a rope and a lantern and opened the door.",
        ),
        (
            "The wind blew so hard that {h.he} could [hardly stand|hardly see|barely breathe].",
            "Again and again {h.he} fell into the mud, and every time {h.he} got up.",
            "{h} had to crawl. [A branch came down with a <sound>.|The lantern went out.|The path had "
            "become a stream.]",
        ),
        (
            "At last, {h.he} heard a voice. ~f.scared: [Over here! I am stuck!|Help me, please!|I cannot "
            "hold on much longer!]~",
            "Then {h.he} saw {f}, holding on to [an old <tree>|a fence|a rock] with both hands.",
            "{h.he} found {f} <hiding>, wet and <scared>.",
        ),
        (
            "~h: [Take my hand!|Hold on to the rope!|Do not let go!]~ {h} pulled with all {h.his} might.",
            "{h} threw the rope, and {f} caught it. <slowly>, {h.he} pulled {f.him} to safety.",
            "{h} wrapped {f} in a {t_soft}. ~h: You are safe now. Stay close to me.~",
        ),
        (
            "Hand in hand, they found the way back home.",
            "They waited together {q.at}, telling stories until the thunder grew quiet.",
            "Step by step, they went back, and {e} was waiting with <drinks>.",
        ),
        (
            "~f: I thought that nobody would come.~ ~h: I would always come for you.~",
            "~f.glad: You saved me, {h}! [How can I ever thank you?|I will never forget it.]~",
            "{f} was still shaking. ~f: You came for me in the middle of a storm.~ ~h: That is what "
            "friends do.~",
        ),
        (
            "In the morning, the sun came out. <number> roofs were broken, and the <people> helped each "
            "other to mend them.",
            "By morning, the storm was over, and a rainbow stood above {p}.",
            "The next day, the world was clean and bright, and [the pond was full of stars|a nest had "
            "blown into the garden]"
            ", and everything smelled of <smell>.",
        ),
    ),
    (
        "{f} gave {h} {t.a}, and {h} kept it for ever.",
        "After that, {h} and {f} were never afraid of storms.",
        "The {job} hung a big bell {p.at}, so that nobody would be lost in a storm again.",
    ),
    (
        "No storm lasts for ever, but a good friend does.",
        "{h} learned that a friend in need is worth a long walk in the rain.",
        "It is easy to be a friend in the sunshine. {h} had been a friend in the storm.",
    ),
)

SECRET = Plot(
    "secret",
    (
        (
            "{morning} {h} was [playing|walking|resting] {p.at} when {h.he} found {secret}.",
            "{morning} {h} lost {h.his} way near {p}. There, behind the <flowers>, was {secret}.",
            "{morning} {h.he} followed a <tiny> to {p}, and there {h.he} discovered {secret}.",
        ),
        (
            "~h.glad: [I must not tell anybody.|Nobody knows about this but me!|This will be my secret.]~",
            "{h} could hardly believe {h.his} eyes. ~h: [How strange!|What is this?|Am I dreaming?]~",
            "{h} stood still and held {h.his} breath. It was like something from a story.",
        ),
        (
            "Every <daypart>, {h.he} [slipped away|ran back|returned] to look at it.",
            "{h} drew a picture of it and hid the picture <hiding>.",
            "For <number> days, {h} told nobody, not even {e}.",
        ),
        (
            "But a secret is heavy when you carry it alone. {h} began to feel <sad>.",
            "Soon {f} noticed something. ~f.ask: Where do you go every day, {h}?~",
            "At supper, {h} did not touch the <foods>. ~e.ask: What is on your mind, {h}?~",
        ),
        (
            "~h.shy: I cannot tell you. It is a secret.~",
            "{h} looked at the floor and said nothing.",
            "{h.he} wanted to tell, and {h.he} wanted not to tell.",
        ),
        (
            "Then, one night, something went wrong. There was a <sound> near {p}.",
            "Then the {job} said that {p} would soon be closed. {h} was <scared>. What would happen to "
            "{secret}?",
            "One day, it began to rain hard, and {h} was afraid for {h.his} secret.",
        ),
        (
            "So {h} took {f} by the hand. ~h.shy: Come with me. I want to show you something.~",
            "{h} ran to {f}, who was {f.a}. ~h: I need your help. But you must promise to tell no one.~ "
            "~f: I promise.~",
            "At last, {h} told {f} everything. {f} was {f.a} and could keep a secret.",
        ),
        (
            "When {f} saw {secret}, {f.he} [gasped|was speechless|clapped]. ~f.glad: It is wonderful!~",
            "They crept to {p} with a lantern. And there it was: {secret}, [quite safe|just as before].",
            "{f} looked and looked. ~f: I have never seen anything so beautiful.~",
        ),
        (
            "Together they made a plan. They covered the place with <ground> and <parts>.",
            "They built a little fence of <parts>, and they watched over it in turns.",
            "~f: We will look after it together.~ {h} felt as light as a feather.",
        ),
    ),
    (
        "They never told anybody else, and perhaps it is there to this day.",
        "In the end, they told {e}, and {e} only smiled. ~e: I found it too, when I was young.~",
        "Now the two friends meet {p.at} every <day>, and nobody knows why.",
    ),
    (
        "{h} learned that a secret is sweeter when you share it with a friend.",
        "Some things should be kept safe, but nothing should be kept alone.",
        "A good friend knows how to keep a promise.",
    ),
)

GIFT = Plot(
    "gift",
    (
        (
            "{morning} {h} remembered that tomorrow was the birthday of {f}, {f.a} and {h.his} best friend.",
            "It was almost winter, and {h} wanted to give a present to {f}, {f.a}.",
            "{h.his} best friend was {f}, {f.a}. Soon it would be {f}'s birthday.",
        ),
        (
            "~h: What can I give {f.him}? [It must be something special.|I want {f.him} to be happy.]~",
            "{h} wanted to buy {t.a}, but {h.he} had only <number> pennies.",
            "In the window of the shop, {h} saw {t.a}. But it cost <number> coins, and {h.he} had none.",
        ),
        (
            "So {h} worked for the {job}. {h.he} swept the floor, carried <parts> and peeled <vegetables>.",
            "{h.he} tried to make {t.a} out of <parts>, but it [broke|fell apart|looked like a potato].",
            "{h.he} sold {h.his} own {t2.full} at the market, though {h.he} loved it.",
        ),
        (
            "For <number> days, {h} worked until {h.he} was <tired>.",
            "~e.ask: Why do you work so hard, {h}?~ ~h: I am getting a present for {f}.~",
            "It took a long time. {h.his} hands were sore, but {h.he} [whistled|sang|smiled] as {h.he} "
            "worked.",
        ),
        (
            "At last, the {t} was ready. It was [a little crooked|not perfect|small], but it was made "
            "with love.",
            "Finally, {h} held the {t.full} in {h.his} hands. {h.he} wrapped it in <colour> paper.",
            "In the end, {h.he} had the {t}, and {h.he} tied a <colour> ribbon around it.",
        ),
        (
            "On the way to {f}, {h} met an old {job2} who was <tired>. {h} shared {h.his} <foods>.",
            "But on the way, {h} slipped {p.at}, and the present fell into the mud.",
            "But the wind snatched the paper away, and it flew over {p}.",
            "",
        ),
        (
            "~h.shy: Happy birthday, {f}. [It is not much.|I hope that you like it.|I got it just for you.]~",
            "{h} knocked at the door. ~h.glad: Happy birthday! This is for you.~",
            "When {h} gave {f.him} the {t}, {h.his} heart was beating fast.",
        ),
        (
            "{f} opened the paper and saw {t.a}. ~f.glad: [It is the best present ever!|I have always "
            "wanted one!]~",
            "{f.his} eyes shone. ~f.glad: A {t}! Thank you, {h}!~",
            "{f} was so <glad> that {f.he} could not speak. Then {f.he} hugged {h}.",
        ),
        (
            "~f: I have something for you too.~ And {f} gave {h} {t2.a}.",
            "~f: You worked so hard for me. That is the real present.~",
            "They sat down together and ate <fruit> cake and <foods>.",
        ),
    ),
    (
        "{f} took the {t} everywhere and never lost it.",
        "There was music and <foods>, and everybody [played <game>|danced] until late.",
        "To this day, the {t} stands on the <furniture> of {f}.",
    ),
    (
        "A gift from the heart is worth more than gold.",
        "{h} learned that giving makes you even happier than getting.",
        "It is not the price that makes a present precious, but the love in it.",
    ),
)

MISTAKE = Plot(
    "mistake and apology",
    (
        (
            "On the <furniture> in the <room> stood {break.a}. It belonged to {e}, and nobody was allowed "
            "to touch it.",
            "{e} had {break.a}, and {e.he} loved it very much.",
            "In the <room>, there was {break.a}. ~e: Please do not touch it, {h}. It is very old.~",
        ),
        (
            "{morning} {h} was playing <game> in the house.",
            "{morning} {h} was alone at home, and {h.he} only wanted to look at it.",
            "{morning} {h} ran through the house with {t.a}.",
        ),
        (
            "There was a <sound>! The {break} lay on the floor in <number> pieces.",
            "Then it happened. {h.his} elbow hit the {break}, and it fell with a <sound>.",
            "Suddenly, {h} slipped on the floor, and crash! The {break} was broken.",
        ),
        (
            "~h.scared: <exclaim>! What have I done?~",
            "{h.his} face turned red. ~h.scared: {e_cap} will be so angry.~",
            "{h} stood quite still. {h.he} felt <sad> and <scared>.",
        ),
        (
            "{h.he} quickly hid the pieces <hiding>.",
            "{h.he} tried to mend it with glue, but the pieces would not fit.",
            "{h.he} swept up the pieces and hid them <hiding>.",
        ),
        (
            "In the <daypart>, {e} came home. ~e.ask: Where is my {break}?~",
            "~e.ask: {h}, have you seen my {break}?~",
            "Soon {e} noticed that the {break} was gone. ~e.ask: Who took my {break}?~",
        ),
        (
            "~h.shy: Perhaps it was the cat.~ But {h} could not look {e.him} in the eye.",
            "~h.shy: I do not know.~ That was not true, and {h} felt even worse.",
            "{h} only shook {h.his} head. {h.he} could not eat {h.his} <foods>.",
        ),
        (
            "That night, {h} could not sleep. {h.his} heart was as heavy as a stone.",
            "{h} went to {f}, {f.a}. ~h.sad: I did something wrong.~ ~f: Then tell the truth. You will "
            "feel better.~",
            "{h} lay awake and listened to the clock. At last, {h.he} made up {h.his} mind.",
        ),
        (
            "~h.sad: I am sorry. I broke your {break}, and I did not tell the truth.~",
            "{h} brought the pieces to {e}. ~h.sad: It was me. I am so sorry.~",
            "~h.sad: I have to tell you something. I broke the {break}.~ And {h.he} began to cry.",
        ),
        (
            "{e} was quiet for a while. ~e: A {break} can be mended. I am glad that you told me the truth.~",
            "{e} took {h} by the hand. ~e: I was sad about the {break}. But I am proud that you are honest.~",
            "~e: Thank you for telling me. [Everybody makes mistakes.|It takes courage to say so.]~",
        ),
        (
            "Together they glued the pieces, and the {break} stood on the <furniture> again.",
            "{h} worked for the {job} and saved <number> coins, and then {h.he} bought {e} a new {break}.",
            "The next day, {h} made a new one out of clay. It was crooked, but {e} liked it even better.",
        ),
    ),
    (
        "{h} never forgot that day, and {e} never spoke of it again.",
        "{h} felt as light as a feather.",
        "After that, {h} always told the truth, even when it was hard.",
    ),
    (
        "{h} learned that the truth is the best way to make things right.",
        "To say sorry is hard, but to hide a mistake is harder.",
        "Everybody makes mistakes. Only the brave admit them.",
    ),
)

SHARING = Plot(
    "sharing",
    (
        (
            "{h} had a big basket of <solids>, and {h.he} did not want to share it with anybody.",
            "{morning} {h} found a tree full of ripe {fruit.s} [behind the house|on the hill|by the "
            "road]. ~h.proud: They are all mine!~",
            "{h.his} cellar was full of <solids> and <solids>, but {h} never gave any of it away.",
        ),
        (
            "{f}, {f.a}, came by. ~f.shy: [May I have a little?|Will you share with me?|May I try, just "
            "once?]~",
            "{morning} {f}, {f.a}, knocked at the door. ~f.shy: Please, will you share with me?~",
            "Along came {f.a} named {f}. ~f.ask: What have you got there? May I have some too?~",
        ),
        (
            "~h.proud: No! [It is all mine.|Go away!|Find your own.]~ {f} was <sad> and went away.",
            "{h} shook {h.his} head. ~h.proud: I have none to spare.~",
            "~h.proud: Perhaps tomorrow.~ But {h} said the same thing every day.",
        ),
        (
            "Then came the {job}, and then {e}. To each of them, {h} said no.",
            "Soon nobody came to visit {h} any more. The house was very quiet.",
            "{h} sat alone {q.at}. Somehow, it was not much fun.",
        ),
        (
            "Then {h} had bad luck. {h.he} [fell into the stream|got stuck in the mud|caught a bad cold] "
            "and needed help.",
            "But in the night, a storm came, and in the morning {h} had nothing left.",
            "One day, a thief came, and {h} had nothing left at all.",
        ),
        (
            "~h.sad: Now I have nothing, and nobody will help me.~",
            "{h} was <tired> and <sad>. Who would help somebody who never shared?",
            "{h} cried. ~h.sad: If only I had been kinder.~",
        ),
        (
            "But then {f} came with <foods> and <drinks>. ~f: [I have brought you something.|Here, half "
            "of this is for you.]~",
            "Then there was a knock at the door. {f} stood there with a bowl of <vegetable> soup.",
            "Just then, {f} came along with a big loaf of bread, and {f.he} broke it in two.",
        ),
        (
            "~h.ask: Why are you so kind to me? I was not kind to you.~ ~f: Because you are hungry.~",
            "{h} was ashamed. ~h.sad: I am sorry, {f}. I was greedy.~",
            "~h.shy: You share with me, though I never shared with you.~ ~f.glad: Somebody has to begin.~",
        ),
        (
            "From then on, {h} gave half of everything to {h.his} friends.",
            "The next <daypart>, {h} invited everybody. There were <foods>, <foods> and <drinks>.",
            "So {h} put a sign on the door. It said: come in and share.",
        ),
    ),
    (
        "The <people> came from all around, and the house was full of laughter.",
        "{h} and {f} planted a {fruit} tree, and its fruit was for everybody.",
        "And strange to say, {h} had more than ever before.",
    ),
    (
        "{h} learned that things taste better when they are shared.",
        "What you keep makes you rich, but what you share makes you happy.",
        "A small meal with a friend is better than a feast alone.",
    ),
)

PRACTICE = Plot(
    "learning something",
    (
        (
            "More than anything, {h} wanted to learn to {skill}.",
            "There was one thing that {h} could not do. {h.he} could not {skill}.",
            "{morning} {h} saw {e} {skill}. ~h.glad: I want to do that too!~",
        ),
        (
            "The first time {h} tried, {h.he} [fell on {h.his} nose|got it all wrong|made a terrible mess].",
            "{morning} {h} tried. [Bump!|Crash!|Oh dear!] It did not go well at all.",
            "{h} tried once, twice, <number> times. Each time, it went wrong with a <sound>.",
        ),
        (
            "{f}, {f.a}, was watching. ~f.glad: You look so funny!~ {h} was <sad>.",
            "The <people> laughed, and {h} ran away to {p}.",
            "~h.sad: I will never learn it. It is too hard.~",
        ),
        (
            "{h} threw {h.his} {t.full} into the <ground> and sat down <hiding>.",
            "{h} wanted to give up. {h.he} went home and hid in the <room>.",
            "For <number> days, {h} did not try again.",
        ),
        (
            "Then {e} came and sat beside {h.him}. ~e: When I was young, I could not {skill} either.~",
            "~e: Do you see that <tiny>? It falls down <number> times, and it always climbs up again.~",
            "Then {h} saw a <tiny> climbing a blade of grass. It fell, but it tried again and again.",
        ),
        (
            "~h.ask: How did you learn it?~ ~e: Slowly. A little every day.~",
            "{h} thought about it for a long time. ~h: I will try once more.~",
            "~e: Start small. [Nobody learns in a day.|Every master was once a beginner.]~",
        ),
        (
            "So {h} practised {p.at} every <daypart>, [in sunshine and in rain|when nobody was watching].",
            "Day after day, {h} practised. {f} came to help, and {f.he} did not laugh any more.",
            "{h} practised before breakfast and after supper, for <number> weeks.",
        ),
        (
            "It went a little better every time.",
            "Some days were good and some days were bad, but {h} did not stop.",
            "",
        ),
        (
            "And then, one <look_day> <daypart>, it worked! {h} could {skill}!",
            "Then the great moment came. {h} took a deep breath, and this time everything went right.",
            "One day, without thinking about it, {h} did it. ~h.glad: <delight>! I can {skill}!~",
        ),
        (
            "~f.glad: You did it, {h}! Will you teach me too?~",
            "~e.glad: I knew that you would learn it. I am proud of you.~",
            "All the <people> clapped, and {f} clapped the loudest.",
        ),
    ),
    (
        "Now {h} teaches the little ones, and {h.he} never laughs when they fall.",
        "And when {f} wanted to learn it too, {h} was very patient.",
        "On {h.his} next birthday, {h} got {t.a} from {e}.",
    ),
    (
        "{h} learned that practice is better than luck.",
        "Nobody falls so often that it is not worth getting up again.",
        "Great things are learned a little at a time.",
    ),
)

BUILDING = Plot(
    "building something",
    (
        (
            "{morning} {h} had an idea. ~h.glad: I will build {build.a}!~",
            "{h} had always wanted {build.a}, but there was none in all of {town}.",
            "{morning} {h} and {f}, {f.a}, decided to build {build.a} {p.at}.",
        ),
        (
            "{h.he} gathered <parts>, <parts> and a <tool>.",
            "{h.he} drew a plan on [an old sack|a piece of paper|the back of a letter] and borrowed a "
            "<tool> from the {job}.",
            "From the {job}, {h.he} got <parts>. In the <room>, {h.he} found <parts> and a <tool>.",
        ),
        (
            "{h.he} worked all <daypart>, but {h.he} worked too fast.",
            "~e: Build slowly, {h}. A good {build} needs time.~ But {h} did not listen.",
            "{h.he} did not want any help. ~h.proud: I can do it alone.~",
        ),
        (
            "When it was done, it [wobbled|shook|leaned to one side]. Then, with a <sound>, it fell apart.",
            "Then came a little wind, and <sound>! The {build} fell down.",
            "It stood for one minute. Then it broke into <number> pieces.",
        ),
        (
            "~h.sad: <exclaim>! All that work for nothing!~",
            "{h} sat down among the <parts> and felt <sad>.",
            "{h} kicked a board and hurt {h.his} toe. ~h.sad: I will never build anything again!~",
        ),
        (
            "Then {f} came by. ~f.ask: What happened?~ ~h.sad: My {build} fell down.~",
            "{f} looked at the pieces. ~f: The idea is good. It only needs to be stronger at the bottom.~",
            "{f} picked up a <tool>. ~f: Let us try again. I will hold, and you will hammer.~",
        ),
        (
            "So they began again. This time, they used <parts> and tied everything with rope.",
            "They asked {e} for advice, and {e.he} showed them how to [tie a strong knot|measure "
            "twice|make a firm base].",
            "{h} measured, {f} sawed, and the {job} brought <foods>.",
        ),
        (
            "It took <number> days. When it rained, they covered it with a blanket.",
            "They worked <slowly>, piece by piece.",
            "",
        ),
        (
            "At last, the {build} was finished. They painted it <colour> and <colour>.",
            "Finally, it was ready. The {build} stood {p.at}, [strong and tall|straight and proud|as good "
            "as new].",
            "In the end, {h} hammered in the last nail. ~h.glad: <delight>! It is finished!~",
        ),
        (
            "{h} jumped up and down beside it. It did not even shake.",
            "~f.glad: It is the best {build} in the world!~",
            "The wind blew and the rain fell, but the {build} did not fall down.",
        ),
    ),
    (
        "Soon all the <people> came to see it.",
        "{h} and {f} gave it a name: {petname}.",
        "It stands {p.at} to this day.",
    ),
    (
        "{h} learned that good work takes time and good friends.",
        "If a plan fails, make a better plan.",
        "What two build together stands twice as long.",
    ),
)

MYSTERY = Plot(
    "strange noise",
    (
        (
            "One night, {h} woke up. There was {noise} [outside the window|in the <room>|above {h.his} "
            "bed|behind the wall].",
            "{morning} there was {noise} {p.at}, and nobody knew what it was.",
            "In the middle of the night, there was {noise}. {h} sat up in bed.",
        ),
        (
            "~h.scared: What was that?~",
            "{h} was <scared> and pulled the blanket over {h.his} head.",
            "{h.his} heart went bump, bump, bump.",
        ),
        (
            "There it was again, louder than before.",
            "Then it stopped. Then it began again.",
            "{h.he} listened. It came closer.",
        ),
        (
            "{h} ran to {f}, {f.a}. ~h.scared: There is something out there!~ ~f.scared: Perhaps it is a "
            "monster.~",
            "The next day, {h} asked {e}. ~e: Perhaps it is only the wind. Or perhaps it is a ghost.~",
            "{f}, {f.a}, came by. ~f.scared: It is a ghost. I am sure of it!~",
        ),
        (
            "~h: There is only one way to find out.~ {h.he} took {t.a} and a lantern.",
            "So {h} and {f} made a plan. They would hide <hiding> and wait.",
            "{h} was afraid, but {h.he} was also curious. {h.he} lit a candle and opened the door.",
        ),
        (
            "They tiptoed past the <furniture> and over the <ground>.",
            "It was dark, and the floor creaked. Every shadow looked like a [giant|witch|wolf].",
            "First they found a footprint. Then they found a <colour> feather.",
        ),
        (
            "{noise} came from {q}. <slowly>, {h} lifted the lantern.",
            "Closer and closer they came. {f} held {h} by the sleeve.",
            "Something moved <hiding>. {h} held {h.his} breath.",
        ),
        (
            "And what did they see? It was {culprit}!",
            "It was not a monster. It was not a ghost. It was {culprit}!",
            "The light fell on {culprit}. That was all!",
        ),
        (
            "They laughed until their sides hurt. ~h.glad: And I was so <scared>!~",
            "~f.glad: So that was our monster!~ They both began to laugh.",
            "~h: We were <scared> of almost nothing.~",
        ),
        (
            "",
            "Then they put everything right, and the night was quiet again.",
            "In the morning, {h} told {e}, and they laughed about it over <drinks>.",
        ),
    ),
    (
        "And when {h} hears {noise} at night, {h.he} only smiles.",
        "After that, {h} and {f} called themselves detectives.",
        "{h} went back to bed and slept until breakfast.",
    ),
    (
        "{h} learned to look first and be afraid later.",
        "Many monsters become very small when you hold up a light.",
        "It is better to look than to wonder.",
    ),
)

GARDEN = Plot(
    "patience in the garden",
    (
        (
            "{morning} {e} gave {h} a tiny seed. ~e: If you take care of it, it will become a {plant}.~",
            "{morning} {h} found a strange seed <hiding>.",
            "{h} wanted to grow the biggest {plant} in {town}. {e} gave {h.him} a seed.",
        ),
        (
            "{h} dug a hole [in the garden|behind the house|by the wall], put in the seed and covered it "
            "with earth.",
            "{h} planted it [in the garden|in a pot|under the window] and gave it water from {h.his} "
            "[little can|blue jug|old bucket].",
            "So {h} took a spade and planted the seed beside the <flowers>.",
        ),
        (
            "The next morning, {h} ran to look. There was nothing but earth.",
            "{h} waited one day, two days, <number> days. Nothing happened.",
            "{h} sat down and watched. ~h.ask: When will it grow?~",
        ),
        (
            "~h.sad: It is not growing. I want to dig it up.~ ~e: Be patient. Good things take time.~",
            "{f}, {f.a}, laughed. ~f.proud: You are watering mud!~",
            "{h} sang to it. {h} read to it. {h} even danced around it. Still nothing.",
        ),
        (
            "But {h} went on. {h.he} brought water every <daypart> and pulled out the weeds.",
            "Every <daypart>, {h} watered it, and on cold nights {h.he} covered it with straw.",
            "{h} chased away the crows and the snails and waited.",
        ),
        (
            "Then, one <look_day> morning, there was something green. ~h.glad: <delight>! It is growing!~",
            "After <number> days, a tiny green leaf came out of the earth.",
            "One morning, {h} saw two little leaves, as green as a frog.",
        ),
        (
            "It grew and grew, until it was as tall as [a chair|{h}|the fence|the door].",
            "The rain came, and the sun came, and the plant grew every day.",
            "Once a goat wanted to eat it, but {h} stood in front of it with a <tool>.",
        ),
        (
            "In the <season>, there stood the finest {plant} that {town} had ever seen.",
            "By the end of summer, {h.he} had a {plant} so big that <people> came from far away to see it.",
            "At last, {h} had a real {plant}, and it was [beautiful|green|tall] and strong.",
        ),
        (
            "~f.shy: I am sorry that I laughed. It is beautiful.~ ~h: I will give you a seed, if you like.~",
            "~e.glad: You see, {h}? The seed knew what to do. It only needed you.~",
            "{h} looked at it for a long time and was <glad>.",
        ),
    ),
    (
        "And {h} kept one seed for the next <season>.",
        "{e} made <foods>, and they ate in the shade together with {f}.",
        "The following <season>, {h} and {f} planted <number> more.",
    ),
    (
        "{h} learned that good things need time and care.",
        "You cannot hurry a seed, but you can love it.",
        "Patience is the best gardener.",
    ),
)

WISH = Plot(
    "wish",
    (
        (
            "{h} had one great wish: {wish}.",
            "Every night, {h} looked at the stars and wished {wish}.",
            "More than anything in the world, {h} wanted {wish}.",
        ),
        (
            "{morning} {h} met {magic} {p.at}.",
            "{morning} something glowed {p.at}. It was {magic}.",
            "{morning} {h} was walking to {p} when {h.he} met {magic} [in the grass|on the road|under a "
            "<tree>].",
        ),
        (
            "~m: Please help me. [I am caught.|I am thirsty.|I have lost my way.]~ {h} was surprised, but "
            "{h.he} helped at once.",
            "It was [tired|hungry|weak|cold] and [lost|afraid|alone], so {h} gave it <foods> and a {t_soft}.",
            "~m: Nobody ever stops for me. Will you sit with me for a while?~ {h} sat down and listened.",
        ),
        (
            "~m: You are kind. I will grant you one wish.~",
            "~m: Because you helped me, you may make a wish. But choose well!~",
            "Then it spoke. ~m: Make a wish, {h}, and it will come true.~",
        ),
        (
            "{h} opened {h.his} mouth to say the wish. Just then, {h.he} saw {f}, {f.a}, who was crying.",
            "{h} thought of {h.his} wish. But then {h.he} thought of {f}, {f.a}, who [was very ill|had no "
            "home for the winter|had not smiled for weeks].",
            "But before {h} could answer, {f} came running. {f.he} was {f.a}. ~f.sad: Please help! My "
            "little [brother|sister] is very ill!~",
        ),
        (
            "It was not an easy choice. {h.his} own wish was so close!",
            "{h} was quiet for a long time.",
            "{h} looked at {f}, and then {h.he} knew what to do.",
        ),
        (
            "~h: I wish that [{f} may be happy again|everything may be well|all may be well with my "
            "friends].~",
            "~h: I do not need anything for myself. Please help {f}.~",
            "{h.he} closed {h.his} eyes and made a wish, and it was not for {h.himself}.",
        ),
        (
            "There was a flash of <colour> light, and a smell of <smell>. And it came true.",
            "A warm wind blew over the <ground>. When {h} opened {h.his} eyes, everything was well.",
            "<noise> filled the air, and <colour> sparks danced around them. The wish came true.",
        ),
        (
            "{f} laughed and hugged {h}. ~f.glad: You gave your wish away for me!~",
            "~m: You gave your wish away. So I will give you a second one.~",
            "~f: Thank you, {h}. Now I will help you with your own wish.~",
        ),
        (
            "And that is how {h} got {h.his} wish after all: {wish}.",
            "And together, step by step, they made {h.his} own wish come true.",
            "{h} did not get what {h.he} had wished for. But {h.he} had {f}, and that was better.",
        ),
    ),
    (
        "{h} never saw {magic_the} again, but sometimes there was <noise> {p.at}.",
        "And on clear nights, the two friends sat {p.at} and looked at the stars.",
        "{e} said that it had been a dream, but {h} knew better.",
    ),
    (
        "{h} learned that the best wishes are for others.",
        "Those who give their luck away will find it again.",
        "Kindness is the strongest magic of all.",
    ),
)

PLOTS = (
    LOST_THING,
    NEW_FRIEND,
    FEAR,
    HELPING,
    CONTEST,
    JOURNEY,
    STORM,
    SECRET,
    GIFT,
    MISTAKE,
    SHARING,
    PRACTICE,
    BUILDING,
    MYSTERY,
    GARDEN,
    WISH,
)
