"""The English words that steer how a step is read."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# A sentence with one of these denies, or doubts, what it states.
DENIALS = _words(
    """
    cannot contradiction contradicts doesn't don't error false guess impossible incorrect instead isn't
    mistake neither never nor not wrong
    """
)

# A sentence with one of these computes what must not be, or puts a candidate to the test.
REFUSALS = _words(
    """
    back extraneous fails invalid no plug plugging reject rejected undefined
    """
)

# A clause with one of these only supposes.
SUPPOSITIONS = _words(
    """
    assume assuming check hypothetical if suppose try unless whether would
    """
)

# An equation in a sentence with one of these is chosen, or one of several: it follows from none.
CHOICES = _words(
    """
    choose let respectively set try
    """
)

# In a problem these do not suppose: they give ("If x + y = 5, ...").
GIVING = _words(
    """
    if let satisfies satisfy satisfying solution solutions suppose where which
    """
)

# A step with one of these takes something back.
SECOND_THOUGHTS = _words(
    """
    actually again error errors incorrect mistake mistaken oops re-evaluate reconsider reevaluate wait wrong
    """
)

# An equation in a sentence with one of these holds only sometimes.
CONDITIONS = _words(
    """
    any assume assuming asymptote asymptotes at cannot case cases check checking choose choosing coefficient
    coefficients consider contradiction could discriminant divisible either every example false formula if
    impossible incorrect instance instead intercept intercepts intersect intersects let might mistake mod
    modulo no not or otherwise plug plugging possibilities possibility possible satisfies satisfy satisfying
    say setting shifted solving such suppose take test testing trial tries try trying unless until verify when
    whenever where which would wrong
    """
)

# In a text with one of these, `x` and `y` are coordinates of many points.
PLACES = _words(
    """
    axis circle coordinate coordinates curve domain edge edges ellipse function functions graph graphs hyperbola
    intersect intersection line lines parabola passing plane planes plot polynomial polynomials range region root
    roots sequence slope solution solutions term terms vertex zero zeros
    """
)

# A problem with one of these may give a sign a meaning of its own ("a * b = 2a + 3b").
DEFINING = _words("operation operations operator operators define defined defines")

# Between two equations these say that the second does not come from the first.
BRANCHING = _words(
    """
    and another case either if likewise or other second similarly suppose when whereas while
    """
)

# After one of these a number begins something new: it is never part of a unit.
NOT_UNITS = _words(
    """
    about add adding after also and answer approximately are as at ate be because becomes been before between
    billion bought but buys by calculate can cent cents choose could cubed decrease did dimes discount divide
    divided do does double dozen dozens eats equal equals factorial fewer for from gave get gets gives giving
    got had half has have he hence hundred i if in increase interest into is it least leaving less let made
    makes mean means million minus mod modulo more most multiplied multiply need needs nickels no not now off
    on only or out over pair pairs pennies percent percentage plus quarter quarters remainder remaining
    resulting roughly score sells she should simplify since so sold spends spent squared substitute subtract
    subtracting tax than that then therefore these they third thirds this those thousand thrice through thus
    times tip to trillion triple twice under until up versus vs was we were when where which while will with
    would yields you
    """
)

# After one of these comes what was found, not a number of theirs ("we obtain 5 = x").
FINDINGS = _words(
    """
    equation find found know known obtain obtained obtains shows write yield
    """
)

# Nouns, in the singular, that people number: "day 1", "box 2".
NUMBERED = _words(
    """
    bag basket batch bottle box bucket bus car case chapter class column container crate day farm field floor
    friend game garden grade group hour house item jar lap level line lot machine method minute month night
    option page part period person phase pile plan planet plant player point pond problem quarter question
    room round route row season section session set shelf shift shop side stage station step stop store student
    tank task team test tier train tree trip truck type week worker year zone
    """
)

# After one of these a statement begins.
CLAUSE_STARTS = _words(
    """
    because hence know means since so that then therefore thus
    """
)

# Beginnings of words that announce that an equation is the one before it, rewritten.
REWRITING = (
    "simplif", "rearrang", "expand", "divid", "multipl", "subtract", "adding", "add ", "combin", "factor",
    "becomes", "rewrit", "equivalent", "clear", "cancel", "distribut", "isolat", "implies", "solving for", "solve for",
    "collect",
)  # fmt: skip
