"""A small list of common English words for `word_sorting` (the official one has 370,000 and is not bundled)."""

__all__ = ["WORDS"]

_TEXT = """
able acid air animal ant apple arm army art autumn axe baby bag ball band bank barn basket bat bath bear bee bell belt bench
bike bird boat body bone book boot bottle bowl box boy branch brass bread brick bridge brother brush bucket bus butter button
cabin cage cake camel camp candle cap captain car card carpet cart castle cat chain chair chalk cheese cherry child church
circle city clock cloth cloud coal coast coat coin comb cook copper cord corn cotton cow cream crown cup curtain cushion dad
dance dark date day deer desert desk dice dinner dish doctor dog doll door dragon drawer dream dress drum duck dust eagle ear
earth edge egg elbow end engine evening exit eye eyebrow face factory fair farm farmer father feast feather fence ferry field
fig finger fire fish flag flame floor flower flute fly fog food foot forest fork fox frame friend frog fruit game garden gate
ghost giant gift girl glass globe glove glue goat gold goose grain grape grass guard guest guitar gun hair hall hammer hand
harbour hat hawk head heart hill honey hook horn horse hospital hotel hour house ice idea inch ink insect iron island ivory
jacket jail jam jar jaw jelly jet jewel job joke journey joy judge juice jump jungle kettle key king kiss kit kitchen kite
kitten knee knife knot ladder lady lake lamb lamp law lawn leaf leg lemon letter library lid light lion lip list lock log
lunch machine magic man map marble market mask meadow meal meat medal metal milk mirror moon morning mother mountain mouse
mouth mud museum music nail name neck needle nest net night nose note number nurse nut oak oar ocean office oil onion orange
orchard oven owl page paint palace pan paper park path peace pear pen pencil pepper piano picture pie pig pillow pilot pin
pipe plane planet plant plate pocket poem pond pony pool pot powder prince pump purse quail quarter queen question quilt quiz
rabbit radio rail rain rat rice ring river road robin rock roof room root rope rose rug ruler sack sail salt sand saw school
sea season seat seed shadow sheep shelf ship shirt shoe shop silk silver sister skin sky sleep smoke snail snake snow soap
sock sofa soil song soup spade spider spoon spring square stamp star station steam stone storm story stove street sugar
summer sun swan table tail tea teacher team tent thread throat thumb thunder ticket tiger time tin toad toe tomato tooth
tower town toy train tray tree truck trumpet turtle twin uncle unit urn use valley van vase vest video village vine violin
voice vote wagon wall watch water wave wax web well whale wheel whistle wind window wine wing winter wolf woman wood wool
word worm yard yarn year yellow yolk zebra zero zinc zip zone zoo
"""
WORDS: tuple[str, ...] = tuple(sorted(set(_TEXT.split())))
